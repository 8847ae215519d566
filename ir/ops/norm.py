"""Normalizations: batch, layer, softmax."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..channels import Flow, alike, operand, result, same, sized
from ..errors import ModelError
from ..op import Op, Quantization, register_op
from ..types import TensorType, normalize_axis


@register_op
@dataclass(frozen=True)
class BatchNorm(Op):
    """Batch normalization at inference, channels on axis 1:

    ``(x - mean) / sqrt(variance + epsilon) * scale + bias``.
    """

    epsilon: float = 1e-5

    name: ClassVar[str] = "batch_norm"
    operands: ClassVar[tuple[str, ...]] = ("x", "scale", "bias", "mean", "variance")

    def infer(
        self, x: TensorType, scale: TensorType, bias: TensorType, mean: TensorType, variance: TensorType
    ) -> tuple[TensorType, ...]:
        for part in (scale, bias, mean, variance):
            if x.rank < 2 or part.shape != (x.shape[1],):
                raise ModelError(f"batch_norm of {x} with parameters of shape {list(part.shape)}")
        return (x.with_quant(None),)

    def run(
        self,
        x: torch.Tensor,
        scale: torch.Tensor,
        bias: torch.Tensor,
        mean: torch.Tensor,
        variance: torch.Tensor,
    ) -> torch.Tensor:
        shape = (1, -1, *[1] * (x.ndim - 2))
        factor = scale / torch.sqrt(variance + self.epsilon)
        return x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        ties = list(alike(operand(0, 0), result(0), outputs[0].shape))
        for position in range(1, len(inputs)):
            ties += [same(operand(position, 0), result(1), size) for _, size in sized(inputs[position].shape)]
        return Flow(tuple(ties))


@register_op
@dataclass(frozen=True)
class LayerNorm(Op):
    """Normalization over the last ``rank`` axes to mean 0 and variance 1, then ``* scale + bias``, shaped as those."""

    rank: int = 1
    epsilon: float = 1e-5

    name: ClassVar[str] = "layer_norm"
    operands: ClassVar[tuple[str, ...]] = ("x", "scale?", "bias?")
    quantization: ClassVar[Quantization] = Quantization.NORMALIZATION

    def infer(self, x: TensorType, *affine: TensorType) -> tuple[TensorType, ...]:
        if not 0 < self.rank <= x.rank:
            raise ModelError(f"layer_norm over {self.rank} axes of a tensor of rank {x.rank}")
        for part in affine:
            if part.shape != x.shape[x.rank - self.rank :]:
                raise ModelError(f"layer_norm of {x} with a parameter of shape {list(part.shape)}")
        return (x.with_quant(None),)

    def run(self, x: torch.Tensor, scale: torch.Tensor | None = None, bias: torch.Tensor | None = None) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, x.shape[x.ndim - self.rank :], scale, bias, self.epsilon)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        free = outputs[0].rank - self.rank
        ties = alike(operand(0, 0), result(0), outputs[0].shape, range(free))
        return Flow(ties, reason="layer_norm takes mean and variance over it")


@register_op
@dataclass(frozen=True)
class Softmax(Op):
    """exp(x - max) / sum(exp(x - max)) along ``axis``."""

    axis: int

    name: ClassVar[str] = "softmax"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.SOFTMAX

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        normalize_axis(self.axis, x.rank)
        return (x.with_quant(None),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(x, self.axis)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        free = [axis for axis in range(outputs[0].rank) if axis != self.axis % outputs[0].rank]
        return Flow(alike(operand(0, 0), result(0), outputs[0].shape, free), reason="softmax sums over it")


@register_op
@dataclass(frozen=True)
class LogSoftmax(Op):
    """x - max - log(sum(exp(x - max))) along ``axis``."""

    axis: int

    name: ClassVar[str] = "log_softmax"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        normalize_axis(self.axis, x.rank)
        return (x.with_quant(None),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log_softmax(x, self.axis)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        free = [axis for axis in range(outputs[0].rank) if axis != self.axis % outputs[0].rank]
        return Flow(alike(operand(0, 0), result(0), outputs[0].shape, free), reason="softmax sums over it")


@register_op
@dataclass(frozen=True)
class LocalResponseNorm(Op):
    """x / (bias + alpha / size * sum of squares over ``size`` neighbouring channels) ** beta (Krizhevsky et al., 2012).

    The window of an even size reaches one channel further behind than ahead.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    bias: float = 1.0

    name: ClassVar[str] = "local_response_norm"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if x.rank < 2:
            raise ModelError(f"local_response_norm of {x}", expected="channels on axis 1")
        return (x.with_quant(None),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        squares = (x * x).movedim(1, -1)
        before = (self.size - 1) // 2
        padded = torch.nn.functional.pad(squares, (before, self.size - 1 - before))
        total = padded.unfold(-1, self.size, 1).sum(-1).movedim(-1, 1)
        return x / torch.pow(self.bias + self.alpha / self.size * total, self.beta)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        free = [axis for axis in range(outputs[0].rank) if axis != 1]
        reason = "each channel is normalized by its neighbours"
        return Flow(alike(operand(0, 0), result(0), outputs[0].shape, free), reason=reason)
