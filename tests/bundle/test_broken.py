"""Bundles that were damaged, exchanged or come from the future: a clear error, never a crash."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle.toys import Toy
from octavo.backends.bundle.errors import BundleCorruptError, BundleFormatError, BundleMachineError
from octavo.backends.bundle.loader import load
from octavo.ir.errors import BundleError, OctavoError


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "manifest.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def flip_byte(path: Path, position: int) -> None:
    """Writes a new file: changing a loaded library in place would change the running code."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x40
    path.unlink()
    path.write_bytes(data)


def test_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleFormatError, match="not a readable octavo bundle") as caught:
        load(tmp_path / "nothing")
    assert isinstance(caught.value, BundleError)
    assert isinstance(caught.value, OctavoError)
    assert "nothing" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "17", '"octavo"', "[" * 100000, "{}", '{"octavo_bundle": "1"}', "\x00\xff"]
)
def test_manifest_that_is_none(toy_copy: Path, text: str) -> None:
    (toy_copy / "manifest.json").write_text(text)
    with pytest.raises(BundleFormatError, match=r"manifest\.json"):
        load(toy_copy)


def test_manifest_with_wrong_bytes(toy_copy: Path) -> None:
    (toy_copy / "manifest.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BundleFormatError):
        load(toy_copy)


def test_newer_format(toy_copy: Path) -> None:
    edit_manifest(toy_copy, lambda document: document.update(octavo_bundle=2, plans="something new"))
    with pytest.raises(BundleFormatError, match="format version 2") as caught:
        load(toy_copy)
    assert "update octavo" in str(caught.value)


@pytest.mark.parametrize(
    ("place", "value", "shown"),
    [
        (("octavo_bundle",), 0, "octavo_bundle is 0"),
        (("prefix",), "../evil", "prefix is '../evil'"),
        (("plans",), [], "plans is"),
        (("plans", 0, "inputs", 0, "dtype"), "float128", "plans[0].inputs[0].dtype is 'float128'"),
        (("plans", 0, "inputs", 0, "shape"), "big", "plans[0].inputs[0].shape is 'big'"),
        (("plans", 0, "inputs", 0, "shape"), [True], "plans[0].inputs[0].shape[0] is True"),
        (("plans", 0, "outputs", 0, "scale"), "1", "plans[0].outputs[0].scale is '1'"),
        (("levels",), {}, "levels is {}"),
        (("target",), None, "target is None"),
        (("files",), {"../../etc/passwd": {"bytes": 1, "sha256": ""}}, "files is"),
        (("build",), 7, "build is 7"),
    ],
)
def test_malformed_manifest_names_the_place(toy_copy: Path, place: tuple[Any, ...], value: object, shown: str) -> None:
    def change(document: Any) -> None:
        for key in place[:-1]:
            document = document[key]
        document[place[-1]] = value

    edit_manifest(toy_copy, change)
    with pytest.raises(BundleFormatError) as caught:
        load(toy_copy)
    assert shown in str(caught.value)


def test_manifest_that_disagrees_with_the_library(toy_copy: Path) -> None:
    def grow(document: dict[str, Any]) -> None:
        document["plans"][0]["inputs"][0]["shape"][0] = 2

    edit_manifest(toy_copy, grow)
    with pytest.raises(BundleCorruptError, match="other inputs or outputs"):
        load(toy_copy)


def test_manifest_without_a_file(toy_copy: Path) -> None:
    edit_manifest(toy_copy, lambda document: document["files"].pop("libtoy.so"))
    with pytest.raises(BundleCorruptError, match=r"no record of libtoy\.so"):
        load(toy_copy)


@pytest.mark.parametrize("name", ["libtoy.so", "weights.bin"])
def test_missing_and_truncated_files(toy_copy: Path, name: str) -> None:
    data = (toy_copy / name).read_bytes()
    for damaged in (data[:-1], data[:100], b"", data + b"x"):
        (toy_copy / name).write_bytes(damaged)
        with pytest.raises(BundleCorruptError, match=f"{len(damaged)} bytes"):
            load(toy_copy)
    (toy_copy / name).unlink()
    with pytest.raises(BundleCorruptError, match="cannot be read"):
        load(toy_copy)


def test_altered_library(toy_copy: Path) -> None:
    flip_byte(toy_copy / "libtoy.so", 5000)
    with pytest.raises(BundleCorruptError, match="altered"):
        load(toy_copy)


def test_library_of_another_machine(toy_copy: Path) -> None:
    data = bytearray((toy_copy / "libtoy.so").read_bytes())
    data[18] = 243  # RISC-V
    (toy_copy / "libtoy.so").write_bytes(data)
    with pytest.raises(BundleCorruptError, match="not one for"):
        load(toy_copy)
    edit_manifest(toy_copy, lambda document: document["target"].update(architecture="riscv64"))
    with pytest.raises(BundleMachineError, match="is for riscv64"):
        load(toy_copy)


def test_library_that_is_no_library(toy_copy: Path) -> None:
    """Right size and digest in the manifest, nonsense inside."""
    path = toy_copy / "libtoy.so"
    path.write_bytes(path.read_bytes()[:64] + bytes(500))

    def record(document: dict[str, Any]) -> None:
        document["files"]["libtoy.so"] = {"bytes": 564, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}

    edit_manifest(toy_copy, record)
    with pytest.raises(BundleCorruptError, match="cannot be loaded"):
        load(toy_copy)


def test_altered_weights_header(toy_copy: Path) -> None:
    flip_byte(toy_copy / "weights.bin", 3)
    with pytest.raises(BundleCorruptError, match="not the weights file of this bundle"):
        load(toy_copy)


def test_altered_weights_are_found_by_verify(toy_copy: Path) -> None:
    flip_byte(toy_copy / "weights.bin", 64 + 17)
    with load(toy_copy) as bundle, pytest.raises(BundleCorruptError, match=r"weights\.bin was altered"):
        bundle.verify()


def test_verify_reads_every_file(toy_copy: Path) -> None:
    with load(toy_copy) as bundle:
        for name in bundle.manifest.files:
            kept = (toy_copy / name).read_bytes()
            flip_byte(toy_copy / name, len(kept) // 2)
            with pytest.raises(BundleCorruptError, match=f"{name} was altered"):
                bundle.verify()
            (toy_copy / name).unlink()
            (toy_copy / name).write_bytes(kept)
        bundle.verify()


def test_weights_of_another_bundle(toy_copy: Path, tmp_path: Path) -> None:
    Toy(seed=9).write(tmp_path / "other.octavo", tmp_path)
    shutil.copy(tmp_path / "other.octavo" / "weights.bin", toy_copy / "weights.bin")
    with pytest.raises(BundleCorruptError, match="not the weights file of this bundle"):
        load(toy_copy)


def test_library_of_another_bundle(toy_copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.octavo"
    Toy(seed=9).write(other, tmp_path)
    shutil.copy(other / "libtoy.so", toy_copy / "libtoy.so")
    record = json.loads((other / "manifest.json").read_text())["files"]["libtoy.so"]
    edit_manifest(toy_copy, lambda document: document["files"].update({"libtoy.so": record}))
    with pytest.raises(BundleCorruptError, match="different bundles"):
        load(toy_copy)
