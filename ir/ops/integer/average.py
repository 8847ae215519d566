"""Averages on int8: pooling, means, linear resampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...errors import ModelError
from ...op import Cost, Quantization, register_op
from ...types import QuantParams, TensorType
from ..conv import Conv, Padding
from ..pool import AvgPool
from ..reduce import ReduceMean
from ..resize import Resize
from .products import integer_conv
from .rounding import IntegerOp, accumulator, centered, multiplier, quant_of, require_quantized, store


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
            before, after = (total.take(index[:, tap], axis) * weight[:, tap].reshape(shape) for tap in range(2))
            total = before + after
        divisor = float(1 << (self.WEIGHT_BITS * len(axes)))
        return store(accumulator(total) * multiplier([quant_of(types[0])], self.out, divisor), self.out)
