"""Looking at models and running passes on them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from octavo.ir import load_graph, parse_graph, run_graph
from octavo.ir.text import print_graph

Octavo = Callable[..., Any]


@pytest.fixture(params=["tiny.onnx", "tiny.pt2", "tiny_factory:make"])
def model(request: pytest.FixtureRequest, work: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(work)
    name: str = request.param
    return name


def test_inspect_decides_every_node(octavo: Octavo, model: str) -> None:
    text = octavo("inspect", model, "--nodes")
    assert text.code == 0
    assert "image" in text.out
    assert "nodes become integer, 100.0% of the multiply-accumulates; 0 float islands" in text.out
    found = octavo("inspect", model, "--json").json
    assert found["inputs"] == [{"name": "image", "type": "f32[1x3x16x16]"}]
    assert found["macs"] == 8 * 8 * 8 * 27 + 8 * 5
    assert {row["precision"] for row in found["decisions"]} == {"quantized"}
    assert all(row["where"] and row["rule"] and row["reason"] for row in found["decisions"])


def test_inspect_prints_the_graph(octavo: Octavo, model: str) -> None:
    assert octavo("inspect", model, "--text").out.startswith("octavo.graph 1\n")


def test_inspect_takes_shapes(octavo: Octavo, work: Path) -> None:
    found = octavo("inspect", work / "tiny.onnx", "--shape", "image=4x3x16x16", "--json").json
    assert found["inputs"][0]["type"] == "f32[4x3x16x16]"


def test_opt_prints_a_graph_that_parses(octavo: Octavo, model: str, work: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.octavo"
    assert octavo("opt", model, "-p", "prepare", "-o", output).code == 0
    graph = load_graph(output)
    printed = octavo("opt", output, "-p", "simplify").out
    assert parse_graph(printed, lambda digest: graph.constants()[digest]).inputs[0].name == "image"
    assert not list(tmp_path.glob(".*"))


def test_opt_freezes_with_data_or_ranges(octavo: Octavo, work: Path, tmp_path: Path) -> None:
    calibrated, repeated, ranges = tmp_path / "a.octavo", tmp_path / "b.octavo", tmp_path / "ranges.json"
    common = ["opt", work / "tiny.pt2", "-p", "int8"]
    assert octavo(*common, "--calib", work / "calib.npz", "--save-ranges", ranges, "-o", calibrated).code == 0
    assert octavo(*common, "--ranges", ranges, "-o", repeated).code == 0
    assert calibrated.read_text() == repeated.read_text()
    low, high = json.loads(ranges.read_text())["image"]
    assert octavo(*common, "--ranges", ranges, "--act-range", f"image={2 * low}:{2 * high}", "-o", repeated).code == 0
    assert calibrated.read_text() != repeated.read_text()
    data = np.load(work / "calib.npz")["image"][:1]
    assert run_graph(load_graph(calibrated), {"image": data})["output"].shape == (1, 5)


def test_opt_watches_the_passes(octavo: Octavo, work: Path) -> None:
    model = work / "tiny.onnx"
    data = ["--check-numerics", work / "calib.npz", "--shape", "image=1x3x16x16"]
    watched = octavo("opt", model, "-p", "prepare", *data, "--time-passes", "--explain", "--print-after", "fuse")
    assert watched.code == 0
    assert "// after fuse" in watched.out
    assert "fold-batchnorm" in watched.err
    assert "total" in watched.err
    everything = octavo("opt", model, "-p", "simplify", "--print-after-all").out
    assert everything.count("// after ") == 4


def test_opt_json_is_pure(octavo: Octavo, work: Path) -> None:
    result = octavo("opt", work / "tiny.onnx", "-p", "fuse,eliminate-dead", "--print-after-all", "--json")
    assert [row["pass"] for row in result.json["passes"]] == ["fuse", "eliminate-dead"]
    assert "// after fuse" in result.err


def test_opt_leaves_the_file_alone_when_a_pass_fails(octavo: Octavo, work: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.octavo"
    output.write_text("mine")
    assert octavo("opt", work / "tiny.onnx", "-p", "lower-integer,quantize,int8", "-o", output).code != 0
    assert output.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out.octavo"]


def test_a_saved_graph_is_a_model(octavo: Octavo, work: Path, tmp_path: Path) -> None:
    output = tmp_path / "prepared.octavo"
    octavo("opt", work / "tiny.onnx", "-p", "simplify", "-o", output)
    fixed = octavo("opt", output, "-p", "simplify", "--shape", "image=2x3x16x16")
    assert "f32[2x5]" in fixed.out
    assert print_graph(load_graph(output)) == octavo("opt", output, "-p", "").out


def write_reshape(path: Path) -> None:
    """``y = reshape(x, shape)``, where the shape is an input."""
    float_type, int_type = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    inputs = [("x", float_type, [2, 6]), ("shape", int_type, [2])]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Reshape", ["x", "shape"], ["y"], "reshape")],
        "reshape",
        [onnx.helper.make_tensor_value_info(*value) for value in inputs],
        [onnx.helper.make_tensor_value_info("y", float_type, ["a", "b"])],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)


def test_inputs_may_be_constants(octavo: Octavo, tmp_path: Path) -> None:
    model = tmp_path / "reshape.onnx"
    write_reshape(model)
    needed = octavo("inspect", model)
    assert needed.code == 3
    assert "--constant shape=VALUE" in needed.err
    np.save(tmp_path / "shape.npy", np.array([4, 3]))
    for value in ("[4,3]", tmp_path / "shape.npy"):
        found = octavo("inspect", model, "--constant", f"shape={value}", "--json").json
        assert found["outputs"] == [{"name": "y", "type": "f32[4x3]"}]


@pytest.mark.parametrize("text", ["shape", "=3", "shape=", "shape=a", 'shape="a"', "shape=[1,[2]]", "shape=gone.npy"])
def test_what_is_no_constant(octavo: Octavo, work: Path, text: str) -> None:
    result = octavo("inspect", work / "tiny.onnx", "--constant", text)
    assert result.code == 2
    assert "constant" in result.err


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:100], "cannot be read"),
        (lambda data: b"garbage!" * 9, "cannot be read"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "was altered"),
    ],
    ids=["truncated", "garbage", "altered"],
)
def test_damaged_constants_are_named(
    octavo: Octavo, work: Path, tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    octavo("opt", work / "tiny.onnx", "-p", "simplify", "-o", tmp_path / "graph.octavo")
    constants = tmp_path / "graph.safetensors"
    constants.write_bytes(damage(constants.read_bytes()))
    result = octavo("opt", tmp_path / "graph.octavo", "-p", "prepare,fold-constants")
    if result.code == 0:
        # The constant that was hit is not looked at by a pass: whoever runs the graph finds out.
        result = octavo("compare", work / "tiny.onnx", tmp_path / "graph.octavo", "--data", work / "calib.npz")
    assert result.code == 2
    assert message in result.err
    assert "graph.safetensors" in result.err
