"""What users get wrong: each mistake has its exit code, names the place, and shows no traceback."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from octavo.cli import main

Octavo = Callable[..., Any]

COMPILE = ["compile", "tiny.onnx", "--calib", "calib.npz", "-o", "{tmp}/out", "--mcpu", "native", "--no-cache"]

MISTAKES: list[tuple[list[str], int, str]] = [
    # the command line
    (["frobnicate"], 2, "No such command"),
    (["compile"], 2, "Missing argument"),
    (["compile", "tiny.onnx", "--frob"], 2, "No such option"),
    (["compile", "tiny.onnx", "--jobs", "0"], 2, "--jobs"),
    (["compile", "tiny.onnx", "--calib"], 2, "requires an argument(.|\n)*octavo compile --help"),
    (["compile", "tiny.onnx", "tiny.pt2", "--name", "x"], 2, "--name is for one model"),
    (["compile", "tiny.onnx", "tiny.pt2", "-o", "{tmp}"], 2, "two models would become"),
    # models
    (["compile", "gone.onnx"], 3, "no such file(.|\n)*gone.onnx"),
    (["compile", "gone"], 3, "no such model(.|\n)*gone"),
    (["compile", "images"], 3, "a folder is no model(.|\n)*images"),
    (["compile", "calib.npz"], 3, ".npz is no kind of model(.|\n)*calib.npz"),
    (["compile", "damaged.onnx"], 3, "damaged.onnx"),
    (["compile", "damaged.pt2"], 3, "damaged.pt2"),
    (["compile", "damaged.octavo"], 2, "damaged.octavo"),
    (["compile", "weights.pth"], 3, "pickles(.|\n)*weights.pth"),
    (["compile", "gone_module:make"], 3, "gone_module cannot be imported(.|\n)*gone_module:make"),
    (["compile", "tiny_factory:gone"], 3, "no attribute 'gone'(.|\n)*tiny_factory:gone"),
    (["compile", "tiny_factory:NUMBER"], 3, "NUMBER is a int"),
    (["compile", "tiny_factory:broken"], 3, r"broken\(\) failed: RuntimeError: no weights today"),
    (["compile", "tiny_factory:Tiny"], 3, r"needs example inputs(.|\n)*a factory returns \(module, "),
    (["compile", "unsupported.onnx", "--calib", "calib.npz", "-o", "{tmp}/out"], 4, "Det(.|\n)*the_extra|the_extra"),
    (["compile", "nan.onnx"], 3, "NaN(.|\n)*initializer w"),
    # shapes
    ([*COMPILE, "--shape", "image=1x3x9"], 3, "does not fit(.|\n)*input image"),
    ([*COMPILE, "--shape", "img=1x3x16x16"], 3, "img(.|\n)*one of image"),
    ([*COMPILE, "--shape", "1x3x16x16"], 2, "names no input"),
    ([*COMPILE, "--shape", "image=1x3xAx16"], 2, "'A' is no size"),
    ([*COMPILE, "--shape", "image=1x3x{16x16"], 2, "brace"),
    (["compile", "tiny.pt2", "--shape", "image=1x4x16x16", "-o", "{tmp}/out"], 3, "does not fit the shape image=1x4"),
    # targets
    ([*COMPILE[:6], "--target", "x86"], 2, "no target is named 'x86'(.|\n)*x86-int8, arm-int8"),
    ([*COMPILE[:6], "--mcpu", "cortex-a53"], 2, "no x86_64 CPU(.|\n)*--target arm-int8"),
    ([*COMPILE[:6], "--mcpu", "zen9"], 2, "no CPU is named 'zen9'(.|\n)*znver5"),
    ([*COMPILE[:6], "--mcpu", "nativ"], 2, "did you mean native"),
    ([*COMPILE[:6], "--features", "avx2,sse"], 2, "no level 'sse'"),
    # tuning
    ([*COMPILE, "--tune", "banana"], 2, "'banana' is no time to tune for(.|\n)*30s or 2m"),
    ([*COMPILE, "--tune", "0"], 2, "'0' is no time to tune for"),
    (
        ["compile", "tiny.onnx", "--calib", "gone", "-o", "{tmp}/out", "--tune", "5s", "--target", "arm-int8"],
        2,
        "neon, dotprod, i8mm cannot be measured on this machine(.|\n)*try: tune on the machine",
    ),
    # data
    (["compile", "tiny.onnx", "-o", "{tmp}/out"], 6, "no calibration data"),
    (["compile", "tiny.onnx", "--calib", "gone", "-o", "{tmp}/out"], 6, "no such file or folder(.|\n)*gone"),
    (["compile", "tiny.onnx", "--calib", "images", "-o", "{tmp}/out"], 6, "preprocessing(.|\n)*0.png"),
    (["compile", "tiny.onnx", "--calib", "empty", "-o", "{tmp}/out"], 6, "holds no data(.|\n)*empty"),
    (["compile", "tiny.onnx", "--calib", "wrong.npz", "-o", "{tmp}/out"], 6, "1x3x8x8(.|\n)*wrong.npz(.|\n)*1x3x16x16"),
    (["compile", "tiny.onnx", "--calib", "nan.npz", "-o", "{tmp}/out"], 6, "not finite(.|\n)*nan.npz"),
    ([*COMPILE, "--preprocess", "crops=3"], 2, "did you mean crop"),
    ([*COMPILE, "--limit", "0"], 6, "limit of 0"),
    ([*COMPILE, "--ranges", "gone.json"], 2, "gone.json"),
    ([*COMPILE, "--save-ranges", "gone/ranges.json"], 2, "no folder for the ranges(.|\n)*gone/ranges.json"),
    ([*COMPILE, "--act-range", "image=3"], 2, "NAME=MIN:MAX"),
    ([*COMPILE, "--act-range", "imag=0:1"], 2, "imag(.|\n)*did you mean image"),
    ([*COMPILE, "--labels", "gone.txt"], 2, "labels cannot be read(.|\n)*gone.txt"),
    # passes
    ([*COMPILE, "--pipeline", "int9"], 2, "'int9'(.|\n)*did you mean int8"),
    ([*COMPILE, "--pipeline", "int8{ratio=1}"], 2, "int8 is a pipeline, and takes no options"),
    (["opt", "tiny.onnx", "-p", "observe{method}"], 2, "method has no value\n.*\n +expected: method=...[^?]*$"),
    (["opt", "tiny.onnx", "-p", "fuse{pading=false}"], 2, "pading(.|\n)*did you mean padding"),
    (["opt", "tiny.onnx", "-p", "fuse", "--print-after", "quantize"], 2, "not in the pipeline"),
    (["opt", "tiny.onnx", "-p", "fuse", "-o", "{tmp}/out.txt"], 2, "ends in .octavo"),
    (["opt", "tiny.onnx", "-p", "fuse", "-o", "{tmp}/gone/out.octavo"], 2, "cannot be written(.|\n)*gone"),
    (["opt", "tiny.onnx", "-p", "observe,lower-integer"], 5, "still has observers"),
    (["passes", "fuze"], 2, "did you mean fuse"),
    # destinations
    ([*COMPILE[:4], "-o", "images"], 8, "images"),
    ([*COMPILE[:4], "-o", "images", "--overwrite"], 8, "not a bundle(.|\n)*images"),
    ([*COMPILE[:4], "-o", "tiny.onnx/out"], 8, "tiny.onnx"),
    # bundles
    (["run", "gone", "calib.npz"], 8, "not a readable octavo bundle(.|\n)*gone"),
    (["run", "images", "calib.npz"], 8, "not a readable octavo bundle(.|\n)*images"),
    (["verify", "gone"], 8, "not a readable octavo bundle"),
    (["inspect", "images"], 8, "not a readable octavo bundle"),
    (["bench", "gone"], 8, "not a readable octavo bundle"),
    (["run", "tiny.bundle", "calib.npz", "--level", "neon"], 8, "no level 'neon'(.|\n)*expected: one of [a-z0-9]+\n"),
    (["run", "tiny.onnx", "calib.npz"], 8, r"holds manifest.json \(Not a directory\)"),
    (["compile", "tiny.onnx", "--calib", "calib.npz", "-o", "tiny.bundle"], 8, "exists already(.|\n)*--overwrite"),
    (
        ["compare", "renamed.onnx", "tiny.bundle", "--data", "calib.npz"],
        3,
        "given for image(.|\n)*the inputs of tiny.bundle",
    ),
    (
        ["compare", "tiny.onnx", "tiny.bundle", "--data", "calib.npz", "--max-flips", "5"],
        2,
        "--max-flips(.|\n)*less than or equal to 1",
    ),
    (["compare", "tiny.onnx", "gone", "--data", "calib.npz"], 3, "no such model(.|\n)*gone"),
    (["compare", "tiny.onnx", "tiny.pt2"], 2, "--data"),
    (["compare", "tiny.onnx", "tiny.pt2", "--data", "calib.npz"], 9, "outputs are output(.|\n)*logits"),
]


@pytest.fixture
def place(work: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a bundle and some damaged files."""
    monkeypatch.chdir(work)
    for name in ("damaged.onnx", "damaged.pt2", "damaged.octavo", "weights.pth"):
        (work / name).write_bytes(b"\x00not a network")
    (work / "empty").mkdir(exist_ok=True)
    np.savez(work / "wrong.npz", image=np.zeros((1, 3, 8, 8), np.float32))
    np.savez(work / "nan.npz", image=np.full((1, 3, 16, 16), np.nan, np.float32))
    model = onnx.load(work / "tiny.onnx")
    broken = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    broken[0, 0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(broken, "w"))
    onnx.save(model, work / "nan.onnx")
    model = onnx.load(work / "tiny.onnx")
    model.graph.input[0].name = model.graph.node[0].input[0] = "picture"
    onnx.save(model, work / "renamed.onnx")
    model = onnx.load(work / "tiny.onnx")
    model.graph.node.append(onnx.helper.make_node("StringNormalizer", ["logits"], ["extra"], "the_extra"))
    model.graph.output[0].name = "extra"
    onnx.save(model, work / "unsupported.onnx")
    return work


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES, ids=[" ".join(m[0])[:60] for m in MISTAKES])
def test_a_mistake(octavo: Octavo, place: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    result = octavo(*(argument.format(tmp=tmp_path) if "{tmp}" in argument else argument for argument in arguments))
    assert result.code == code, result.err
    assert re.search(message, result.err), result.err
    assert not result.out
    assert not list(tmp_path.iterdir())


def test_json_errors_are_json(octavo: Octavo, place: Path) -> None:
    error = octavo("inspect", "gone.onnx", "--json").json["error"]
    assert error["what"] == "no such file"
    assert error["where"] == "gone.onnx"
    assert error["exit_code"] == 3


def test_debug_shows_the_traceback(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main.run(["inspect", "gone.onnx", "--debug"]) == 3
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_model(octavo: Octavo, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "secret.onnx"
    shutil.copyfile(place / "tiny.onnx", path)
    path.chmod(0)
    result = octavo("inspect", path)
    assert result.code == 3
    assert "Permission denied" in result.err


def test_a_defect_says_that_it_is_one(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("octavo.cli.commands.targets.print_table", fail)
    assert main.run(["targets"]) == 70
    assert "defect of octavo" in capfd.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_compilation_leaves_nothing(place: Path, tmp_path: Path, number: int, code: int) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-c", "from octavo.cli.main import main; main()", "compile", str(place / "tiny.onnx")]
    command += ["--calib", str(place / "calib.npz"), "-o", str(tmp_path / "out"), "--no-cache"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, env=environment) as process:
        # The folder of the kernels appears just before the compiler's processes start, which takes them a second.
        while not any(scratch.glob("octavo-kernels-*")):
            assert process.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.01)
        time.sleep(0.2)
        os.killpg(process.pid, number)
        start = time.monotonic()
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert time.monotonic() - start < 10
    assert b"Traceback" not in err
    assert list(tmp_path.iterdir()) == [scratch]
    assert not list(scratch.iterdir())


def test_json_errors_of_the_command_line_are_json(octavo: Octavo, place: Path) -> None:
    error = octavo("inspect", "--json").json["error"]
    assert "Missing argument" in error["what"]
    assert error["hint"] == "octavo inspect --help"
    assert error["exit_code"] == 2


def test_without_arguments_the_help_is_shown(octavo: Octavo) -> None:
    result = octavo()
    assert result.code == 2
    assert "Usage: octavo" in result.out + result.err
