"""A bundle under a C program: threads, forks, rounding modes, guard pages, poisoned memory, misuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bundle.programs import Program, build_driver
from bundle.toys import Toy
from octavo.backends.bundle.link import Toolchain, find_toolchain
from octavo.backends.bundle.writer import write_bundle

MODES = (
    "plain",
    "rounding",
    "threads",
    "sleepers",
    "crowd",
    "forks",
    "forks in runs",
    "parallel",
    "guards",
    "misuse",
)
SANITIZED = {
    # Its runtime does not allow threads after fork.
    "thread": ("plain", "threads", "sleepers", "crowd", "parallel", "rounding"),
    # Its allocator leaves a child the locks that other threads held.
    "address,undefined": tuple(mode for mode in MODES if mode != "forks in runs"),
}


@pytest.fixture(scope="module")
def driver(toy: Toy, toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Program:
    return build_driver(toy, toy_folder, tmp_path_factory.mktemp("driver"), find_toolchain(toy.architecture))


@pytest.fixture(scope="module")
def embedded(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Program:
    scratch = tmp_path_factory.mktemp("embedded with 'quotes' and \"more\"")
    toy.write(scratch / "toy.octavo", scratch, embed_weights=True)
    assert not (scratch / "toy.octavo" / "weights.bin").exists()
    return build_driver(toy, scratch / "toy.octavo", scratch, find_toolchain(toy.architecture))


@pytest.mark.parametrize("mode", MODES)
def test_behaves(driver: Program, mode: str) -> None:
    driver.check(mode)


def test_embedded_weights_behave(embedded: Program) -> None:
    embedded.check("plain")


@pytest.mark.parametrize("threads", ["1", "2", "5", "-3", "many", "100000"])
def test_number_of_threads_from_the_environment(driver: Program, threads: str) -> None:
    driver.check("plain", OCTAVO_NUM_THREADS=threads)


@pytest.mark.parametrize("sanitizer", SANITIZED)
def test_sanitizers_find_nothing(toy: Toy, tmp_path: Path, sanitizer: str) -> None:
    flags = (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all")
    plain = find_toolchain(toy.architecture)
    toolchain = Toolchain(toy.architecture, (*plain.command, *flags))
    probe = tmp_path / "probe.c"
    probe.write_text("int main(void) { return 0; }\n")
    try:
        toolchain.run(probe, "-o", tmp_path / "probe")
    except Exception as error:  # noqa: BLE001 - whatever the reason, this compiler has no such sanitizer
        pytest.skip(f"no {sanitizer} sanitizer: {error}")
    contents = replace(toy.contents(tmp_path), objects=toy.objects(tmp_path, toolchain))
    write_bundle(tmp_path / "toy.octavo", contents, toolchain=toolchain)
    program = build_driver(toy, tmp_path / "toy.octavo", tmp_path, toolchain)
    for mode in SANITIZED[sanitizer]:
        program.check(mode)
