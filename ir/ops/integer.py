"""Ops after the freeze: exact integer semantics in elementary numpy operations. Every kernel equals these to the bit.

Accumulators are int32: computed here in int64 and asserted to fit. Every product and sum in float32 is rounded by
itself (no fused multiply-add). See docs/numerics.md.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..constants import Tensor
from ..errors import ModelError
from ..op import Cost, ExactOp, Op, Quantization, Stage, register_op
from ..types import DType, QuantParams, Shape, TensorType, broadcast_shapes
from .conv import Conv, ConvTranspose, Padding
from .matmul import Linear, MatMul
from .pool import AvgPool
from .quantize import broadcast_params
from .reduce import ReduceMean
from .resize import Resize

INT32 = np.iinfo(np.int32)
STORED_LOW, STORED_HIGH = -128, 127


# Rounding back to int8 ---------------------------------------------------------------------------------------------


def multiplier(
    inputs: Sequence[QuantParams | float | np.ndarray], output: QuantParams | None, divisor: float = 1.0
) -> np.ndarray:
    """Product of the input scales over the output's (1 for float output) and ``divisor``: shape (channels,) or (1,).

    Computed in float64 from the float32 scales, rounded once to float32.
    """
    product = np.ones(1, np.float64)
    for part in inputs:
        scale = part.scale_array() if isinstance(part, QuantParams) else np.asarray(part)
        product = product * scale.astype(np.float64)
    scale_out = 1.0 if output is None else float(output.scale[0])
    return np.asarray(product / (scale_out * divisor), np.float32)


def accumulator(total: np.ndarray) -> np.ndarray:
    """An int64 sum as float32, after asserting that int32 holds it."""
    if total.size and (total.min() < INT32.min or total.max() > INT32.max):
        raise ModelError("an accumulator leaves the int32 range", expected="weight scales that keep it inside")
    return total.astype(np.float32)


def store(real: np.ndarray, output: QuantParams | None, clamp: tuple[float, float] | None = None) -> np.ndarray:
    """Round float32 ``real`` (in units of the output's scale) into stored int8, or keep it when the output is float.

    ``clamp`` holds stored values for int8, real ones for float output. Values are clamped in float, then rounded to
    nearest even; NaN gives the zero point.
    """
    if output is None:
        return real if clamp is None else np.clip(real, np.float32(clamp[0]), np.float32(clamp[1]))
    zero = output.zero_point[0]
    low, high = clamp or (STORED_LOW, STORED_HIGH)
    bounded = np.clip(real, np.float32(low - zero), np.float32(high - zero))
    rounded = np.nan_to_num(np.rint(bounded), nan=0.0).astype(np.int32)
    return np.asarray(rounded + np.int32(zero), np.int8)


def centered(x: np.ndarray, quant: QuantParams | None) -> np.ndarray:
    """``x - zero point`` as int64."""
    assert quant is not None
    return np.asarray(x.astype(np.int64) - broadcast_params(quant, x.ndim)[1])


def require_quantized(name: str, *types: TensorType) -> None:
    """Raise :class:`ModelError` unless every type is i8 with parameters."""
    for type in types:
        if type.dtype is not DType.I8 or type.quant is None:
            raise ModelError(f"{name} of {type}", expected="a quantized i8 tensor")


def quant_of(type: TensorType) -> QuantParams:
    """The parameters of a type that is known to be quantized."""
    assert type.quant is not None
    return type.quant


@dataclass(frozen=True)
class IntegerOp(Op, ExactOp):
    """An op on int8 values. ``out`` are the output's parameters; None makes it float32: the exact sum, dequantized."""

    stage: ClassVar[Stage] = Stage.INTEGER

    def typed(self, shape: Shape, out: QuantParams | None) -> tuple[TensorType, ...]:
        return (TensorType(DType.F32 if out is None else DType.I8, shape, out),)


# Weighted ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Weighted(IntegerOp):
    """int32 sums of products with constant weights, plus an int32 bias and, rounded apart, an int8 residual."""

    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "bias?", "residual?")
    quantization: ClassVar[Quantization] = Quantization.WEIGHTED

    def finish(
        self,
        total: np.ndarray,
        types: Sequence[TensorType],
        channel_axis: int,
        out: QuantParams | None,
        clamp: tuple[float, float] | None,
        bias: np.ndarray | None,
        residual: np.ndarray | None,
    ) -> np.ndarray:
        """The epilogue: bias, requantization, residual, clamp, rounding."""
        shape = [1] * total.ndim
        shape[channel_axis] = -1
        if bias is not None:
            total = total + bias.astype(np.int64).reshape(shape)
        factor = multiplier([quant_of(types[0]), quant_of(types[1])], out)
        real = accumulator(total) * factor.reshape(shape)
        if residual is not None:
            quant = quant_of(types[3])
            real = real + centered(residual, quant).astype(np.float32) * multiplier([quant], out)
        return store(real, out, clamp)


@register_op
@dataclass(frozen=True)
class QConv(Weighted):
    """:class:`~octavo.ir.ops.conv.Conv` on int8; padding means the real 0. ``clamp`` is in stored units of ``out``."""

    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    groups: int = 1
    clamp: tuple[float, float] | None = None
    out: QuantParams | None = None

    name: ClassVar[str] = "qconv"

    @property
    def geometry(self) -> Conv:
        """The float op of the same shape."""
        return Conv(self.stride, self.padding, self.dilation, self.groups)

    def infer(self, x: TensorType, weight: TensorType, *rest: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x, weight, *rest[1:])
        return self.typed(self.geometry.infer(x, weight, *rest)[0].shape, self.out)

    def exact(
        self,
        types: Sequence[TensorType],
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        residual: np.ndarray | None = None,
    ) -> np.ndarray:
        total = integer_conv(centered(x, types[0].quant), centered(weight, types[1].quant), self.geometry)
        return self.finish(total, types, 1, self.out, self.clamp, bias, residual)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return self.geometry.cost(inputs, outputs)


@register_op
@dataclass(frozen=True)
class QConvTranspose(Weighted):
    """:class:`~octavo.ir.ops.conv.ConvTranspose` on int8. ``clamp`` is in stored units of ``out``."""

    stride: tuple[int, ...]
    padding: Padding
    output_padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    clamp: tuple[float, float] | None = None
    out: QuantParams | None = None

    name: ClassVar[str] = "qconv_transpose"
    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "bias?")

    @property
    def geometry(self) -> ConvTranspose:
        """The float op of the same shape."""
        return ConvTranspose(self.stride, self.padding, self.output_padding, self.dilation, self.groups)

    def infer(self, x: TensorType, weight: TensorType, *rest: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x, weight)
        return self.typed(self.geometry.infer(x, weight, *rest)[0].shape, self.out)

    def exact(
        self, types: Sequence[TensorType], x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None
    ) -> np.ndarray:
        total = integer_conv_transpose(centered(x, types[0].quant), centered(weight, types[1].quant), self.geometry)
        return self.finish(total, types, 1, self.out, self.clamp, bias, None)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return self.geometry.cost(inputs, outputs)


@register_op
@dataclass(frozen=True)
class QLinear(Weighted):
    """:class:`~octavo.ir.ops.matmul.Linear` on int8. ``clamp`` is in stored units of ``out``."""

    clamp: tuple[float, float] | None = None
    out: QuantParams | None = None

    name: ClassVar[str] = "qlinear"

    def infer(self, x: TensorType, weight: TensorType, *rest: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x, weight, *rest[1:])
        return self.typed(Linear().infer(x, weight, *rest)[0].shape, self.out)

    def exact(
        self,
        types: Sequence[TensorType],
        x: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray | None = None,
        residual: np.ndarray | None = None,
    ) -> np.ndarray:
        total = integer_matmul(centered(x, types[0].quant), centered(weight, types[1].quant).T)
        return self.finish(total, types, x.ndim - 1, self.out, self.clamp, bias, residual)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Linear().cost(inputs, outputs)


@register_op
@dataclass(frozen=True)
class QMatMul(IntegerOp):
    """:class:`~octavo.ir.ops.matmul.MatMul` of two int8 activations."""

    out: QuantParams | None = None

    name: ClassVar[str] = "qmatmul"
    operands: ClassVar[tuple[str, ...]] = ("a", "b")
    quantization: ClassVar[Quantization] = Quantization.MATMUL

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, a, b)
        return self.typed(MatMul().infer(a, b)[0].shape, self.out)

    def exact(self, types: Sequence[TensorType], a: np.ndarray, b: np.ndarray) -> np.ndarray:
        total = integer_matmul(centered(a, types[0].quant), centered(b, types[1].quant))
        return store(accumulator(total) * multiplier([quant_of(t) for t in types], self.out), self.out)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return MatMul().cost(inputs, outputs)


def integer_matmul(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """numpy.matmul of integers, as int64. Exact: float64 holds every sum of int8 products below 2**53."""
    return np.asarray(np.rint(np.matmul(a.astype(np.float64), b.astype(np.float64))), np.int64)


def _index(*trailing: int | slice) -> tuple[Any, ...]:
    """An index into the trailing axes."""
    return (Ellipsis, *trailing)


def integer_conv(x: np.ndarray, weight: np.ndarray, op: Conv) -> np.ndarray:
    """The cross-correlation of centered integers, as int64: one product of matrices per kernel tap and group."""
    x = np.pad(x, ((0, 0), (0, 0), *op.padding))
    extents = [
        (size - d * (k - 1) - 1) // s + 1
        for size, k, s, d in zip(x.shape[2:], weight.shape[2:], op.stride, op.dilation, strict=True)
    ]
    outputs, inputs = weight.shape[0] // op.groups, weight.shape[1]
    total = np.zeros((x.shape[0], op.groups, outputs, *extents), np.int64)
    grouped = x.reshape(x.shape[0], op.groups, inputs, *x.shape[2:])
    taps = weight.reshape(op.groups, outputs, inputs, *weight.shape[2:])
    for tap in itertools.product(*(range(k) for k in weight.shape[2:])):
        window = tuple(
            slice(t * d, t * d + (e - 1) * s + 1, s)
            for t, d, e, s in zip(tap, op.dilation, extents, op.stride, strict=True)
        )
        part = grouped[_index(*window)].reshape(x.shape[0], op.groups, inputs, -1)
        total += integer_matmul(taps[_index(*tap)], part).reshape(total.shape)
    return total.reshape(x.shape[0], weight.shape[0], *extents)


def integer_conv_transpose(x: np.ndarray, weight: np.ndarray, op: ConvTranspose) -> np.ndarray:
    """The transposed convolution of centered integers, as int64: every tap adds its product at its place."""
    kernel, batch = weight.shape[2:], x.shape[0]
    inputs, outputs = weight.shape[0] // op.groups, weight.shape[1]
    full = [
        max((size - 1) * s + d * (k - 1) + 1, before + extent)
        for size, k, s, d, (before, _), extent in zip(
            x.shape[2:], kernel, op.stride, op.dilation, op.padding, _transposed_extents(x, weight, op), strict=True
        )
    ]
    total = np.zeros((batch, op.groups, outputs, *full), np.int64)
    grouped = x.reshape(batch, op.groups, inputs, -1)
    taps = weight.reshape(op.groups, inputs, outputs, *kernel)
    for tap in itertools.product(*(range(k) for k in kernel)):
        part = integer_matmul(taps[_index(*tap)].swapaxes(1, 2), grouped)
        window = tuple(
            slice(t * d, t * d + (size - 1) * s + 1, s)
            for t, d, size, s in zip(tap, op.dilation, x.shape[2:], op.stride, strict=True)
        )
        total[_index(*window)] += part.reshape(batch, op.groups, outputs, *x.shape[2:])
    crop = tuple(
        slice(before, before + extent)
        for (before, _), extent in zip(op.padding, _transposed_extents(x, weight, op), strict=True)
    )
    return np.asarray(total[_index(*crop)].reshape(batch, outputs * op.groups, *_transposed_extents(x, weight, op)))


def _transposed_extents(x: np.ndarray, weight: np.ndarray, op: ConvTranspose) -> list[int]:
    return [
        (size - 1) * s - sum(p) + d * (k - 1) + extra + 1
        for size, k, s, p, d, extra in zip(
            x.shape[2:], weight.shape[2:], op.stride, op.padding, op.dilation, op.output_padding, strict=True
        )
    ]


# Elementwise -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class QBinary(IntegerOp):
    """Two broadcast int8 operands, each with its own scale. ``clamp`` is in stored units of ``out``."""

    clamp: tuple[float, float] | None = None
    out: QuantParams | None = None

    operands: ClassVar[tuple[str, ...]] = ("a", "b")
    quantization: ClassVar[Quantization] = Quantization.ARITHMETIC

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, a, b)
        return self.typed(broadcast_shapes(a.shape, b.shape), self.out)


@register_op
@dataclass(frozen=True)
class QAdd(QBinary):
    """a + b: each operand times its own factor, then one sum."""

    name: ClassVar[str] = "qadd"

    def exact(self, types: Sequence[TensorType], a: np.ndarray, b: np.ndarray) -> np.ndarray:
        left, right = scaled(a, types[0], self.out), scaled(b, types[1], self.out)
        return store(left + right, self.out, self.clamp)


@register_op
@dataclass(frozen=True)
class QSub(QBinary):
    """a - b."""

    name: ClassVar[str] = "qsub"

    def exact(self, types: Sequence[TensorType], a: np.ndarray, b: np.ndarray) -> np.ndarray:
        left, right = scaled(a, types[0], self.out), scaled(b, types[1], self.out)
        return store(left - right, self.out, self.clamp)


@register_op
@dataclass(frozen=True)
class QMul(QBinary):
    """a * b: the exact integer product, times one factor."""

    name: ClassVar[str] = "qmul"

    def exact(self, types: Sequence[TensorType], a: np.ndarray, b: np.ndarray) -> np.ndarray:
        product = centered(a, types[0].quant) * centered(b, types[1].quant)
        return store(accumulator(product) * multiplier([quant_of(t) for t in types], self.out), self.out, self.clamp)


def scaled(x: np.ndarray, type: TensorType, out: QuantParams | None) -> np.ndarray:
    """Centered ``x`` in units of the output's scale, float32."""
    return np.asarray(centered(x, type.quant).astype(np.float32) * multiplier([quant_of(type)], out))


@register_op
@dataclass(frozen=True)
class Requantize(IntegerOp):
    """The same real numbers on another grid."""

    out: QuantParams

    name: ClassVar[str] = "requantize"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.TABLE

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x)
        return self.typed(x.shape, self.out)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        return store(scaled(x, types[0], self.out), self.out)


@register_op
@dataclass(frozen=True)
class QTable(IntegerOp):
    """``table[x + 128]``: 256 entries, i8 on the grid ``out``, or f32 when the output is float."""

    table: Tensor
    out: QuantParams | None = None

    name: ClassVar[str] = "qtable"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.TABLE

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x)
        expected = DType.F32 if self.out is None else DType.I8
        if self.table.shape != (256,) or self.table.dtype is not expected:
            raise ModelError(f"qtable with a table of type {self.table.type}", expected=f"{expected.value}[256]")
        return self.typed(x.shape, self.out)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        return np.asarray(self.table.numpy()[x.astype(np.int64) + 128])


# Averages ----------------------------------------------------------------------------------------------------------


@register_op
@dataclass(frozen=True)
class QAvgPool(IntegerOp):
    """:class:`~octavo.ir.ops.pool.AvgPool` on int8: the exact sum times one factor per distinct window size."""

    pool: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    count_padding: bool = False
    overhang: tuple[int, ...] = ()
    out: QuantParams | None = None

    name: ClassVar[str] = "qavg_pool"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.AVERAGE

    @property
    def geometry(self) -> AvgPool:
        """The float op of the same shape."""
        ones = (1,) * len(self.pool)
        return AvgPool(self.pool, self.stride, self.padding, ones, self.count_padding, self.overhang)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x)
        return self.typed(self.geometry.output_shape(x), self.out)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        ones = np.ones((x.shape[1], 1, *self.pool), np.int64)
        conv = Conv(self.stride, self.padding, (1,) * len(self.pool), x.shape[1])
        total = accumulator(integer_conv(centered(x, types[0].quant), ones, conv))
        return store(total * self.factors(types[0], x.shape[2:]), self.out)

    def factors(self, x: TensorType, spatial: Sequence[int]) -> np.ndarray:
        """The float32 multiplier of every output position, of the output's spatial shape."""
        counts = self.geometry.counts(spatial).numpy()
        factors = {n: multiplier([quant_of(x)], self.out, n)[0] for n in np.unique(counts)}
        return np.array([factors[n] for n in counts.ravel()], np.float32).reshape(counts.shape)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return self.geometry.cost(inputs, outputs)


@register_op
@dataclass(frozen=True)
class QReduceMean(IntegerOp):
    """:class:`~octavo.ir.ops.reduce.ReduceMean` on int8: the exact sum times one factor."""

    axes: tuple[int, ...]
    keep: bool = False
    out: QuantParams | None = None

    name: ClassVar[str] = "qreduce_mean"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.AVERAGE

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x)
        return self.typed(ReduceMean(self.axes, self.keep).infer(x)[0].shape, self.out)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        count = int(np.prod([x.shape[axis] for axis in self.axes]))
        total = accumulator(centered(x, types[0].quant).sum(self.axes, keepdims=self.keep))
        return store(total * multiplier([quant_of(types[0])], self.out, count), self.out)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(elementwise=inputs[0].size)


@register_op
@dataclass(frozen=True)
class QResize(IntegerOp):
    """Linear :class:`~octavo.ir.ops.resize.Resize` of the trailing axes on int8, with weights in units of 2**-11.

    Each resampled axis multiplies by two integer weights that sum to 2048; the int32 sum over all taps is exact.
    """

    size: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    out: QuantParams | None = None

    name: ClassVar[str] = "qresize"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.AVERAGE

    WEIGHT_BITS: ClassVar[int] = 11

    @property
    def geometry(self) -> Resize:
        """The float op of the same shape."""
        return Resize(self.size, self.scale, self.offset, "linear")

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x)
        if len(self.resampled(x.static_shape)) > 2:
            raise ModelError("qresize of more than two axes")
        return self.typed(self.geometry.infer(x)[0].shape, self.out)

    def resampled(self, shape: Sequence[int]) -> list[int]:
        """The axes that change."""
        same = [
            n == s and f == 1.0 and o == 0.0
            for n, s, f, o in zip(self.size, shape, self.scale, self.offset, strict=True)
        ]
        return [axis for axis, kept in enumerate(same) if not kept]

    def taps(self, axis: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Input indices and integer weights (summing to 2048), both (outputs, 2) int64."""
        index, weight = self.geometry.taps(axis, size)
        first = np.rint(weight[:, 0] * (1 << self.WEIGHT_BITS)).astype(np.int64)
        return index, np.stack([first, (1 << self.WEIGHT_BITS) - first], 1)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        total = centered(x, types[0].quant)
        axes = self.resampled(x.shape)
        for axis in axes:
            index, weight = self.taps(axis, x.shape[axis])
            shape = [1] * x.ndim
            shape[axis] = -1
            total = sum(total.take(index[:, tap], axis) * weight[:, tap].reshape(shape) for tap in range(2))
        divisor = float(1 << (self.WEIGHT_BITS * len(axes)))
        return store(accumulator(total) * multiplier([quant_of(types[0])], self.out, divisor), self.out)


# Softmax and layer norm --------------------------------------------------------------------------------------------


@register_op
@dataclass(frozen=True)
class QSoftmax(IntegerOp):
    """Softmax along ``axis`` of int8: integer exponentials from a table, an exact sum, one float division.

    ``exponentials`` holds, for d = 0..255, ``rint(exp(-d * scale) * 2**bits)`` as i32, with ``bits`` small enough for
    the sum to fit int32. With e = exponentials[max - x]: ``f32(e) * (1 / f32(sum e)) * (1 / output scale)``, each
    operation rounded to float32.
    """

    axis: int
    exponentials: Tensor
    out: QuantParams | None = None

    name: ClassVar[str] = "qsoftmax"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.SOFTMAX

    @staticmethod
    def table(scale: float, length: int) -> Tensor:
        """The exponentials for inputs of that scale and sums of that many elements."""
        bits = min(23, 30 - max(length - 1, 1).bit_length())
        return Tensor.of(np.rint(np.exp(-np.arange(256) * float(scale)) * 2.0**bits).astype(np.int32))

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x)
        if self.exponentials.shape != (256,) or self.exponentials.dtype is not DType.I32:
            raise ModelError("qsoftmax needs i32[256] exponentials")
        return self.typed(x.shape, self.out)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        wide = x.astype(np.int64)
        powers = self.exponentials.numpy()[wide.max(self.axis, keepdims=True) - wide].astype(np.int64)
        inverse = np.float32(1.0) / accumulator(powers.sum(self.axis, keepdims=True))
        real = accumulator(powers) * inverse
        return store(real if self.out is None else real * multiplier([], self.out), self.out)


@register_op
@dataclass(frozen=True)
class QLayerNorm(IntegerOp):
    """Layer norm over the last ``rank`` axes of int8, from exact integer sums.

    With n elements, S = sum(x - zp) and Q = sum((x - zp)^2): ``d = n (x - zp) - S`` and ``V = n Q - S^2`` are exact
    integers; the result is ``f32(d) * (1 / sqrt(f32(V) + epsilon n^2 / scale^2)) * gain + shift``, where ``gain`` and
    ``shift`` (f32, in units of the output's scale) are constants, each operation rounded to float32.
    """

    rank: int
    epsilon: float
    gain: Tensor
    shift: Tensor
    out: QuantParams | None = None

    name: ClassVar[str] = "qlayer_norm"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.NORMALIZATION

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x)
        if self.gain.shape != x.shape[x.rank - self.rank :] or self.shift.shape != self.gain.shape:
            raise ModelError(f"qlayer_norm of {x} with gain {self.gain.type} and shift {self.shift.type}")
        return self.typed(x.shape, self.out)

    def bias(self, x: TensorType) -> np.float32:
        """The term beside the variance, ``epsilon n^2 / scale^2``, rounded once."""
        count = self.gain.size
        return np.float32(self.epsilon * float(count) ** 2 / float(quant_of(x).scale[0]) ** 2)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        axes = tuple(range(x.ndim - self.rank, x.ndim))
        wide, count = centered(x, types[0].quant), self.gain.size
        total = wide.sum(axes, keepdims=True)
        variance = count * (wide * wide).sum(axes, keepdims=True) - total * total
        deviation = accumulator(count * wide - total)
        inverse = np.float32(1.0) / np.sqrt(variance.astype(np.float32) + self.bias(types[0]))
        return store(deviation * inverse * self.gain.numpy() + self.shift.numpy(), self.out)
