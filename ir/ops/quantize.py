"""Quantization before the freeze: observers and fake quantization; and the plain quantize / dequantize of ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional as F

from ..channels import Flow, alike, broadcast, operand, result, same, sized
from ..errors import ModelError
from ..op import ExactOp, Op, Quantization, Stage, register_op
from ..types import DType, QuantParams, TensorType


@register_op
@dataclass(frozen=True)
class Observer(Op):
    """Passes its input on and marks it for calibration; ``bounds`` (low, high) is the range found, if any yet.

    ``key`` names the range in range files: the user's name of the value.
    """

    key: str
    method: str = "minmax"
    symmetric: bool = False
    bounds: tuple[float, float] | None = None

    name: ClassVar[str] = "observer"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    stage: ClassVar[Stage] = Stage.FLOAT
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (x,)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])


class _Round(torch.autograd.Function):
    """To the nearest level and back, with the straight-through gradient of Bengio et al. (2013).

    The gradient of ``scale`` is that of Esser et al., "Learned Step Size Quantization" (ICLR 2020). In training, most
    time outside of convolutions goes by here, so the passes over memory are few.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, scale: torch.Tensor, low: torch.Tensor, high: torch.Tensor, step: int
    ) -> torch.Tensor:
        first, last = low - step / 2, high + step / 2
        # The precision of the scale is that of the grid, also where products are of less (autocast); and infinity
        # would be NaN in the gradient of the scale.
        grid = _clamp(x.to(scale.dtype) / scale, first, last)
        levels = _clamp(grid, low, high)
        if step == 1:
            levels.round_()
        else:
            levels = low + step * torch.round((levels - low) / step)
        y = levels.mul_(scale)
        ctx.save_for_backward(grid, y, scale, first, last)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        grid, y, scale, first, last = ctx.saved_tensors
        if first.numel() == 1:
            # As where() below, in one pass.
            inside = torch.ops.aten.hardtanh_backward(gradient, grid, first.item(), last.item())
        else:
            inside = torch.where((first < grid) & (grid < last), gradient, 0.0)
        of_scale = None
        if ctx.needs_input_grad[1]:
            of_scale = _dot(gradient, y, scale) / scale - _dot(inside, grid, scale)
        return inside, of_scale, None, None, None


def _clamp(x: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """torch.clamp, ten times as slow with tensors as bounds as this is with numbers."""
    return F.hardtanh(x, low.item(), high.item()) if low.numel() == 1 else torch.clamp(x, low, high)


def _dot(a: torch.Tensor, b: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The sum of products, over all axes that ``like`` has not."""
    if like.numel() > 1:
        return (a * b).sum_to_size(like.shape)
    order = sorted(range(a.ndim), key=a.stride, reverse=True)  # so that the elements of most layouts are one row
    return torch.dot(a.permute(order).reshape(-1), b.permute(order).reshape(-1)).reshape(like.shape)


@register_op
@dataclass(frozen=True)
class FakeQuantize(Op):
    """Rounds to the grid of a quantized type and back, in float.

    ``scale`` (f32) and ``zero_point`` (f32, integer-valued) are operands, of shape () or one per index of ``axis``,
    so that training can change them. Gradients pass straight through inside the range.

    The grid holds every ``step``-th integer from ``low``: -1 and 1, of step 2, are binary weights (Courbariaux et al.,
    "BinaryConnect", 2015). The range ends half a step beyond the outermost levels: what rounds to one of them without
    being far out still learns, such as the largest weight of each channel, and about half of all binary weights.
    """

    low: int = -128
    high: int = 127
    axis: int | None = None
    step: int = 1

    name: ClassVar[str] = "fake_quantize"
    operands: ClassVar[tuple[str, ...]] = ("x", "scale", "zero_point")
    stage: ClassVar[Stage] = Stage.FLOAT
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def infer(self, x: TensorType, scale: TensorType, zero_point: TensorType) -> tuple[TensorType, ...]:
        expected = () if self.axis is None else (x.shape[self.axis],)
        if scale.shape != expected or zero_point.shape != expected:
            raise ModelError(
                f"fake_quantize with scale {list(scale.shape)} and zero point {list(zero_point.shape)}",
                expected=f"shape {list(expected)}",
            )
        return (x,)

    def run(self, x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> torch.Tensor:
        if self.axis is not None:
            shape = [1] * x.ndim
            shape[self.axis] = -1
            scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
        return _Round.apply(x, scale, self.low - zero_point, self.high - zero_point, self.step)  # type: ignore[no-any-return, no-untyped-call]

    def stored(self, x: np.ndarray, scale: np.ndarray, zero_point: np.ndarray) -> np.ndarray:
        """The integers (int8) that ``x`` (f32) is rounded to; scale (f32) and zero point broadcast against it."""
        low, high = (np.asarray(bound - zero_point, np.float32) for bound in (self.low, self.high))
        grid = np.clip(x / scale, low, high)
        rounded = np.rint(grid) if self.step == 1 else low + self.step * np.rint((grid - low) / self.step)
        return np.asarray(rounded + zero_point, np.int8)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        ties = list(alike(operand(0, 0), result(0), outputs[0].shape))
        for position in (1, 2):
            ties += [same(operand(position, 0), result(self.axis or 0), n) for _, n in sized(inputs[position].shape)]
        return Flow(tuple(ties))


@register_op
@dataclass(frozen=True)
class Quantize(Op, ExactOp):
    """``clamp(rint(x / scale), low - zp, high - zp) + zp`` into an integer type that carries the parameters."""

    dtype: DType
    quant: QuantParams

    name: ClassVar[str] = "quantize"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (TensorType(self.dtype, x.shape, self.quant),)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        scale, zero = broadcast_params(self.quant, x.ndim)
        low, high = integer_range(self.dtype)
        with np.errstate(over="ignore"):  # a mask of -3e38 may well become minus infinity
            grid = np.asarray(x, np.float32) / scale
        # NaN quantizes to the zero point on every target.
        grid = np.nan_to_num(np.rint(np.clip(grid, low - zero, high - zero)), nan=0.0)
        return np.asarray(grid.astype(np.int64) + zero, self.dtype.numpy)


@register_op
@dataclass(frozen=True)
class Dequantize(Op, ExactOp):
    """``(x - zero point) * scale`` in float32, with the parameters in the type of ``x``."""

    name: ClassVar[str] = "dequantize"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if x.quant is None:
            raise ModelError(f"dequantize of {x}", expected="a quantized type")
        return (x.with_dtype(DType.F32),)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        quant = types[0].quant
        assert quant is not None
        return dequantize_array(x, quant)


def dequantize_array(x: np.ndarray, quant: QuantParams) -> np.ndarray:
    """The real numbers that stored integers mean, float32."""
    scale, zero = broadcast_params(quant, x.ndim)
    return np.asarray((x.astype(np.int64) - zero).astype(np.float32) * scale)


def broadcast_params(quant: QuantParams, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Scale (f32) and zero point (i64), shaped to broadcast against a tensor of that rank."""
    shape = [1] * rank
    if quant.axis is not None:
        shape[quant.axis] = -1
    return quant.scale_array().reshape(shape), quant.zero_point_array().astype(np.int64).reshape(shape)


def integer_range(dtype: DType) -> tuple[int, int]:
    """Smallest and largest stored value."""
    info = np.iinfo(dtype.numpy)  # type: ignore[type-var]
    return int(info.min), int(info.max)
