"""Quantization whose parameters are operands, and products of plain integers with zero-point operands.

Nothing here has static parameters in its types: integers are i8, u8 or i32 values, and scales are f32 values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ..errors import ModelError
from ..op import Cost, ExactOp, Op, Quantization, register_op
from ..types import DType, QuantParams, TensorType
from .conv import Conv, Padding
from .matmul import MatMul
from .quantize import integer_range

_BYTES = (DType.I8, DType.U8)


@register_op
@dataclass(frozen=True)
class AsQuantized(Op, ExactOp):
    """The same integers, which from here on mean real numbers by ``quant``."""

    quant: QuantParams

    name: ClassVar[str] = "as_quantized"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (x.with_quant(self.quant),)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        return x


@register_op
@dataclass(frozen=True)
class DynamicQuantize(Op, ExactOp):
    """``x`` as u8 over its own range widened to hold 0; with it the scale (f32) and zero point (u8), both scalars."""

    name: ClassVar[str] = "dynamic_quantize"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return TensorType(DType.U8, x.shape), TensorType(DType.F32, ()), TensorType(DType.U8, ())

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> tuple[np.ndarray, ...]:
        low, high = np.float32(min(x.min(initial=0), 0)), np.float32(max(x.max(initial=0), 0))
        scale = np.float32((high - low) / np.float32(255)) or np.float32(1)
        zero = np.clip(np.rint(-low / scale), 0, 255)
        y = np.clip(np.rint(np.asarray(x, np.float32) / scale) + zero, 0, 255)
        return y.astype(np.uint8), np.asarray(scale, np.float32), np.asarray(zero, np.uint8)


@dataclass(frozen=True)
class ByOperands(Op, ExactOp):
    """Conversion by a ``scale`` and a ``zero_point`` of shape () or one element per index of ``axis``."""

    axis: int | None = None

    def parameters(self, rank: int, scale: np.ndarray, zero: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shape = [1] * rank
        if self.axis is not None:
            shape[self.axis] = -1
        return scale.astype(np.float32).reshape(shape), zero.astype(np.int64).reshape(shape)

    def check(self, x: TensorType, scale: TensorType, zero: TensorType) -> None:
        expected = () if self.axis is None else (x.shape[self.axis],)
        if not scale.shape == zero.shape == expected or not scale.dtype.is_float:
            raise ModelError(f"{self.name} of {x} by scale {scale} and zero point {zero}", expected=f"shape {expected}")


@register_op
@dataclass(frozen=True)
class QuantizeBy(ByOperands):
    """``clamp(rint(x / scale) + zero_point)`` in the element type of the zero point."""

    name: ClassVar[str] = "quantize_by"
    operands: ClassVar[tuple[str, ...]] = ("x", "scale", "zero_point")

    def infer(self, x: TensorType, scale: TensorType, zero_point: TensorType) -> tuple[TensorType, ...]:
        self.check(x, scale, zero_point)
        return (x.with_dtype(zero_point.dtype),)

    def exact(
        self, types: Sequence[TensorType], x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray
    ) -> np.ndarray:
        factor, zero = self.parameters(x.ndim, scale, zero_point)
        low, high = integer_range(types[2].dtype)
        grid = np.rint(np.clip(np.asarray(x, np.float32) / factor, low - zero, high - zero))
        return np.asarray(np.nan_to_num(grid, nan=0.0).astype(np.int64) + zero, types[2].dtype.numpy)


@register_op
@dataclass(frozen=True)
class DequantizeBy(ByOperands):
    """``(x - zero_point) * scale`` in the element type of the scale."""

    name: ClassVar[str] = "dequantize_by"
    operands: ClassVar[tuple[str, ...]] = ("x", "scale", "zero_point")

    def infer(self, x: TensorType, scale: TensorType, zero_point: TensorType) -> tuple[TensorType, ...]:
        self.check(x, scale, zero_point)
        return (x.with_dtype(scale.dtype),)

    def exact(
        self, types: Sequence[TensorType], x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray
    ) -> np.ndarray:
        factor, zero = self.parameters(x.ndim, scale, zero_point)
        real = (x.astype(np.int64) - zero).astype(np.float32) * factor
        return np.asarray(real, scale.dtype)


def _require_bytes(name: str, *types: TensorType) -> None:
    if any(t.dtype not in _BYTES for t in types):
        raise ModelError(f"{name} of {', '.join(map(str, types))}", expected="i8 or u8")


@register_op
@dataclass(frozen=True)
class MatMulInteger(Op, ExactOp):
    """``(a - a_zero) @ (b - b_zero)`` in i32; the zero points broadcast against their matrices."""

    name: ClassVar[str] = "matmul_integer"
    operands: ClassVar[tuple[str, ...]] = ("a", "b", "a_zero", "b_zero")

    def infer(self, a: TensorType, b: TensorType, a_zero: TensorType, b_zero: TensorType) -> tuple[TensorType, ...]:
        _require_bytes(self.name, a, b)
        (product,) = MatMul().infer(a.with_quant(None), b.with_quant(None))
        return (product.with_dtype(DType.I32),)

    def exact(
        self, types: Sequence[TensorType], a: np.ndarray, b: np.ndarray, a_zero: np.ndarray, b_zero: np.ndarray
    ) -> np.ndarray:
        # Float64 sums of such products are exact in any order: |sum| < 2**53 for any K below 2**37.
        left, right = a.astype(np.float64) - a_zero, b.astype(np.float64) - b_zero
        return _as_int32(np.matmul(left, right))

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return MatMul().cost(inputs[:2], outputs)


@register_op
@dataclass(frozen=True)
class ConvInteger(Op, ExactOp):
    """Convolution of ``x - x_zero`` with ``weight - weight_zero`` in i32; padding has the value of the zero point."""

    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]
    groups: int = 1

    name: ClassVar[str] = "conv_integer"
    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "x_zero", "weight_zero")

    @property
    def real(self) -> Conv:
        """The same convolution of real numbers."""
        return Conv(self.stride, self.padding, self.dilation, self.groups)

    def infer(
        self, x: TensorType, weight: TensorType, x_zero: TensorType, weight_zero: TensorType
    ) -> tuple[TensorType, ...]:
        _require_bytes(self.name, x, weight)
        return (TensorType(DType.I32, self.real.output_shape(x, weight)),)

    def exact(
        self,
        types: Sequence[TensorType],
        x: np.ndarray,
        weight: np.ndarray,
        x_zero: np.ndarray,
        weight_zero: np.ndarray,
    ) -> np.ndarray:
        # Exact in float64, as above.
        per_channel = weight_zero.reshape(-1, *[1] * (weight.ndim - 1))
        left = torch.from_numpy(x.astype(np.float64) - x_zero)
        right = torch.from_numpy(weight.astype(np.float64) - per_channel)
        return _as_int32(self.real.run(left, right).numpy())

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return self.real.cost(inputs[:2], outputs)


def _as_int32(sums: np.ndarray) -> np.ndarray:
    """Exact integers held as float64, modulo 2**32."""
    return sums.astype(np.int64).astype(np.int32)
