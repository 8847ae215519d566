"""Softmax and layer norm on int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...constants import Tensor
from ...errors import ModelError
from ...op import Quantization, register_op
from ...types import DType, QuantParams, TensorType
from .rounding import IntegerOp, accumulator, centered, multiplier, quant_of, require_quantized, store

MOST_BITS = 23
"""Of an exponential: kernels look it up as three bytes."""


@register_op
@dataclass(frozen=True)
class QSoftmax(IntegerOp):
    """Softmax along ``axis`` of int8: integer exponentials from a table, an exact sum, one float division.

    ``exponentials`` holds, for d = 0..255, ``rint(exp(-d * scale) * 2**bits)`` as i32, with ``bits`` at most 23, and
    small enough for the sum to fit int32. With e = exponentials[max - x]:
    ``f32(e) * (1 / f32(sum e)) * (1 / output scale)``, each operation rounded to float32.
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
        bits = min(MOST_BITS, 30 - max(length - 1, 1).bit_length())
        return Tensor.of(np.rint(np.exp(-np.arange(256) * float(scale)) * 2.0**bits).astype(np.int32))

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require_quantized(self.name, x)
        if self.exponentials.shape != (256,) or self.exponentials.dtype is not DType.I32:
            raise ModelError("qsoftmax needs i32[256] exponentials")
        if not 0 <= self.exponentials.numpy().min() <= self.exponentials.numpy().max() <= 1 << MOST_BITS:
            raise ModelError(f"qsoftmax needs exponentials from 0 to 2**{MOST_BITS}")
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
