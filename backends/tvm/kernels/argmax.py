"""Where the largest or smallest element along an axis is. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..isa import Isa
from .base import Arg, KernelSpec
from .strided import Loops, Strides, dense_strides, plan_loops


@dataclass(frozen=True)
class ArgMaxSpec(KernelSpec):
    """The int64 index of the largest (or `smallest`) element along `axis`: the first one, or the `last`.

    Strides are in elements, contiguous when None; `out_strides` has one for each axis but that one. A NaN is neither
    larger nor smaller than anything.
    """

    shape: tuple[int, ...]
    axis: int
    dtype: Literal["act", "float32", "int32", "int64"] = "act"
    smallest: bool = False
    last: bool = False
    x_strides: Strides | None = None
    out_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("x", self.dtype, "in"), Arg("out", "int64", "out"))

    @property
    def step(self) -> int:
        """The distance between neighbours along the axis."""
        return (self.x_strides or dense_strides(self.shape))[self.axis]

    @property
    def rows(self) -> Loops:
        """The loops over results: operands x and out."""
        others = [axis for axis in range(len(self.shape)) if axis != self.axis % len(self.shape)]
        strides = self.x_strides or dense_strides(self.shape)
        shape = tuple(self.shape[axis] for axis in others)
        return plan_loops(shape, tuple(strides[axis] for axis in others), self.out_strides or dense_strides(shape))

    def tasks(self, isa: Isa) -> int:
        return self.rows.tasks
