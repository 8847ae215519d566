"""Graphs drawn by hypothesis: small, valid, of many kinds of values."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from octavo.ir import DType, Graph, Tensor, TensorType, Value, per_channel, per_tensor
from octavo.ir.graph import Decision, Precision
from octavo.ir.ops.cast import Cast, Identity
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.elementwise import Add, Clamp, LeakyRelu, Mul, Neg, Relu, Sigmoid
from octavo.ir.ops.quantize import Dequantize, Quantize
from octavo.ir.ops.scan import TopK
from octavo.ir.ops.shape import Concat, Reshape, Slice, Transpose
from octavo.ir.types import Dim, Shape, f32

SPECIAL = [0.0, -0.0, 1.0, -1.5, 1e-30, 3.4e38, float("inf"), float("-inf"), float("nan"), 0.1]
NAMES = ["x", "conv.1", "2nd", "a/b:0", "ä", "", "layer.0.weight"]
TEXTS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=8)
SCALES = st.floats(2.0**-20, 2.0**10, width=32)
ZEROS = st.integers(-128, 127)


@st.composite
def constants(draw: st.DrawFn) -> Constant:
    """Float, integer and boolean data, some too large to be printed, some quantized per tensor or channel."""
    kind = draw(st.sampled_from(["float", "large", "int", "bool", "per-tensor", "per-channel"]))
    if kind == "float":
        dtype = draw(st.sampled_from([DType.F32, DType.F64, DType.F16, DType.BF16]))
        numbers = draw(st.lists(st.sampled_from(SPECIAL), max_size=6))
        with np.errstate(over="ignore"):
            return Constant(Tensor.of(np.array(numbers).astype(dtype.numpy)))
    if kind == "large":
        return Constant(Tensor.of(np.arange(100, dtype=np.float32) * draw(st.integers(1, 5))))
    if kind == "int":
        dtype = draw(st.sampled_from([d for d in DType if d.is_integer]))
        info = np.iinfo(dtype.numpy)  # type: ignore[type-var]
        numbers = draw(st.lists(st.integers(int(info.min), int(info.max)), max_size=4))
        return Constant(Tensor.of(np.array(numbers, dtype.numpy)))
    if kind == "bool":
        return Constant(Tensor.of(np.array(draw(st.lists(st.booleans(), max_size=4)), bool)))
    data = Tensor.of(np.arange(-3, 3, dtype=np.int8).reshape(2, 3))
    if kind == "per-tensor":
        return Constant(data, per_tensor(draw(SCALES), draw(ZEROS)))
    axis = draw(st.integers(0, 1))
    count = (2, 3)[axis]
    scales = draw(st.lists(SCALES, min_size=count, max_size=count))
    zeros = draw(st.none() | st.lists(ZEROS, min_size=count, max_size=count))
    return Constant(data, per_channel(scales, zeros, axis))


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Rank 2, the first dimension perhaps symbolic."""
    leads: list[int | Dim] = [1, 3, Dim("batch"), Dim("N")]
    return (draw(st.sampled_from(leads)), draw(st.integers(1, 4)))


def extend(draw: st.DrawFn, graph: Graph, value: Value) -> Value:
    """One more node that takes ``value``, f32 of rank 2, and makes another such."""
    origin = draw(st.sampled_from(NAMES))
    lead, width = value.type.shape
    kind = draw(st.sampled_from(["unary", "binary", "move", "quantize", "cast", "topk", "constant"]))
    if kind == "unary":
        op = draw(st.sampled_from([Relu(), LeakyRelu(0.3), Clamp(-1.0, float("inf")), Neg(), Sigmoid(), Identity()]))
        return graph.insert(op, [value], origin=origin, names=[origin]).output
    if kind == "binary":
        others = [v for v in graph.values() if v.type == value.type]
        op2 = draw(st.sampled_from([Add(), Mul((0.0, 6.0)), Add((float("-inf"), 1.0))]))
        return graph.insert(op2, [value, draw(st.sampled_from(others))], origin=origin).output
    if kind == "move":
        turned = graph.insert(Transpose((1, 0)), [value], origin=origin).output
        flat = graph.insert(Reshape((width, lead, 1)), [turned]).output
        back = graph.insert(Transpose((1, 0, 2)), [flat]).output
        whole = graph.insert(Reshape((lead, width)), [back]).output
        doubled = graph.insert(Concat(1), [whole, value], origin=origin).output
        assert isinstance(width, int)
        return graph.insert(Slice((0, 0), (-1, width), (1, 1)), [doubled]).output
    if kind == "quantize":
        grid = per_tensor(draw(SCALES), draw(ZEROS))
        node = graph.insert(Quantize(DType.I8, grid), [value], origin=origin)
        node.decision = Decision(Precision.QUANTIZED, draw(TEXTS), draw(TEXTS))
        return graph.insert(Dequantize(), [node.output]).output
    if kind == "cast":
        half = graph.insert(Cast(DType.BF16), [value], origin=origin).output
        return graph.insert(Cast(DType.F32), [half]).output
    if kind == "topk":
        assert isinstance(width, int)
        return graph.insert(TopK(width, 1), [value], origin=origin, names=["best", "where"]).outputs[0]
    number = graph.constant(Tensor.of(np.float32(draw(st.sampled_from(SPECIAL[:6])))), name=origin)
    return graph.insert(Mul(), [value, number], origin=origin).output


@st.composite
def graphs(draw: st.DrawFn, *, loose_constants: bool = True) -> Graph:
    """A valid graph of up to a dozen nodes."""
    graph = Graph(draw(TEXTS))
    shape = draw(shapes())
    values = [graph.add_input(draw(st.sampled_from(NAMES)), f32(*shape)) for _ in range(draw(st.integers(1, 2)))]
    for _ in range(draw(st.integers(1, 6))):
        values.append(extend(draw, graph, draw(st.sampled_from(values))))
    results = [*draw(st.lists(st.sampled_from(values), max_size=2)), values[-1]]
    loose = draw(st.lists(constants(), max_size=3)) if loose_constants else []
    results += [graph.insert(constant, [], names=[draw(st.sampled_from(NAMES))]).output for constant in loose]
    graph.set_outputs(results, [draw(TEXTS) for _ in results])
    return graph


def feeds_for(graph: Graph, batch: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """Random float inputs."""
    random = np.random.default_rng(seed)

    def sized(type: TensorType) -> list[int]:
        return [batch if isinstance(size, Dim) else size for size in type.shape]

    return {v.name: random.normal(0, 2, sized(v.type)).astype(v.type.dtype.numpy) for v in graph.inputs}
