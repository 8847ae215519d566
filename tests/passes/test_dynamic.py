"""Models with dynamic or weight-only quantization become static int8 and keep their weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import octavo
import onnx
import pytest
import torch
from importers.onnx.models import Array, model, normal, reference
from octavo.ir import Graph, Node, Precision
from octavo.ir.errors import UnsupportedError
from octavo.ir.importers.onnx import import_onnx
from octavo.ir.interpreter import run_graph
from octavo.ir.ops.constant import Constant
from zoo.accuracy import sqnr
from zoo.registry import zoo_model


def ratio(expected: Array, found: Array) -> float:
    """Signal to noise in dB."""
    difference = expected.astype(np.float64) - found
    return sqnr(float(np.square(expected, dtype=np.float64).sum()), float(np.square(difference).sum()))


def perceptron() -> onnx.ModelProto:
    body = """
    main (float[4, 32] x) => (float[4, 10] y) {
      a = Gemm<transB = 1>(x, w1, b1)
      h = Relu(a)
      m = MatMul(h, w2)
      t = Add(b2, m)
      y = Tanh(t)
    }"""
    weights = {"w1": normal(64, 32) / 8, "b1": normal(64, seed=1), "w2": normal(64, 10, seed=2) / 8}
    return model(body, opset=17, weights={**weights, "b2": normal(10, seed=3)})


def convolutions() -> onnx.ModelProto:
    body = """
    main (float[1, 3, 16, 16] x) => (float[1, 10] y) {
      a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
      h = Relu(a)
      c = Conv<pads = [1, 1, 1, 1], strides = [2, 2], group = 4>(h, w2)
      g = GlobalAveragePool(c)
      f = Flatten(g)
      y = MatMul(f, w3)
    }"""
    weights = {"w1": normal(16, 3, 3, 3) / 4, "b1": normal(16, seed=1), "w2": normal(32, 4, 3, 3, seed=2) / 6}
    return model(body, opset=17, weights={**weights, "w3": normal(32, 10, seed=3)})


def quantized(proto: onnx.ModelProto, folder: Path, weights: str, **options: Any) -> onnx.ModelProto:
    quantization = pytest.importorskip("onnxruntime.quantization")
    onnx.save(proto, folder / "float.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kind = quantization.QuantType[weights]
        quantization.quantize_dynamic(folder / "float.onnx", folder / "dynamic.onnx", weight_type=kind, **options)
    return onnx.load(folder / "dynamic.onnx")


def feeds(proto: onnx.ModelProto, count: int) -> list[dict[str, Array]]:
    shape = [d.dim_value for d in proto.graph.input[0].type.tensor_type.shape.dim]
    return [{"x": normal(*shape, seed=10 + index)} for index in range(count)]


def layers(graph: Graph) -> Iterator[Node]:
    return (node for node in graph.nodes if node.op.name in ("qlinear", "qconv"))


@pytest.mark.parametrize("make", [perceptron, convolutions])
@pytest.mark.parametrize(
    ("weights", "options"),
    [("QUInt8", {}), ("QInt8", {"per_channel": True}), ("QInt8", {"reduce_range": True})],
    ids=["u8", "per-channel", "reduced"],
)
def test_dynamic_quantization_becomes_static(
    tmp_path: Path, make: Callable[[], onnx.ModelProto], weights: str, options: dict[str, bool]
) -> None:
    proto = make()
    dynamic = quantized(proto, tmp_path, weights, **options)
    data = feeds(proto, 9)
    reports: list[str] = []
    frozen = octavo.optimize(import_onnx(dynamic), calibration=data[1:], report=reports.append)
    found = run_graph(frozen, data[0])
    (expected,), (theirs,) = reference(proto, data[0]), reference(dynamic, data[0])
    ours = next(iter(found.values()))
    assert ratio(expected, ours) > min(ratio(expected, theirs) - 4, 35)
    count = len(list(layers(frozen)))
    assert f"dynamic quantization became static in {count} layers" in reports
    kept = [node for node in layers(frozen) if node.decision and "became static" in node.decision.reason]
    # Unsigned weights may lie too far to one side of their zero point to stay as they are.
    assert weights == "QUInt8" or len(kept) == count
    bundle = octavo.compile(frozen, output=tmp_path / "bundle", mcpu="native")
    np.testing.assert_array_equal(next(iter(octavo.load(bundle.path).run(data[0]).values())), ours)


def test_weights_are_not_rounded_again(tmp_path: Path) -> None:
    dynamic = quantized(perceptron(), tmp_path, "QInt8", per_channel=True)
    frozen = octavo.optimize(import_onnx(dynamic), calibration=feeds(dynamic, 4))
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in dynamic.graph.initializer}
    wanted = sorted(stored[name].T.tobytes() for name in ("w1_quantized", "w2_quantized"))
    assert sorted(_data(node).tobytes() for node in layers(frozen)) == wanted


def _data(node: Node) -> Array:
    weight = node.inputs[1].op
    assert isinstance(weight, Constant)
    return weight.data.numpy()


def test_weight_only_quantization_becomes_static() -> None:
    body = """
    main (float[4, 8] x) => (float[4, 6] y) {
      r = DequantizeLinear<axis = 1>(w, s)
      y = MatMul(x, r)
    }"""
    weight = np.random.default_rng(0).integers(-127, 128, (8, 6)).astype(np.int8)
    scales = np.linspace(0.01, 0.02, 6).astype(np.float32)
    proto = model(body, weights={"w": weight, "s": scales})
    data = feeds(proto, 5)
    frozen = octavo.optimize(import_onnx(proto), calibration=data)
    (layer,) = layers(frozen)
    np.testing.assert_array_equal(_data(layer), weight.T)
    assert ratio(reference(proto, data[0])[0], next(iter(run_graph(frozen, data[0]).values()))) > 35


def test_a_layer_that_stays_float_has_float_weights(tmp_path: Path) -> None:
    dynamic = quantized(perceptron(), tmp_path, "QInt8")
    data = feeds(dynamic, 3)
    pipeline = "fold-qdq,fold-dynamic,prepare,observe{keep-float=[op:linear]},calibrate,quantize,lower-integer,finish"
    frozen = octavo.optimize(import_onnx(dynamic), pipeline, calibration=data)
    made = octavo.compile(dynamic, output=tmp_path / "bundle", mcpu="native", pipeline=pipeline, calibration=data)
    linears = [node for node in frozen.nodes if node.op.name == "linear"]
    assert len(linears) == 2
    assert all(node.decision and node.decision.precision is Precision.FLOAT for node in linears)
    found = next(iter(octavo.load(made.path).run(data[0]).values()))
    assert ratio(reference(perceptron(), data[0])[0], found) > 35


def test_what_is_left_says_what_to_do(tmp_path: Path) -> None:
    body = """
    main (float[2, 8] x, uint8[8, 6] w) => (int32[2, 6] y) {
      q, s, z = DynamicQuantizeLinear(x)
      y = MatMulInteger(q, w, z)
    }"""
    with pytest.raises(UnsupportedError) as error:
        octavo.compile(model(body), output=tmp_path / "bundle", mcpu="native")
    assert {op.name for op in error.value.ops} >= {"matmul_integer", "dynamic_quantize"}
    assert "compile the float model, with calibration data" in str(error.value)


def test_a_dynamically_quantized_lstm(tmp_path: Path) -> None:
    body = """
    main (float[10, 2, 16] x) => (float[10, 2, 2, 24] y, float[2, 2, 24] h) {
      y, h = LSTM<hidden_size = 24, direction = "bidirectional">(x, w, r, b)
    }"""
    weights = {"w": normal(2, 96, 16) / 5, "r": normal(2, 96, 24, seed=1) / 5, "b": normal(2, 192, seed=2) / 5}
    proto = model(body, opset=17, weights=weights)
    dynamic = quantized(proto, tmp_path, "QInt8")
    assert [node.op_type for node in dynamic.graph.node] == ["DynamicQuantizeLSTM"]
    data = feeds(proto, 6)
    made = octavo.compile(dynamic, output=tmp_path / "bundle", mcpu="native", calibration=data[1:], name="net")
    for ours, true in zip(octavo.load(made.path).run(data[0]).values(), reference(proto, data[0]), strict=True):
        assert ratio(true, ours) > 28


@pytest.mark.models
def test_a_transformer_quantized_dynamically(tmp_path: Path) -> None:
    network = zoo_model("minilm_l6")
    samples = [dict(zip(network.input_names, inputs, strict=True)) for inputs in network.inputs(12)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = tuple(map(torch.from_numpy, network.sample(0)))
        names = list(network.input_names)
        torch.onnx.export(
            network.module(), example, tmp_path / "f.onnx", dynamo=False, opset_version=17, input_names=names
        )
    proto = onnx.load(tmp_path / "f.onnx")
    dynamic = quantized(proto, tmp_path, "QInt8", per_channel=True)
    frozen = octavo.optimize(import_onnx(dynamic), calibration=samples[4:])
    assert sum("became static" in node.decision.reason for node in layers(frozen) if node.decision) == 36
    ours = np.concatenate([next(iter(run_graph(frozen, each).values())) for each in samples[:4]])
    whole = np.concatenate([reference(proto, each)[0] for each in samples[:4]])
    assert ratio(whole, ours) > 15
    octavo.compile(frozen, output=tmp_path / "bundle", mcpu="native")
