"""One or more samples of every registered op: attributes, operand types, and what the operands may hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from octavo.ir import DType, Op, Tensor, TensorType, per_channel, per_tensor
from octavo.ir.ops import (
    cast,
    conv,
    dynamic,
    einsum,
    function,
    image,
    index,
    integer,
    logic,
    math,
    matmul,
    norm,
    pool,
    quantize,
    recurrent,
    reduce,
    resize,
    sampling,
    scan,
    shape,
    spectral,
)
from octavo.ir.ops import elementwise as ew
from octavo.ir.ops.constant import Constant
from octavo.ir.types import QuantParams, f32

Array = np.ndarray


@dataclass(frozen=True)
class Sample:
    """An op, the types it is given, and the range of integers that its operands hold ([0, limit), or any)."""

    op: Op
    types: tuple[TensorType, ...]
    limit: int | None = None

    def arrays(self, seed: int = 0) -> list[Array]:
        random = np.random.default_rng(seed)
        return [draw(random, type, self.limit) for type in self.types]

    def __str__(self) -> str:
        return f"{self.op.name}({', '.join(map(str, self.types))})"


def draw(random: np.random.Generator, type: TensorType, limit: int | None) -> Array:
    """Random elements: floats around 0, booleans, bytes of full range, other integers within ``limit`` or +-50."""
    shape, dtype = type.static_shape, type.dtype
    if dtype is DType.BOOL:
        return random.integers(0, 2, shape).astype(bool)
    if dtype.is_float:
        return np.asarray(random.normal(0, 1.5, shape), dtype.numpy)
    if limit is not None:
        return random.integers(0, limit, shape).astype(dtype.numpy)
    low, high = {DType.I8: (-128, 128), DType.U8: (0, 256)}.get(dtype, (0 if dtype.value[0] == "u" else -50, 50))
    return random.integers(low, high, shape).astype(dtype.numpy)


def typed(dtype: DType, *dims: int) -> TensorType:
    return TensorType(dtype, dims)


def i64(*dims: int) -> TensorType:
    return typed(DType.I64, *dims)


def i32(*dims: int) -> TensorType:
    return typed(DType.I32, *dims)


def boolean(*dims: int) -> TensorType:
    return typed(DType.BOOL, *dims)


def q8(*dims: int, scale: float = 0.05, zero: int = 3) -> TensorType:
    return TensorType(DType.I8, dims, per_tensor(scale, zero))


def weights(*dims: int, axis: int = 0) -> TensorType:
    scales = [0.01 * (i + 1) for i in range(dims[axis])]
    return TensorType(DType.I8, dims, per_channel(scales, None, axis))


OUT: QuantParams = per_tensor(0.1, -7)
NONE2 = ((0, 0), (0, 0))
SAME2 = ((1, 1), (1, 1))
ONES2 = (1, 1)
IMAGE = f32(2, 4, 7, 6)
QIMAGE = q8(2, 4, 7, 6)
TABLE8 = Tensor.of(np.arange(-128, 128).astype(np.int8)[::-1])
TABLE32 = Tensor.of(np.linspace(-1, 1, 256).astype(np.float32))
VECTOR = Tensor.of(np.linspace(0.5, 1.5, 5).astype(np.float32))

UNARY: tuple[type[Op], ...] = (
    ew.Relu, ew.LeakyRelu, ew.Elu, ew.Sigmoid, ew.HardSigmoid, ew.HardSwish, ew.Silu, ew.Gelu, ew.Neg, ew.Abs,
    ew.Exp, ew.Log, ew.Sqrt, ew.Tanh, ew.Erf, math.Sin, math.Cos, math.Tan, math.Asin, math.Acos, math.Atan,
    math.Sinh, math.Cosh, math.Asinh, math.Acosh, math.Atanh, math.Reciprocal, math.Floor, math.Ceil, math.Round,
    math.Sign, math.Softplus, math.Softsign, math.Selu, math.Celu, math.Mish, math.ThresholdedRelu, math.Shrink,
    math.IsNan, math.IsInf, cast.Identity, spectral.Determinant,
)  # fmt: skip
BINARY: tuple[type[Op], ...] = (
    ew.Add, ew.Sub, ew.Mul, ew.Div, logic.Equal, logic.Greater, logic.GreaterEqual, logic.Less, logic.LessEqual,
    logic.Minimum, logic.Maximum, logic.Mod, logic.Pow, logic.PRelu,
)  # fmt: skip
REDUCTIONS: tuple[type[reduce.Reduction], ...] = (
    reduce.ReduceMean,
    reduce.ReduceSum,
    reduce.ReduceMax,
    reduce.ReduceMin,
    reduce.ReduceProd,
    reduce.ReduceLogSumExp,
)


def elementwise() -> Iterator[Sample]:
    for unary in UNARY:
        yield Sample(unary(), (f32(2, 3, 3),))
    for binary in BINARY:
        yield Sample(binary(), (f32(2, 3, 4), f32(3, 1)))
    for bits in (logic.And, logic.Or, logic.Xor):
        yield Sample(bits(), (boolean(3, 4), boolean(4)))
        yield Sample(bits(), (i32(3, 4), i32(4)))
    for shift in (logic.ShiftLeft, logic.ShiftRight):
        yield Sample(shift(), (i32(3, 4), i32(4)), 8)
    yield Sample(logic.Not(), (boolean(4),))
    yield Sample(logic.Not(), (typed(DType.U8, 4),))
    yield Sample(function.Function("mul(x, clamp(add(x, 3.0), low=-inf, high=6.0))"), (f32(3, 4),))
    yield Sample(ew.Clamp(-0.5, float("inf")), (f32(3),))
    yield Sample(ew.Clamp(0.0, 6.0), (i32(3),))
    yield Sample(ew.Gelu(True), (f32(3),))
    yield Sample(ew.Add((0.0, 6.0)), (f32(3, 2), f32(2)))
    yield Sample(ew.Add(), (i64(3), i64(3)))
    yield Sample(logic.Mod(True), (f32(6), f32(1)))
    yield Sample(cast.Where(), (boolean(3, 1), f32(3, 4), f32(4)))
    for dtype in DType:
        yield Sample(cast.Cast(dtype), (typed(DType.I32, 5),), 100)
        yield Sample(cast.Cast(DType.F32), (typed(dtype, 5),), 100)
    yield Sample(cast.BitCast(DType.F32), (i32(5),))


def weighted() -> Iterator[Sample]:
    yield Sample(conv.Conv((1,), ((1, 2),), (2,)), (f32(2, 4, 9), f32(6, 4, 3), f32(6)))
    yield Sample(conv.Conv((2, 1), SAME2, ONES2, 2), (IMAGE, f32(6, 2, 3, 2)))
    yield Sample(conv.Conv(ONES2, SAME2, ONES2, 1, (0.0, 6.0)), (IMAGE, f32(4, 4, 3, 3), f32(4), IMAGE))
    yield Sample(conv.Conv((1, 1, 1), ((0, 0),) * 3, (1, 1, 1)), (f32(1, 2, 3, 4, 4), f32(3, 2, 2, 2, 2)))
    yield Sample(conv.ConvTranspose((2, 2), ((1, 0), (0, 1)), (1, 0), ONES2, 2), (IMAGE, f32(4, 3, 3, 3), f32(6)))
    yield Sample(matmul.Linear(), (f32(2, 3, 5), f32(4, 5), f32(4)))
    yield Sample(matmul.Linear((0.0, 1.0)), (f32(3, 5), f32(4, 5), f32(4), f32(3, 4)))
    yield Sample(matmul.MatMul(), (f32(2, 1, 3, 4), f32(5, 4, 2)))
    yield Sample(einsum.Einsum("bij,bjk->bki"), (f32(2, 3, 4), f32(2, 4, 5)))
    yield Sample(sampling.DeformConv(ONES2, SAME2, ONES2), (IMAGE, f32(3, 4, 3, 3), f32(2, 18, 7, 6), f32(3)))
    one, two = (("tanh", 0.0, 0.0),), (("sigmoid", 0.0, 0.0), ("tanh", 0.0, 0.0))
    three = (*two, ("tanh", 0.0, 0.0))
    yield Sample(recurrent.Rnn(3, one), (f32(4, 2, 5), f32(1, 3, 5), f32(1, 3, 3)))
    yield Sample(
        recurrent.Gru(3, two * 2, "bidirectional", None, ("bias",), True),
        (f32(4, 2, 5), f32(2, 9, 5), f32(2, 9, 3), f32(2, 18)),
    )
    yield Sample(
        recurrent.Lstm(3, three, "reverse", 1.5, ("initial_h", "initial_c")),
        (f32(4, 2, 5), f32(1, 12, 5), f32(1, 12, 3), f32(1, 2, 3), f32(1, 2, 3)),
    )
    yield Sample(recurrent.Recurrence("rnn", 3, one, "reverse"), (f32(4, 2, 3), f32(1, 3, 3)))
    yield Sample(
        recurrent.Recurrence("gru", 3, two * 2, "bidirectional", None, ("hidden_bias", "lengths"), True),
        (f32(4, 2, 18), f32(2, 9, 3), f32(2, 3), i64(2)),
        5,
    )
    yield Sample(
        recurrent.Recurrence("lstm", 3, three, "forward", 1.5, ("initial_h", "initial_c", "peepholes")),
        (f32(4, 2, 12), f32(1, 12, 3), f32(1, 2, 3), f32(1, 2, 3), f32(1, 9)),
    )


def windows() -> Iterator[Sample]:
    yield Sample(pool.MaxPool((3, 2), (2, 1), SAME2, ONES2), (IMAGE,))
    yield Sample(pool.MaxPool((2, 2), (2, 2), NONE2, ONES2), (QIMAGE,))
    yield Sample(pool.AvgPool((3, 2), (2, 1), SAME2, ONES2, True), (IMAGE,))
    yield Sample(pool.AvgPool((2,), (2,), ((0, 1),), (1,), False, (1,)), (f32(1, 2, 5),))
    yield Sample(pool.MaxPoolIndices((2, 2), (2, 2), NONE2, ONES2), (IMAGE,))
    yield Sample(pool.MaxUnpool((1, 1, 4, 4), (1, 1, 5, 4)), (f32(1, 1, 2, 2), i64(1, 1, 2, 2)), 16)
    yield Sample(resize.Resize((2, 4, 3, 12), (1.0, 1.0, 7 / 3, 0.5), (0.0, 0.0, 0.5, -0.25), "linear"), (IMAGE,))
    yield Sample(resize.Resize((2, 4, 14, 6), (1.0, 1.0, 0.5, 1.0), (0.0,) * 4, "nearest", "floor"), (QIMAGE,))
    yield Sample(resize.Resize((2, 4, 9, 9), (1.0, 1.0, 7 / 9, 6 / 9), (0.0,) * 4, "cubic"), (IMAGE,))
    yield Sample(sampling.GridSample(), (IMAGE, f32(2, 5, 5, 2)))
    yield Sample(sampling.RoiAlign((2, 3), 1.0, 2), (IMAGE, f32(3, 4), i64(3)), 2)
    yield Sample(sampling.Col2Im((5, 5), (2, 3), ONES2, NONE2, ONES2), (f32(1, 12, 12),))
    yield Sample(norm.BatchNorm(1e-3), (IMAGE, f32(4), f32(4), f32(4), f32(4)))
    yield Sample(norm.LayerNorm(2, 1e-6), (f32(2, 3, 4), f32(3, 4), f32(3, 4)))
    yield Sample(norm.LayerNorm(), (f32(2, 3, 4),))
    yield Sample(norm.Softmax(1), (f32(2, 3, 4),))
    yield Sample(norm.LogSoftmax(2), (f32(2, 3, 4),))
    yield Sample(norm.LocalResponseNorm(3), (IMAGE,))
    yield Sample(spectral.Dft(1, 6), (f32(2, 6, 1),))


def movements() -> Iterator[Sample]:
    yield Sample(shape.Reshape((6, 4)), (f32(2, 3, 4),))
    yield Sample(shape.Reshape((6, 4)), (q8(2, 3, 4),))
    yield Sample(shape.Transpose((2, 0, 1)), (f32(2, 3, 4),))
    yield Sample(shape.Slice((1, 4), (3, -1), (1, -2)), (f32(4, 5),))
    yield Sample(shape.Slice((0, 0), (-1, 5), (1, 2)), (f32(4, 5),))
    yield Sample(shape.Pad(((1, 0), (0, 2)), 1.5), (f32(3, 4),))
    for mode in ("reflect", "edge", "wrap"):
        yield Sample(shape.Pad(((1, 0), (2, 2)), 0.0, mode), (f32(3, 4),))
    yield Sample(shape.Expand((2, 3, 4)), (f32(3, 1),))
    yield Sample(shape.Concat(1), (f32(2, 1), f32(2, 3)))
    yield Sample(shape.Concat(0), (q8(2, 3), q8(1, 3), q8(1, 3)))
    yield Sample(shape.Gather(1), (f32(2, 5), i64(3, 2)), 5)
    yield Sample(index.GatherElements(1), (f32(2, 5), i64(2, 3)), 5)
    yield Sample(index.GatherND(), (f32(2, 2, 3), i64(4, 2)), 2)
    yield Sample(index.ScatterElements(1), (f32(2, 5), i64(2, 1), f32(2, 1)), 5)
    yield Sample(index.ScatterElements(0, "add"), (f32(4, 2), i64(6, 2), f32(6, 2)), 4)
    yield Sample(index.ScatterND("max"), (f32(3, 2), i64(4, 1), f32(4, 2)), 3)
    yield Sample(index.OneHot(4), (i64(2, 3),), 4)
    yield Sample(index.Trilu(False, 1), (f32(2, 3, 4),))
    yield Sample(index.ReverseSequence(), (f32(4, 3, 2), i64(3)), 5)
    yield Sample(scan.CumSum(1, True, True), (f32(2, 5),))
    yield Sample(scan.CumProd(0), (f32(3, 2),))
    yield Sample(scan.TopK(2, 1), (f32(3, 5),))
    yield Sample(scan.TopK(3, 0, False), (i32(5, 2),))


def reductions() -> Iterator[Sample]:
    for kind in REDUCTIONS:
        yield Sample(kind((1,)), (f32(2, 3, 4),))
        yield Sample(kind((0, 2), True), (f32(2, 3, 4),))
    for arg in (reduce.ArgMax, reduce.ArgMin):
        yield Sample(arg(1), (f32(2, 3, 4),))
        yield Sample(arg(-1, True, True), (i32(2, 30),), 4)


def quantized() -> Iterator[Sample]:
    yield Sample(Constant(Tensor.of(np.array([1.5, np.inf, -np.inf, np.nan], np.float32))), ())
    yield Sample(Constant(Tensor.of(np.array([1, -2], np.int8)), per_channel([0.5, 0.25], None, 0)), ())
    yield Sample(Constant(VECTOR), ())
    yield Sample(quantize.Observer("relu", "percentile", True, (-1.0, 2.0)), (f32(3),))
    yield Sample(quantize.FakeQuantize(), (f32(3, 4), f32(), f32()))
    yield Sample(quantize.FakeQuantize(-7, 7, 0), (f32(3, 4), f32(3), f32(3)))
    yield Sample(quantize.FakeQuantize(-1, 1, 0, step=2), (f32(3, 4), f32(3), f32(3)))
    yield Sample(quantize.Quantize(DType.I8, OUT), (f32(3, 4),))
    yield Sample(quantize.Quantize(DType.U8, per_channel([0.5, 0.1], [3, 128], 1)), (f32(3, 2),))
    yield Sample(quantize.Dequantize(), (q8(3, 4),))
    yield Sample(image.NormalizeImage(), (typed(DType.U8, 2, 5, 4, 1),))
    yield Sample(image.NormalizeImage((0.5, 0.4, 0.3), (0.2,), 1.0), (typed(DType.U8, 2, 5, 4, 3),))
    yield Sample(dynamic.AsQuantized(OUT), (typed(DType.I8, 4),))
    yield Sample(dynamic.DynamicQuantize(), (f32(3, 4),))
    yield Sample(dynamic.QuantizeBy(), (f32(3, 4), f32(), typed(DType.U8)))
    yield Sample(dynamic.DequantizeBy(1), (typed(DType.U8, 3, 4), f32(4), typed(DType.U8, 4)))
    yield Sample(
        dynamic.MatMulInteger(), (typed(DType.U8, 3, 4), typed(DType.I8, 4, 2), typed(DType.U8), typed(DType.I8))
    )
    yield Sample(
        dynamic.ConvInteger((1,), ((1, 0),), (1,)),
        (typed(DType.U8, 1, 2, 5), typed(DType.I8, 3, 2, 2), typed(DType.U8), typed(DType.I8)),
    )


def integers() -> Iterator[Sample]:
    exponentials = integer.QSoftmax.table(0.05, 6)
    for out in (OUT, None):
        yield Sample(integer.QConv((2, 1), SAME2, ONES2, 2, None, out), (QIMAGE, weights(6, 2, 3, 2), i32(6)))
        yield Sample(
            integer.QConvTranspose((2, 2), NONE2, (0, 1), ONES2, 1, None, out), (QIMAGE, weights(4, 3, 2, 2, axis=1))
        )
        yield Sample(integer.QLinear(None, out), (q8(3, 5), weights(4, 5), i32(4)))
        yield Sample(integer.QMatMul(out), (q8(2, 3, 4), q8(2, 4, 5, scale=0.02, zero=-1)))
        for binary in (integer.QAdd, integer.QSub, integer.QMul):
            yield Sample(binary(None, out), (q8(2, 3), q8(3, scale=0.2, zero=0)))
        yield Sample(integer.QAvgPool((3, 2), (2, 1), SAME2, False, (), out), (QIMAGE,))
        yield Sample(integer.QReduceMean((2, 3), True, out), (QIMAGE,))
        yield Sample(integer.QResize((2, 4, 14, 9), (1.0, 1.0, 0.5, 2 / 3), (0.0,) * 4, out), (QIMAGE,))
        yield Sample(integer.QSoftmax(1, exponentials, out), (q8(2, 6),))
        yield Sample(integer.QLayerNorm(1, 1e-5, VECTOR, VECTOR, out), (q8(3, 5),))
    residual = q8(2, 4, 7, 6, scale=0.3, zero=1)
    yield Sample(integer.QConv(ONES2, SAME2, ONES2, 1, (-7, 100), OUT), (QIMAGE, weights(4, 4, 3, 3), i32(4), residual))
    yield Sample(integer.QAdd((0, 20), OUT), (q8(4), q8(4)))
    yield Sample(integer.Requantize(OUT), (q8(3, 4),))
    yield Sample(integer.QImage((0.5, 0.4, 0.3), (0.2,), 255.0, OUT), (typed(DType.U8, 2, 5, 4, 3),))
    yield Sample(integer.QTable(TABLE8, OUT), (q8(3, 4),))
    yield Sample(integer.QTable(TABLE32), (q8(3, 4),))


SAMPLES: tuple[Sample, ...] = (
    *elementwise(),
    *weighted(),
    *windows(),
    *movements(),
    *reductions(),
    *quantized(),
    *integers(),
)
