"""Finding a C compiler, and what is said when there is none."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from bundle.programs import build_driver, require_arm
from bundle.toys import Toy
from octavo.backends.bundle import link
from octavo.backends.bundle.elf import machine_of, read_elf
from octavo.backends.bundle.link import Toolchain, find_toolchain, host_architecture
from octavo.backends.bundle.writer import write_bundle
from octavo.ir.errors import ToolchainError


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    link._first_working.cache_clear()
    yield
    link._first_working.cache_clear()


@pytest.fixture
def nothing_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize(
    ("architecture", "way_out"), [("aarch64", "OCTAVO_CC_AARCH64"), ("x86_64", "OCTAVO_CC_X86_64")]
)
def test_no_compiler(architecture: str, way_out: str) -> None:
    with pytest.raises(ToolchainError, match=f"no C compiler for {architecture}") as caught:
        find_toolchain(architecture)
    assert way_out in str(caught.value)
    assert "install" in str(caught.value)


def test_chosen_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    architecture = host_architecture()
    real = find_toolchain(architecture)
    name = f"OCTAVO_CC_{architecture.upper()}"
    monkeypatch.setenv(name, " ".join([*real.command, "-DCHOSEN=1"]))
    assert find_toolchain(architecture).command == (*real.command, "-DCHOSEN=1")
    monkeypatch.setenv(name, "/no/such/compiler")
    with pytest.raises(ToolchainError, match="does not work") as caught:
        find_toolchain(architecture)
    assert "/no/such/compiler" in str(caught.value)


def test_compiler_for_another_machine_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[host_architecture()]
    monkeypatch.setenv(f"OCTAVO_CC_{other.upper()}", " ".join(find_toolchain(host_architecture()).command))
    with pytest.raises(ToolchainError, match="does not work"):
        find_toolchain(other)


@pytest.mark.skipif(importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed")
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_zig(architecture: str, tmp_path: Path) -> None:
    if architecture == "aarch64":
        require_arm()
    (zig,) = [Toolchain(architecture, words) for words in link._candidates(architecture) if "ziglang" in words]
    toy = Toy(architecture=architecture)
    write_bundle(tmp_path / "toy.octavo", toy.contents(tmp_path), toolchain=zig)
    driver = build_driver(toy, tmp_path / "toy.octavo", tmp_path, find_toolchain(architecture))
    for mode in ("plain", "threads", "guards"):
        driver.check(mode)


def test_compiler_messages_are_shown(tmp_path: Path) -> None:
    (tmp_path / "bad.c").write_text("this is not C\n")
    with pytest.raises(ToolchainError, match="error:") as caught:
        find_toolchain(host_architecture()).run("-c", tmp_path / "bad.c", "-o", tmp_path / "bad.o")
    assert "bad.c" in str(caught.value)


def test_elf_reader(tmp_path: Path) -> None:
    source, output = tmp_path / "s.c", tmp_path / "s.o"
    source.write_text(
        "extern int wanted; int offered(void) { return wanted; }\n"
        '__attribute__((visibility("hidden"))) int kept; static int own; int *use(void) { return &own; }\n'
    )
    find_toolchain(host_architecture()).run("-c", source, "-o", output)
    elf = read_elf(output)
    assert elf.machine == host_architecture() == machine_of(output)
    found = {symbol.name: (symbol.defined, symbol.hidden) for symbol in elf.static}
    found.pop("_GLOBAL_OFFSET_TABLE_", None)
    assert found == {"wanted": (False, False), "offered": (True, False), "kept": (True, True), "use": (True, False)}
    data = output.read_bytes()
    for size in (0, 3, 6, 19, 60, len(data) // 2):
        output.write_bytes(data[:size])
        with pytest.raises(ValueError, match="ELF"):
            read_elf(output)
    assert machine_of(output) == host_architecture()
    output.write_bytes(data[:10])
    assert machine_of(output) is None
