"""``octavo bench``: a bundle alone, and in turn with other runtimes."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e.checking import need_native

Octavo = Callable[..., Any]

openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None or importlib.util.find_spec("nncf") is None,
    reason="openvino and nncf are not installed: pip install 'octavo[bench]'",
)


@pytest.fixture
def quick(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """``bench`` with few runs, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return ["bench", bundle, "--runs", "5", "--warmup", "0"]


def test_alone(octavo: Octavo, quick: list[object]) -> None:
    found = octavo(*quick, "--threads", "1,2", "--json").json
    assert [result["threads"] for result in found["results"]] == [1, 2]
    assert [result["clock"] for result in found["results"]] == ["processor time", "wall time"]
    assert all(len(result["octavo"]["milliseconds"]) == 5 for result in found["results"])
    assert all(result["peers"] == [] and result["fastest"] is None for result in found["results"])
    assert octavo(*quick).out.splitlines()[2].startswith("octavo ")


def test_in_turn_with_onnxruntime(octavo: Octavo, quick: list[object], work: Path) -> None:
    arguments = [*quick, "--against", "onnxruntime", "--model", work / "tiny.onnx"]
    (result,) = octavo(*arguments, "--json").json["results"]
    assert [peer["name"] for peer in result["peers"]] == ["onnxruntime int8", "onnxruntime float32"]
    assert result["fastest"] in [peer["name"] for peer in result["peers"]]
    assert result["failures"] == {}
    for peer in result["peers"]:
        assert len(peer["milliseconds"]) == 5
        assert peer["best_ms"] <= peer["median_ms"] <= peer["p90_ms"]
        assert peer["ratio"]["low"] <= peer["ratio"]["median"] <= peer["ratio"]["high"]
    text = octavo(*arguments).out
    assert "onnxruntime int8" in text
    assert text.count(" *\n") + text.count(" *  ") == 1, "one is marked as the fastest"


def test_data_calibrates_the_others(octavo: Octavo, quick: list[object], work: Path, tmp_path: Path) -> None:
    """The bundle's own preprocessing makes inputs of images; other data makes another model."""
    arguments = [*quick, "--against", "onnxruntime", "--model", work / "tiny.onnx", "--json"]
    assert octavo(*arguments, "--calib", work / "images").json["calibration"] == str(work / "images")
    assert octavo(*arguments, "--calib", work / "images").code == 0
    assert octavo(*arguments, "--calib", work / "calib.npz", "--limit", "2").code == 0
    assert len(list((tmp_path / "octavo" / "peers").iterdir())) == 2


@openvino
@pytest.mark.slow
def test_in_turn_with_openvino(octavo: Octavo, quick: list[object], work: Path) -> None:
    arguments = [*quick, "--against", "openvino", "--model", work / "tiny.onnx", "--json"]
    (result,) = octavo(*arguments).json["results"]
    taking_part = {peer["name"]: peer for peer in result["peers"]}
    assert {"openvino int8 (NNCF)", "openvino int8 (QDQ)"} <= set(taking_part)
    assert set(taking_part) | set(result["failures"]) == {*taking_part, "openvino bf16"}
    integer = taking_part["openvino int8 (NNCF)"]
    assert any("i8" in kernel for kernel in integer["kernels"]), "a convolution is int8"


@openvino
def test_a_level_holds_openvino_to_its_instructions(octavo: Octavo, quick: list[object], work: Path) -> None:
    need_native("avx512vnni")
    compiled = work / "avx2.bundle"
    calib = ["--calib", work / "calib.npz", "--no-cache"]
    assert octavo("compile", work / "tiny.onnx", "--features", "avx2", *calib, "-o", compiled).code == 0
    quick[1] = compiled
    arguments = [*quick, "--against", "openvino", "--model", work / "tiny.onnx", "--level", "avx2", "--json"]
    (result,) = octavo(*arguments).json["results"]
    assert [peer["name"] for peer in result["peers"]] == ["openvino int8 (NNCF)", "openvino int8 (QDQ)"]
    for peer in result["peers"]:
        assert peer["isa"] == "AVX2"
        assert not any("avx512" in kernel for kernel in peer["kernels"])


@pytest.mark.slow
def test_per_kernel(octavo: Octavo, quick: list[object], tmp_path: Path) -> None:
    from octavo.backends.targets import host_levels

    found = octavo(*quick, "--per-kernel", "--plot", tmp_path / "roofline.svg", "--json").json
    assert found["level"] == host_levels()[-1]
    assert found["total"]["macs"] == 8 * 8 * 8 * 27 + 5 * 8, "the convolution and the linear layer"
    kernels = {kernel["label"]: kernel for kernel in found["kernels"]}
    conv = kernels["conv"]
    assert conv["kernel"] == "conv"
    assert conv["instruction"] in found["machine"]["gmacs"]
    assert conv["written"] == conv["rescaled"] == 8 * 8 * 8
    assert conv["constants"] >= 8 * 27
    assert all(kernel["best_nanoseconds"] <= kernel["nanoseconds"] for kernel in found["kernels"])
    assert all(kernel["bound"] in ("compute", "memory", "epilogue") for kernel in found["kernels"])
    assert all(rate > 0 for rate in found["machine"]["gmacs"].values())
    picture = (tmp_path / "roofline.svg").read_text(encoding="utf-8")
    assert picture.count("<title>") == 2, "an area for each kernel that multiplies"


def test_a_bundle_of_an_older_version_has_no_profile(octavo: Octavo, quick: list[object], tmp_path: Path) -> None:
    import json
    import shutil

    old = tmp_path / "old"
    shutil.copytree(str(quick[1]), old)
    manifest = json.loads((old / "manifest.json").read_text(encoding="utf-8"))
    del manifest["work"]
    (old / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    result = octavo("bench", old, "--per-kernel")
    assert result.code == 2
    assert "compile it again" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--plot", "picture.svg"], 2, "--per-kernel --plot FILE.svg"),
        (["--per-kernel", "--threads", "1,2"], 2, "one number of threads"),
        (["--per-kernel", "--against", "onnxruntime", "--model", "tiny.onnx"], 2, "a bundle alone"),
        (["--threads", "none"], 2, "not a list of numbers"),
        (["--plan", "3"], 2, "no plan 3"),
        (["--against", "onnxruntime"], 2, "--model MODEL.onnx"),
        (["--against", "tensorrt", "--model", "tiny.onnx"], 2, "no runtime is named 'tensorrt'"),
        (["--against", "onnxruntime", "--model", "gone.onnx"], 3, "gone.onnx"),
        (["--against", "onnxruntime", "--model", "tiny.onnx", "--calib", "gone"], 6, "gone"),
    ],
)
def test_mistakes(
    octavo: Octavo,
    quick: list[object],
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    monkeypatch.chdir(work)
    result = octavo(*quick, *arguments)
    assert result.code == code, result.err
    assert message in result.err


def test_a_missing_package_is_named(
    octavo: Octavo, quick: list[object], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from octavo.backends.bench import peers

    monkeypatch.setitem(peers.RUNTIMES, "openvino", ("no_such_package",))
    result = octavo(*quick, "--against", "openvino", "--model", work / "tiny.onnx")
    assert result.code == 2
    assert "pip install no_such_package" in result.err
