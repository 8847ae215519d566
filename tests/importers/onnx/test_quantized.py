"""Quantized models: how they look after import, and ONNX Runtime's own answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from importers.onnx.models import Array, assert_matches, model, normal, reference, run
from octavo.ir import DType, Graph, per_channel, per_tensor
from octavo.ir.errors import ModelError, UnsupportedError
from octavo.ir.importers.onnx import import_onnx
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.matmul import Linear


def ops(graph: Graph) -> list[str]:
    return [node.op.name for node in graph.nodes if node.op.name != "constant"]


def integers(*shape: int, seed: int = 0, low: int = -127, high: int = 127, dtype: type = np.int8) -> Array:
    return np.random.default_rng(seed).integers(low, high, shape, dtype)


QDQ_CONV = """
g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) {
  xq = QuantizeLinear(x, xs, xz)
  xd = DequantizeLinear(xq, xs, xz)
  wd = DequantizeLinear<axis: int = 0>(w, ws)
  bd = DequantizeLinear<axis: int = 0>(b, bs)
  c = Conv<pads: ints = [1, 1, 1, 1]>(xd, wd, bd)
  cq = QuantizeLinear(c, ys, yz)
  y = DequantizeLinear(cq, ys, yz)
}"""


def qdq_conv(dtype: type, zero: int) -> onnx.ModelProto:
    scales = np.array([0.01, 0.02, 0.015, 0.03], np.float32)
    weights = {
        "xs": np.float32(0.03),
        "xz": np.array(zero, dtype),
        "ws": scales,
        "w": integers(4, 3, 3, 3),
        "b": integers(4, low=-500, high=500, dtype=np.int32),
        "bs": scales * np.float32(0.03),
        "ys": np.float32(0.1),
        "yz": np.array(zero + 3, dtype),
    }
    return model(QDQ_CONV, weights={name: np.asarray(a) for name, a in weights.items()})


@pytest.mark.parametrize(("dtype", "zero", "ours"), [(np.uint8, 120, DType.U8), (np.int8, -5, DType.I8)])
def test_a_qdq_convolution_keeps_its_parameters_in_the_types(dtype: type, zero: int, ours: DType) -> None:
    proto = qdq_conv(dtype, zero)
    graph = import_onnx(proto)
    assert ops(graph) == ["quantize", "dequantize", "dequantize", "dequantize", "conv", "quantize", "dequantize"]
    conv = next(node for node in graph.nodes if isinstance(node.op, Conv))
    x, weight, bias = (value.producer.inputs[0] for value in conv.inputs if value.producer)
    assert x.type.dtype is ours
    assert x.type.quant == per_tensor(0.03, zero)
    assert weight.type.dtype is DType.I8
    assert weight.type.quant == per_channel([0.01, 0.02, 0.015, 0.03], None, 0)
    assert bias.type.dtype is DType.I32
    assert isinstance(weight.op, Constant)
    feeds = {"x": normal(1, 3, 8, 8)}
    (result,), (expected,) = run(graph, feeds), reference(proto, feeds)
    # Sums in another order may round to the neighbouring step.
    assert np.abs(result - expected).max() <= 0.1001
    assert (result != expected).mean() < 0.01


def test_a_transposed_quantized_weight_stays_quantized() -> None:
    proto = model(
        """g (float[2, 6] x) => (float[2, 5] y) {
          wd = DequantizeLinear<axis: int = 0>(w, ws)
          wt = Transpose<perm: ints = [1, 0]>(wd)
          y = MatMul(x, wt)
        }""",
        weights={"w": integers(5, 6), "ws": np.linspace(0.01, 0.05, 5, dtype=np.float32)},
    )
    graph = assert_matches(proto, {"x": normal(2, 6)})
    linear = next(node for node in graph.nodes if isinstance(node.op, Linear))
    weight = linear.inputs[1].producer
    assert weight is not None
    assert weight.op.name == "dequantize"
    assert weight.inputs[0].type.quant == per_channel(np.linspace(0.01, 0.05, 5, dtype=np.float32), None, 0)


def test_gemm_with_a_quantized_weight_in_either_orientation() -> None:
    for transposed in (0, 1):
        shape = (5, 6) if transposed else (6, 5)
        proto = model(
            f"""g (float[2, 6] x) => (float[2, 5] y) {{
              wd = DequantizeLinear<axis: int = {1 - transposed}>(w, ws)
              y = Gemm<transB: int = {transposed}>(x, wd, b)
            }}""",
            weights={"w": integers(*shape), "ws": np.linspace(0.01, 0.05, 5, dtype=np.float32), "b": normal(5)},
        )
        graph = assert_matches(proto, {"x": normal(2, 6)})
        assert ops(graph) == ["dequantize", "linear"]


def test_a_quantized_input_carries_its_parameters() -> None:
    proto = model(
        "g (uint8[4] x) => (float[4] y) { y = DequantizeLinear(x, s, z) }",
        weights={"s": np.asarray(np.float32(0.5)), "z": np.asarray(np.uint8(7))},
    )
    graph = assert_matches(proto, {"x": np.array([0, 7, 8, 255], np.uint8)})
    assert graph.inputs[0].type.quant == per_tensor(0.5, 7)
    assert ops(graph) == ["dequantize"]


#: Weights of which two products fit a word: those of larger ones ONNX Runtime saturates where there is no VNNI.
SEVEN_BITS: Any = {"low": -64, "high": 64}

QOPERATOR = {
    "add": "y = com.microsoft.QLinearAdd(x, xs, xz, x2, ws, wz, ys, yz)",
    "mul": "y = com.microsoft.QLinearMul(x, xs, xz, x2, ws, wz, ys, yz)",
    "sigmoid": "y = com.microsoft.QLinearSigmoid(x, xs, xz, ss, sz)",
    "leaky": "y = com.microsoft.QLinearLeakyRelu<alpha: float = 0.1>(x, xs, xz, ys, yz)",
    "pool": "y = com.microsoft.QLinearGlobalAveragePool(x, xs, xz, ys, yz)",
    "average": "y = com.microsoft.QLinearAveragePool<kernel_shape: ints = [2, 2]>(x, xs, xz, ys, yz)",
    "concat": "y = com.microsoft.QLinearConcat<axis: int = 1>(ys, yz, x, xs, xz, x2, ws, wz)",
    "conv": "y = QLinearConv<pads: ints = [1, 1, 1, 1]>(x, xs, xz, w, cs, cz, ys, yz, b)",
    "matmul": "y = QLinearMatMul(x, xs, xz, x2, ws, wz, ms, yz)",
}


@pytest.mark.parametrize("name", QOPERATOR)
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_qoperator_models_match_onnx_runtime(name: str, dtype: type) -> None:
    kind = "uint8" if dtype is np.uint8 else "int8"
    zero = 128 if dtype is np.uint8 else 0
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max) + 1
    scalars = {"xs": 0.02, "ws": 0.03, "ys": 0.05, "ss": 1 / 256, "ms": 0.1}
    weights = {n: np.asarray(np.float32(v)) for n, v in scalars.items()}
    weights |= {n: np.asarray(v, dtype) for n, v in {"xz": zero + 3, "wz": zero - 4, "yz": zero, "sz": low}.items()}
    weights |= {
        "x2": integers(1, 3, 4, 4, seed=1, low=low, high=high, dtype=dtype),
        "w": integers(5, 3, 3, 3, seed=2, **SEVEN_BITS),
        "cs": np.linspace(0.001, 0.01, 5, dtype=np.float32),
        "cz": np.zeros(5, np.int8),
        "b": integers(5, seed=3, low=-2000, high=2000, dtype=np.int32),
    }
    line = QOPERATOR[name]
    used = {n: a for n, a in weights.items() if f"{n}," in line or f"{n})" in line}
    proto = model(
        f"g ({kind}[1, 3, 4, 4] x) => ({kind}[N, C, H, W] y) {{ {line} }}", extra=', "com.microsoft" : 1', weights=used
    )
    x = integers(1, 3, 4, 4, low=low, high=high, dtype=dtype)
    graph = import_onnx(proto)
    assert ops(graph)[0] == "dequantize"
    assert ops(graph)[-1] == "quantize"
    (result,), (expected,) = run(graph, {"x": x}), reference(proto, {"x": x})
    assert result.dtype == expected.dtype
    # ONNX Runtime computes some of these in fixed point: one step apart at most.
    assert np.abs(result.astype(int) - expected.astype(int)).max() <= 1
    assert (result != expected).mean() <= 0.1


def test_qgemm_matches_onnx_runtime() -> None:
    proto = model(
        """g (uint8[2, 6] x) => (uint8[2, 5] y) {
          y = com.microsoft.QGemm<transB: int = 1>(x, xs, xz, w, ws, wz, b, ys, yz)
        }""",
        extra=', "com.microsoft" : 1',
        weights={
            "xs": np.asarray(np.float32(0.02)), "xz": np.asarray(np.uint8(100)), "w": integers(5, 6, **SEVEN_BITS),
            "ws": np.linspace(0.01, 0.02, 5, dtype=np.float32), "wz": np.zeros(5, np.int8),
            "b": integers(5, low=-900, high=900, dtype=np.int32), "ys": np.asarray(np.float32(0.03)),
            "yz": np.asarray(np.uint8(128)),
        },
    )  # fmt: skip
    x = integers(2, 6, low=0, high=256, dtype=np.uint8)
    (result,), (expected,) = run(import_onnx(proto), {"x": x}), reference(proto, {"x": x})
    assert np.abs(result.astype(int) - expected.astype(int)).max() <= 1


def test_dynamic_quantization_becomes_plain_integers() -> None:
    proto = model(
        """g (float[3, 8] x) => (float[3, 5] y) {
          xq, xs, xz = DynamicQuantizeLinear(x)
          sums = MatMulInteger(xq, w, xz, wz)
          real = Cast<to: int = 1>(sums)
          scale = Mul(xs, ws)
          y = Mul(real, scale)
        }""",
        weights={
            "w": integers(8, 5, **SEVEN_BITS), "wz": np.zeros(5, np.int8),
            "ws": np.linspace(0.01, 0.05, 5, dtype=np.float32),
        },
    )  # fmt: skip
    graph = assert_matches(proto, {"x": normal(3, 8)})
    assert {"dynamic_quantize", "matmul_integer"} <= set(ops(graph))
    assert all(value.type.quant is None for value in graph.values())


def test_conv_integer_is_exact() -> None:
    proto = model(
        """g (uint8[1, 2, 6, 6] x) => (int32[1, 3, 6, 6] y) {
          y = ConvInteger<pads: ints = [1, 1, 1, 1]>(x, w, z)
        }""",
        weights={"w": integers(3, 2, 3, 3, low=0, high=256, dtype=np.uint8), "z": np.asarray(np.uint8(9))},
    )
    assert_matches(proto, {"x": integers(1, 2, 6, 6, seed=4, low=0, high=256, dtype=np.uint8)}, atol=0)


def test_block_quantization_is_refused_with_its_reason() -> None:
    proto = model(
        "g (float[4, 6] x) => (float[4, 6] y) { q = QuantizeLinear<block_size: int = 3, axis: int = 1>(x, s)"
        " y = DequantizeLinear<block_size: int = 3, axis: int = 1>(q, s) }",
        weights={"s": np.ones((4, 2), np.float32)},
    )
    with pytest.raises(UnsupportedError, match="block quantization") as caught:
        import_onnx(proto)
    assert [op.name for op in caught.value.ops] == ["ai.onnx.QuantizeLinear-21"]


def test_a_useless_scale_is_an_error() -> None:
    proto = model(
        "g (float[4] x) => (uint8[4] y) { y = QuantizeLinear(x, s) }", weights={"s": np.asarray(np.float32(0))}
    )
    with pytest.raises(ModelError, match="not a positive finite number"):
        import_onnx(proto)
