"""Reductions over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..channels import Flow, operand, result, same, sized
from ..op import Cost, Op, Quantization, register_op
from ..types import DType, TensorType, normalize_axis


@dataclass(frozen=True)
class Reduction(Op):
    """Over ``axes`` (normalized, ascending), which stay as size 1 when ``keep`` is set."""

    axes: tuple[int, ...]
    keep: bool = False

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        axes = {normalize_axis(axis, x.rank) for axis in self.axes}
        if self.keep:
            return (TensorType(x.dtype, tuple(1 if i in axes else d for i, d in enumerate(x.shape))),)
        return (TensorType(x.dtype, tuple(d for i, d in enumerate(x.shape) if i not in axes)),)

    def fill_if_empty(self, x: torch.Tensor, neutral: float) -> torch.Tensor:
        """The result over no elements."""
        return x.new_full(x.sum(self.axes, keepdim=self.keep).shape, neutral)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(elementwise=inputs[0].size)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        rank = inputs[0].rank
        gone = {axis % rank for axis in self.axes}
        left = [axis for axis in range(rank) if self.keep or axis not in gone]
        ties = [same(operand(0, i), result(left.index(i)), n) for i, n in sized(inputs[0].shape) if i not in gone]
        return Flow(tuple(ties), reason=f"{self.name} runs over it")


@register_op
@dataclass(frozen=True)
class ReduceMean(Reduction):
    """Arithmetic mean. Over all spatial axes it is global average pooling."""

    name: ClassVar[str] = "reduce_mean"
    quantization: ClassVar[Quantization] = Quantization.AVERAGE

    def run(self, x: torch.Tensor) -> torch.Tensor:
        if not self.axes:
            return x
        mean = x.mean(self.axes, keepdim=self.keep, dtype=None if x.is_floating_point() else torch.float64)
        return mean if x.is_floating_point() else mean.trunc().to(x.dtype)


@register_op
@dataclass(frozen=True)
class ReduceSum(Reduction):
    """Sum."""

    name: ClassVar[str] = "reduce_sum"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(self.axes, keepdim=self.keep, dtype=x.dtype) if self.axes else x


@register_op
@dataclass(frozen=True)
class ReduceMax(Reduction):
    """Largest element; the smallest possible one where there is none."""

    name: ClassVar[str] = "reduce_max"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        if not self.axes:
            return x
        lowest = float("-inf") if x.is_floating_point() else torch.iinfo(x.dtype).min
        return self.fill_if_empty(x, lowest) if not x.numel() else x.amax(self.axes, keepdim=self.keep)


@register_op
@dataclass(frozen=True)
class ReduceMin(Reduction):
    """Smallest element; the largest possible one where there is none."""

    name: ClassVar[str] = "reduce_min"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        if not self.axes:
            return x
        highest = float("inf") if x.is_floating_point() else torch.iinfo(x.dtype).max
        return self.fill_if_empty(x, highest) if not x.numel() else x.amin(self.axes, keepdim=self.keep)


@register_op
@dataclass(frozen=True)
class ReduceProd(Reduction):
    """Product."""

    name: ClassVar[str] = "reduce_prod"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        for axis in sorted(self.axes, reverse=True):
            x = x.prod(axis, keepdim=self.keep, dtype=x.dtype)
        return x


@dataclass(frozen=True)
class ArgReduction(Op):
    """Index (i64) of an extreme element along ``axis``; the first one, or the last when ``last`` is set."""

    axis: int
    keep: bool = False
    last: bool = False

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        axis = normalize_axis(self.axis, x.rank)
        tail = x.shape[axis + 1 :]
        return (TensorType(DType.I64, (*x.shape[:axis], 1, *tail) if self.keep else (*x.shape[:axis], *tail)),)

    def pick(self, x: torch.Tensor, largest: bool) -> torch.Tensor:
        if self.last:
            x = x.flip(self.axis)
        # argmax of a comparison with the extreme finds the first place, which torch.argmax does not promise.
        extreme = x.amax(self.axis, keepdim=True) if largest else x.amin(self.axis, keepdim=True)
        first = (x == extreme).to(torch.int8).argmax(self.axis, keepdim=self.keep)
        return x.shape[self.axis] - 1 - first if self.last else first


@register_op
@dataclass(frozen=True)
class ArgMax(ArgReduction):
    """Where the largest element is."""

    name: ClassVar[str] = "argmax"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return self.pick(x, largest=True)


@register_op
@dataclass(frozen=True)
class ArgMin(ArgReduction):
    """Where the smallest element is."""

    name: ClassVar[str] = "argmin"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return self.pick(x, largest=False)


@register_op
@dataclass(frozen=True)
class ReduceLogSumExp(Reduction):
    """log(sum(exp(x)))."""

    name: ClassVar[str] = "reduce_log_sum_exp"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.logsumexp(x, self.axes, keepdim=self.keep) if self.axes else x
