"""Single ops compiled for every level answer as the interpreter: those on floats, integers and truth values."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from e2e.bundles import ARM_LEVELS, Array, Job, build_all, run_jobs
from e2e.checking import x86_levels
from octavo.backends.tvm.lower.registry import find_lowering
from octavo.ir import DType, Graph, Op, Tensor, TensorType, Value, run_graph
from octavo.ir.ops import elementwise as ew
from octavo.ir.ops import logic, math
from octavo.ir.ops.cast import BitCast, Cast, Where
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.index import GatherElements, GatherND, ReverseSequence, ScatterElements, ScatterND, Trilu
from octavo.ir.ops.norm import LocalResponseNorm
from octavo.ir.ops.pool import MaxPoolIndices, MaxUnpool
from octavo.ir.ops.quantize import Dequantize, Quantize
from octavo.ir.ops.reduce import ReduceLogSumExp, ReduceMax, ReduceMean, ReduceMin, ReduceProd, ReduceSum
from octavo.ir.ops.sampling import GridSample
from octavo.ir.ops.scan import CumSum, TopK
from octavo.ir.ops.shape import Concat
from octavo.ir.types import f32
from support.op_samples import SAMPLES, Sample, boolean, i32, i64, q8, typed

NUMBERS = (DType.BOOL, DType.U8, DType.I8, DType.I32, DType.I64, DType.F32)
U8 = (typed(DType.U8, 3, 5), typed(DType.U8, 5))

COMPARISONS: list[type[Op]] = [logic.Equal, logic.Greater, logic.GreaterEqual, logic.Less, logic.LessEqual]
NUMERIC: list[type[Op]] = [*COMPARISONS, ew.Add, ew.Sub, ew.Mul, logic.Minimum, logic.Maximum]
BITS: list[type[Op]] = [logic.And, logic.Or, logic.Xor, logic.Equal]
TRUTHS: list[type[Op]] = [*BITS, ew.Add, ew.Mul]
UNARY: list[type[Op]] = [ew.Neg, ew.Abs, math.Sign, ew.Relu, math.Floor]


def extra() -> Iterator[Sample]:
    """Element types and attributes that the samples of every op leave out."""
    for binary in NUMERIC:
        yield Sample(binary(), (i64(3, 5), i64(3, 1)))
        yield Sample(binary(), (i32(3, 5), i32()))
    for binary in BITS:
        yield Sample(binary(), U8)
    for binary in TRUTHS:
        yield Sample(binary(), (boolean(2, 4), boolean(2, 1)))
    for unary in UNARY:
        yield Sample(unary(), (i64(3, 7),))
    yield Sample(ew.Clamp(-5.0, 7.0), (i64(3, 7),))
    yield Sample(ew.Clamp(float("-inf"), 7.0), (i32(3, 7),))
    yield Sample(ew.Add((0.0, 6.0)), (i32(3, 2), i32(2)))
    yield Sample(ew.Div(), (i32(3, 7), typed(DType.I32, 1)), None)
    yield Sample(math.IsInf(True, False), (f32(3, 4),))
    yield Sample(math.IsNan(), (f32(3, 4),))
    for dtype in (DType.I64, DType.I32, DType.BOOL, DType.U8):
        yield Sample(Where(), (boolean(4, 1, 7), typed(dtype, 2, 4, 1, 7), typed(dtype, 7)))
        yield Sample(Cast(DType.BOOL), (typed(dtype, 5),))
        yield Sample(Cast(dtype), (boolean(5),))
    yield Sample(Where(), (boolean(1, 1, 5, 9), f32(2, 3, 5, 9), f32()))
    yield Sample(Cast(DType.I64), (f32(5, 9),))
    yield Sample(BitCast(DType.I32), (f32(5, 9),))
    yield Sample(logic.Mod(), (i64(3, 7), i64(1)))
    yield from moved()
    yield from reduced()


def moved() -> Iterator[Sample]:
    yield Sample(GatherElements(0), (q8(4, 3), typed(DType.I32, 2, 3)), 4)
    yield Sample(GatherElements(-2), (boolean(2, 5, 3), i64(2, 7, 3)), 5)
    yield Sample(GatherND(), (q8(3, 3, 4), i64(5, 2)), 3)
    yield Sample(GatherND(1), (f32(2, 4, 3, 5), i64(2, 6, 1)), 4)
    yield Sample(GatherND(), (i64(3, 3), i64(5, 4, 2)), 3)
    yield Sample(ReverseSequence(0, 1), (q8(3, 6, 2), i64(3)), 6)
    yield Sample(ScatterND(), (f32(5, 3), i64(1, 1), f32(1, 3)), 5)
    yield Sample(ScatterND("add"), (f32(2, 3, 4), i64(7, 2), f32(7, 4)), 2)
    yield Sample(ScatterElements(1), (boolean(2, 5), i64(2, 1), boolean(2, 1)), 5)
    yield Sample(MaxUnpool((1, 2, 4, 4), (1, 2, 4, 4)), (f32(1, 2, 2, 2), i64(1, 2, 2, 2)), 32)
    yield Sample(MaxPoolIndices((3,), (2,), ((1, 1),), (1,)), (f32(2, 3, 9),))
    yield Sample(MaxPoolIndices((3, 2), (2, 1), ((1, 0), (1, 1)), (1, 2), True), (f32(2, 3, 9, 8),))
    yield Sample(MaxPoolIndices((2, 2, 2), (1, 2, 1), ((0, 1),) * 3, (1, 1, 1)), (f32(1, 2, 5, 4, 3),))
    for padding, corners, mode in itertools.product(
        ("zeros", "border", "reflection"), (False, True), ("linear", "nearest")
    ):
        yield Sample(GridSample(mode, padding, corners), (f32(2, 3, 6, 7), f32(2, 5, 4, 2)))
    for dtype in (DType.BOOL, DType.I64):
        yield Sample(Trilu(True, -1), (typed(dtype, 2, 4, 4),))
    yield Sample(LocalResponseNorm(5, 1e-2, 0.75, 2.0), (f32(1, 3, 5),))
    yield Sample(LocalResponseNorm(4, 0.5, 0.6), (f32(2, 9, 5, 5),))
    yield Sample(TopK(7, 0), (f32(300, 3),))


def reduced() -> Iterator[Sample]:
    for reduction in (ReduceSum, ReduceMean, ReduceProd, ReduceMax, ReduceMin):
        yield Sample(reduction((1,)), (i64(3, 5, 2),))
        yield Sample(reduction((0, 2), True), (i32(3, 5, 2),))
    for reduction in (ReduceSum, ReduceProd):
        yield Sample(reduction((1,)), (boolean(3, 5),))
    yield Sample(ReduceLogSumExp((1,)), (f32(3, 50),))
    for dtype in (DType.I32, DType.I64):
        yield Sample(CumSum(1, exclusive=True), (typed(dtype, 3, 5, 2),))
        yield Sample(CumSum(-1, reverse=True), (typed(dtype, 3, 5),))
    yield Sample(CumSum(0), (f32(300, 2),))


EXACT = {
    *("mod", "cast", "where", "bit_cast", "not", "and", "or", "xor", "shift_left", "shift_right", "isnan", "isinf"),
    *("equal", "greater", "greater_equal", "less", "less_equal"),
    *("gather_elements", "gather_nd", "scatter_elements", "scatter_nd", "one_hot", "trilu", "reverse_sequence"),
    "normalize_image",
    *("max_pool_indices", "max_unpool", "cumsum", "topk", "add", "sub", "mul", "div", "minimum", "maximum"),
}
"""Ops that are met to the bit on floats too; on integers and truth values all are."""
MOVES = {"gather_elements", "gather_nd", "reverse_sequence"}
"""Ops that move quantized elements too."""
CLOSE = dict.fromkeys(
    [
        *("cumprod", "reduce_prod", "reduce_log_sum_exp", "local_response_norm", "shrink", "thresholded_relu", "pow"),
        "grid_sample",
        *("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh"),
    ],
    1e-6,
)
"""Ops that torch computes in another order or by other polynomials: how far apart, relative to the largest element."""


def _is_checked(sample: Sample) -> bool:
    types = (*sample.types, *sample.op.infer(*sample.types))
    known = all(type.dtype in NUMBERS and (type.quant is None or sample.op.name in MOVES) for type in types)
    floats = any(type.dtype.is_float or type.quant for type in types)
    named = not floats or sample.op.name in EXACT or sample.op.name in CLOSE
    return bool(sample.types) and known and named and find_lowering(sample.op) is not None


CASES = [sample for sample in (*SAMPLES, *extra()) if _is_checked(sample)]


def _network() -> tuple[Graph, dict[str, Array]]:
    """Every sample side by side, each with inputs of its own."""
    graph = Graph("ops")
    feeds: dict[str, Array] = {}
    outputs: list[Value] = []
    for number, sample in enumerate(CASES):
        arrays = sample.arrays(number)
        if isinstance(sample.op, logic.Mod | ew.Div) and not sample.types[1].dtype.is_float:
            arrays[1] = np.where(arrays[1] == 0, 7, arrays[1])
        names = [f"x{number}_{position}" for position in range(len(arrays))]
        feeds.update(zip(names, arrays, strict=True))
        inputs = [_input(graph, name, type, feeds) for name, type in zip(names, sample.types, strict=True)]
        made = graph.insert(sample.op, inputs, origin=str(sample)).outputs
        outputs += [graph.insert(Dequantize(), [v], origin=str(sample)).output if v.type.quant else v for v in made]
    graph.set_outputs(outputs, [f"y{number}" for number in range(len(outputs))])
    return graph, feeds


def _input(graph: Graph, name: str, type: TensorType, feeds: dict[str, Array]) -> Value:
    """An input of the graph; a quantized one is quantized within."""
    if type.quant is None:
        return graph.add_input(name, type)
    feeds[name] = feeds[name].astype(np.float32) / 10
    value = graph.add_input(name, f32(*type.static_shape))
    return graph.insert(Quantize(type.dtype, type.quant), [value]).output


def _check(levels: Sequence[str], folder: Path) -> None:
    graph, feeds = _network()
    expected = run_graph(graph, feeds)
    (built,) = build_all([graph], levels, folder)
    for level in levels:
        (answer,) = run_jobs([Job(built, level, feeds)], level)
        assert not answer.trouble
        for (name, want), value in zip(expected.items(), graph.outputs, strict=True):
            assert value.producer is not None
            where, name_of_op = f"{level}: {value.producer.origin}", value.producer.op.name
            if name_of_op in CLOSE and want.dtype.kind == "f":
                scale = CLOSE[name_of_op] * np.nanmax(np.abs(want))
                np.testing.assert_allclose(answer.outputs[name], want, rtol=0, atol=scale, err_msg=where)
            else:
                np.testing.assert_array_equal(answer.outputs[name], want, err_msg=where)


@pytest.mark.parametrize("name", sorted(EXACT | CLOSE.keys()))
def test_named_ops_are_checked(name: str) -> None:
    assert name in {sample.op.name for sample in CASES}


def test_x86_levels(tmp_path: Path) -> None:
    _check(x86_levels(), tmp_path)


@pytest.mark.arm
def test_arm_levels(tmp_path: Path) -> None:
    _check(ARM_LEVELS, tmp_path)


def test_values_that_lie_elsewhere_are_concatenated(tmp_path: Path) -> None:
    """Some lowerings find their result in a buffer that is there already: a concat has to copy it."""
    graph = Graph("concat")
    x, y = graph.add_input("x", i64(2, 3)), graph.add_input("y", f32(2, 3))
    floored = graph.insert(math.Floor(), [x]).output
    never = graph.insert(math.IsNan(), [x]).output
    logs = graph.insert(ReduceLogSumExp((1,), True), [y]).output
    joined = [[floored, floored], [never, never], [logs, logs]]
    outputs = [graph.insert(Concat(1), parts).output for parts in joined]
    graph.set_outputs(outputs, ["a", "b", "c"])
    feeds: dict[str, Array] = {"x": np.arange(6).reshape(2, 3), "y": np.zeros((2, 3), np.float32)}
    (built,) = build_all([graph], ["avx2"], tmp_path)
    (answer,) = run_jobs([Job(built, "avx2", feeds)], "avx2")
    assert not answer.trouble
    np.testing.assert_array_equal(answer.outputs["a"], np.concatenate([feeds["x"]] * 2, 1))
    np.testing.assert_array_equal(answer.outputs["b"], np.zeros((2, 6), bool))
    np.testing.assert_allclose(answer.outputs["c"], np.full((2, 2), np.log(3)), rtol=1e-6)


POWERS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 7.0, 0.3, 2.9, -1.7)


def test_constant_powers(tmp_path: Path) -> None:
    graph = Graph("powers")
    x, whole = graph.add_input("x", f32(9, 9)), graph.add_input("whole", i64(9, 9))
    outputs = []
    for power in POWERS:
        number = graph.insert(Constant(Tensor.of(np.array(power, np.float32))), []).output
        outputs.append(graph.insert(logic.Pow(), [x, number]).output)
    for power in (1, 2, 3):
        number = graph.insert(Constant(Tensor.of(np.array(power))), []).output
        outputs.append(graph.insert(logic.Pow(), [whole, number]).output)
    graph.set_outputs(outputs, [f"y{number}" for number in range(len(outputs))])
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(9, 9)).astype(np.float32)
    numbers[0, :5] = [0, 1, -1, np.inf, np.nan]
    feeds: dict[str, Array] = {"x": numbers, "whole": rng.integers(-50, 50, (9, 9))}
    (built,) = build_all([graph], ["avx2"], tmp_path)
    (answer,) = run_jobs([Job(built, "avx2", feeds)], "avx2")
    assert not answer.trouble
    for name, want in run_graph(graph, feeds).items():
        np.testing.assert_allclose(answer.outputs[name], want, rtol=2e-6, err_msg=name)
