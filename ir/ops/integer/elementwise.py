"""Elementwise ops on int8: sums, differences, products, other grids, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...constants import Tensor
from ...errors import ModelError
from ...op import Quantization, register_op
from ...types import DType, QuantParams, TensorType, broadcast_shapes
from .rounding import IntegerOp, accumulator, centered, multiplier, quant_of, require_quantized, scaled, store


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
