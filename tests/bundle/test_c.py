"""Bundles in C and C++ programs: the example, static linking, two bundles together, a missing weights file."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from bundle.programs import HERE, STRICT, SYSTEM
from bundle.toys import Toy
from octavo.backends.bundle.example import example_program
from octavo.backends.bundle.link import find_toolchain
from octavo.backends.bundle.program import TensorSpec
from octavo.backends.bundle.weights import WeightStore


@pytest.mark.parametrize("how", ["shared", "relocatable"])
def test_example(toy: Toy, toy_folder: Path, tmp_path: Path, how: str) -> None:
    folder = shutil.copytree(toy_folder, tmp_path / "bundle")
    code = ("-L.", "-ltoy", "-Wl,-rpath,$ORIGIN") if how == "shared" else ("toy.o",)
    find_toolchain(toy.architecture).run(*STRICT, "example.c", "-o", "example", *code, *SYSTEM, folder=folder)
    toy.input().tofile(folder / "input.raw")
    result = subprocess.run(["./example", "input.raw"], cwd=folder, capture_output=True, text=True, check=True)
    scores = toy.expected(toy.input()).reshape(-1)
    best = np.argsort(-scores)[:5]
    printed = [line.split() for line in result.stdout.splitlines()]
    assert [float(words[1]) for words in printed] == pytest.approx([float(scores[i]) for i in best], rel=1e-5)
    assert {int(words[0]) for words in printed} <= set(np.argsort(-scores)[:8].tolist())


def test_example_refuses_wrong_files(toy: Toy, toy_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(toy_folder, tmp_path / "bundle")
    find_toolchain(toy.architecture).run(*STRICT, "example.c", "-o", "example", "toy.o", *SYSTEM, folder=folder)
    (folder / "short.raw").write_bytes(bytes(8))
    toy.input().tofile(folder / "input.raw")
    for arguments, message in (([], "one file"), (["absent.raw"], "absent.raw"), (["short.raw"], "exactly 1536 bytes")):
        result = subprocess.run(["./example", *arguments], cwd=folder, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert message in result.stderr
    (folder / "weights.bin").unlink()
    result = subprocess.run(["./example", "input.raw"], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "weights.bin: No such file" in result.stderr


def test_example_survives_odd_names(toy: Toy, tmp_path: Path) -> None:
    program = toy.program(WeightStore())
    spec = TensorSpec("*/ #include <evil>\n \\", "int8", (), scale=0.5, zero_point=3)
    text = example_program(program)
    object.__setattr__(program.signatures[0], "inputs", (spec, spec))
    text = example_program(program)
    assert "evil" in text
    assert "*/ #include" not in text


def test_two_bundles_in_one_program(toy: Toy, toy_folder: Path, tmp_path: Path) -> None:
    other = Toy(prefix="other", rows=(7,), seed=5)
    other.write(tmp_path / "other.octavo", tmp_path)
    folders = (toy_folder, tmp_path / "other.octavo")
    includes = [f"-I{folder}" for folder in folders]
    objects = [toy_folder / "toy.o", tmp_path / "other.octavo" / "other.o"]
    weights = [folder / "weights.bin" for folder in folders]
    binary = tmp_path / "two"
    find_toolchain(toy.architecture).run(*STRICT, *includes, HERE / "two.c", "-o", binary, *objects, *SYSTEM)
    subprocess.run([binary, *weights], check=True, timeout=60)
    swapped = subprocess.run([binary, *reversed(weights)], capture_output=True, text=True, check=False)
    assert swapped.returncode == 3
    assert "not the weights file of this bundle" in swapped.stderr or "bytes, expected" in swapped.stderr


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_header_in_cpp(toy_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "use.cpp"
    source.write_text(
        '#include "toy.h"\n'
        "int main() {\n"
        "  toy_context *context = nullptr;\n"
        "  int status = toy_create(&context, nullptr);\n"
        "  toy_destroy(context);\n"
        "  return status;\n"
        "}\n"
    )
    flags = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-pedantic")
    library = (f"-L{toy_folder}", "-ltoy", f"-Wl,-rpath,{toy_folder}")
    subprocess.run(["c++", *flags, f"-I{toy_folder}", source, "-o", tmp_path / "use", *library], check=True)
    subprocess.run([tmp_path / "use"], check=True)


def test_header_in_strict_c99(toy_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "use.c"
    source.write_text('#include "toy.h"\nint main(void) { return TOY_OK; }\n')
    subprocess.run(
        ["cc", "-std=c99", "-pedantic-errors", *STRICT[2:], f"-I{toy_folder}", "-c", source, "-o", tmp_path / "use.o"],
        check=True,
    )
