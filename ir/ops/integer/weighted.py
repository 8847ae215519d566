"""Sums of products on int8: convolutions, linear layers, matrix products of activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...op import Cost, Quantization, register_op
from ...types import QuantParams, TensorType
from ..conv import Conv, ConvTranspose, Padding
from ..matmul import Linear, MatMul
from .products import integer_conv, integer_conv_transpose, integer_matmul
from .rounding import IntegerOp, accumulator, centered, multiplier, quant_of, require_quantized, store


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
