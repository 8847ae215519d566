"""Running sums and products, and the elements that come first in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import ModelError
from ..op import Op, register_op
from ..types import DType, TensorType, normalize_axis


@dataclass(frozen=True)
class Cumulative(Op):
    """Each element combined with all before it along ``axis``.

    ``exclusive`` leaves the element itself out; ``reverse`` starts from the end.
    """

    axis: int
    exclusive: bool = False
    reverse: bool = False

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        normalize_axis(self.axis, x.rank)
        return (x.with_quant(None),)

    def accumulate(self, x: torch.Tensor, neutral: int) -> torch.Tensor:
        axis = self.axis % x.ndim
        if self.reverse:
            x = x.flip(axis)
        if self.exclusive:
            first = torch.full_like(x.narrow(axis, 0, 1), neutral)
            x = torch.cat([first, x.narrow(axis, 0, x.shape[axis] - 1)], axis)
        y = (torch.cumprod if neutral else torch.cumsum)(x, axis, dtype=x.dtype)
        return y.flip(axis) if self.reverse else y


@register_op
@dataclass(frozen=True)
class CumSum(Cumulative):
    """Running sum."""

    name: ClassVar[str] = "cumsum"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return self.accumulate(x, 0)


@register_op
@dataclass(frozen=True)
class CumProd(Cumulative):
    """Running product."""

    name: ClassVar[str] = "cumprod"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return self.accumulate(x, 1)


@register_op
@dataclass(frozen=True)
class TopK(Op):
    """The ``count`` largest (or smallest) elements along ``axis``, best first, and their indices (i64).

    Among equal elements the one with the lower index comes first.
    """

    count: int
    axis: int
    largest: bool = True

    name: ClassVar[str] = "topk"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        axis = normalize_axis(self.axis, x.rank)
        extent = x.shape[axis]
        if isinstance(extent, int) and not 0 <= self.count <= extent:
            raise ModelError(f"topk of {self.count} among {extent} elements")
        shape = (*x.shape[:axis], self.count, *x.shape[axis + 1 :])
        return x.with_shape(shape), TensorType(DType.I64, shape)

    def run(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values, indices = torch.sort(x, dim=self.axis, descending=self.largest, stable=True)
        return values.narrow(self.axis, 0, self.count), indices.narrow(self.axis, 0, self.count)
