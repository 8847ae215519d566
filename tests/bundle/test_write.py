"""Writing bundles: all or nothing, the same bytes each time, each weight once."""

from __future__ import annotations

import errno
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundle.toys import Toy
from octavo.backends.bundle import writer
from octavo.backends.bundle.link import Toolchain, find_toolchain
from octavo.backends.bundle.loader import load
from octavo.backends.bundle.manifest import read_manifest
from octavo.backends.bundle.weights import WeightStore
from octavo.backends.bundle.writer import BundleContents, write_bundle
from octavo.ir.errors import BundleError, ToolchainError


@pytest.fixture(scope="module")
def contents(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> BundleContents:
    return toy.contents(tmp_path_factory.mktemp("kernels"))


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_files(toy_folder: Path) -> None:
    expected = ["example.c", "labels.txt", "libtoy.so", "manifest.json", "toy.h", "toy.o", "weights.bin"]
    assert left_in(toy_folder) == expected
    manifest = read_manifest(toy_folder)
    assert sorted(manifest.files) == [name for name in expected if name != "manifest.json"]
    assert (toy_folder / "labels.txt").read_text() == "cat\ndog\n"


def test_manifest_round_trip(tmp_path: Path, contents: BundleContents) -> None:
    rich = replace(
        contents,
        exactness="within 1e-6",
        preprocessing={"resize": 256, "mean": [0.485, 0.456, 0.406]},
        made={"octavo": "0.1.0", "pipeline": "fuse,quantize{weights=per-channel}", "source_sha256": "00"},
        decisions=[{"node": "großer Name", "int8": True}],
    )
    written = write_bundle(tmp_path / "a.octavo", rich)
    assert read_manifest(tmp_path / "a.octavo") == written
    assert written.decisions == rich.decisions
    assert (tmp_path / "a.octavo" / "manifest.json").read_text().startswith('{\n  "octavo_bundle": 1,')


def test_the_same_bytes_each_time(tmp_path: Path, contents: BundleContents) -> None:
    write_bundle(tmp_path / "a.octavo", contents)
    write_bundle(tmp_path / "deeper" / "b.octavo", contents)
    for path in (tmp_path / "a.octavo").iterdir():
        assert path.read_bytes() == (tmp_path / "deeper" / "b.octavo" / path.name).read_bytes(), path.name


def test_library_offers_the_prefix_alone(toy_folder: Path) -> None:
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", toy_folder / "libtoy.so"], capture_output=True, text=True, check=True
    )
    names = [line.split()[-1] for line in listing.stdout.splitlines()]
    assert "toy_run" in names
    assert all(name.startswith("toy_") for name in names)
    assert not [name for name in names if "dense" in name], "kernels are not visible"
    listing = subprocess.run(
        ["nm", "-g", "--defined-only", toy_folder / "toy.o"], capture_output=True, text=True, check=True
    )
    assert all(line.split()[-1].startswith("toy_") for line in listing.stdout.splitlines() if line)


def test_weights_are_stored_once() -> None:
    store = WeightStore(slack=100)
    first, second = np.arange(100, dtype=np.int8), np.arange(7, dtype=np.float32)
    offsets = [store.add(first), store.add(second), store.add(first.copy().reshape(10, 10)), store.add(first[::-1])]
    assert offsets == [0, 128, 0, 192]
    assert store.data_bytes == 192 + 128 + 128
    data = b"".join(bytes(chunk) for chunk in store.chunks())
    assert len(data) == 64 + store.data_bytes
    assert data[64:164] == first.tobytes()
    assert data[64 + 128 : 64 + 156] == second.tobytes()
    assert data[-128:] == bytes(128)


def test_existing_folder(tmp_path: Path, contents: BundleContents) -> None:
    path = tmp_path / "a.octavo"
    write_bundle(path, contents)
    with pytest.raises(BundleError, match="exists already"):
        write_bundle(path, contents)
    write_bundle(path, contents, overwrite=True)
    load(path).close()
    assert left_in(tmp_path) == ["a.octavo"]


def test_never_overwrites_what_is_no_bundle(tmp_path: Path, contents: BundleContents) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "link").symlink_to("thesis")
    (tmp_path / "file").write_text("a file")
    (tmp_path / "empty").mkdir()
    for name in ("thesis", "link", "file"):
        with pytest.raises(BundleError):
            write_bundle(tmp_path / name, contents, overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    write_bundle(tmp_path / "empty", contents, overwrite=True)


def _stop(error: BaseException) -> Callable[..., Any]:
    def stop(*arguments: object, **options: object) -> Any:
        raise error

    return stop


STAGES = (
    "_write_weights",
    "compile_unit",
    "link_library",
    "link_relocatable",
    "example_program",
    "digest_file",
    "_sync",
    "_publish",
)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device"), MemoryError()]
)
def test_interrupted_at_any_stage(
    tmp_path: Path,
    contents: BundleContents,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    error: BaseException,
    overwrite: bool,
) -> None:
    path = tmp_path / "a.octavo"
    if overwrite:
        path.mkdir()
        (path / "manifest.json").write_text("the old one")
    monkeypatch.setattr(writer, stage, _stop(error))
    with pytest.raises(BundleError if isinstance(error, OSError) else type(error)) as caught:
        write_bundle(path, contents, overwrite=overwrite)
    if isinstance(error, OSError):
        assert "the disk is full" in str(caught.value)
    assert left_in(tmp_path) == (["a.octavo"] if overwrite else [])
    assert not overwrite or (path / "manifest.json").read_text() == "the old one"


def test_interrupted_between_the_two_renames(
    tmp_path: Path, contents: BundleContents, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.octavo"
    write_bundle(path, contents)
    before = (path / "manifest.json").read_bytes()
    rename = Path.rename

    def stop_second(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stop_second)
    with pytest.raises(KeyboardInterrupt):
        write_bundle(path, contents, overwrite=True)
    assert (path / "manifest.json").read_bytes() == before
    assert left_in(tmp_path) == ["a.octavo"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield path
    subprocess.run(["umount", path], check=True)


@pytest.mark.parametrize("big", [300_000, 60_000])
def test_disk_full(small_disk: Path, toy: Toy, tmp_path: Path, big: int) -> None:
    """Once while writing the weights, once while the linker writes the library."""
    contents = toy.contents(tmp_path)
    contents.weights.add(np.random.default_rng(0).integers(0, 255, big, np.uint8))
    kernel = next(path for path in contents.objects)
    filler = kernel.with_name("filler.o")
    source = kernel.with_name("filler.c")
    source.write_text('const unsigned char toy_filler[90000] __attribute__((visibility("default"))) = {1};\n')
    find_toolchain(contents.program.architecture).run("-fPIC", "-c", source, "-o", filler)
    with pytest.raises(BundleError, match="the disk is full"):
        write_bundle(small_disk / "a.octavo", replace(contents, objects=(*contents.objects, filler)))
    assert left_in(small_disk) == []


def test_no_permission(tmp_path: Path, contents: BundleContents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", _stop(PermissionError(errno.EACCES, "Permission denied", "here")))
    with pytest.raises(BundleError, match="Permission denied"):
        write_bundle(tmp_path / "a.octavo", contents)


def test_objects_that_do_not_fit(tmp_path: Path, toy: Toy, contents: BundleContents) -> None:
    text = tmp_path / "text.o"
    text.write_text("not an object")
    with pytest.raises(ToolchainError, match="cannot be read"):
        write_bundle(tmp_path / "a.octavo", replace(contents, objects=(text,)))
    with pytest.raises(ToolchainError, match="do not begin with other_") as caught:
        write_bundle(
            tmp_path / "a.octavo",
            replace(contents, program=replace(Toy(prefix="other").program(WeightStore()), prefix="other")),
        )
    assert "toy_" in str(caught.value)
    with pytest.raises(ToolchainError, match="undefined reference"):
        write_bundle(tmp_path / "a.octavo", replace(contents, objects=contents.objects[:1]))
    assert not (tmp_path / "a.octavo").exists()


def test_failing_compiler(tmp_path: Path, contents: BundleContents) -> None:
    for command in (("false",), ("no-such-compiler-anywhere",)):
        with pytest.raises(ToolchainError):
            write_bundle(tmp_path / "a.octavo", contents, toolchain=Toolchain(contents.program.architecture, command))
    assert left_in(tmp_path) == []
