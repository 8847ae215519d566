"""Sums, means and extremes of float32 over any axes, in an order that no vector width changes. No tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..isa import Isa
from .base import Arg, KernelSpec
from .strided import Loops, Strides, dense_strides, plan_loops

ReduceOp = Literal["sum", "mean", "max", "min"]
#: Virtual lanes of a sum over contiguous elements: element i belongs to lane i modulo this.
LANES = 16


@dataclass(frozen=True)
class FloatReduceSpec(KernelSpec):
    """Reduce a float32 tensor of `shape` over `axes`; strides are in elements, contiguous when None.

    `out_strides` has one stride for each axis that is kept. Elements are taken in order of their place in memory. Where
    the summed elements are contiguous and the results are not, sixteen lanes are summed by themselves and then halved
    (lane i with i + 8, i + 4...); else each result is one sequential sum. ``mean`` divides by the count; ``max`` and
    ``min`` pass NaN on.
    """

    op: ReduceOp
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    x_strides: Strides | None = None
    out_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("x", "float32", "in"), Arg("out", "float32", "out"))

    @property
    def count(self) -> int:
        """Elements of one result."""
        return math.prod(self.shape[axis] for axis in self.axes)

    @property
    def kept(self) -> Loops:
        """The loops over the results: operands x and out."""
        axes = [axis for axis in range(len(self.shape)) if axis not in self.axes]
        shape = tuple(self.shape[axis] for axis in axes)
        strides = self.x_strides or dense_strides(self.shape)
        return plan_loops(shape, tuple(strides[axis] for axis in axes), self.out_strides or dense_strides(shape))

    @property
    def reduced(self) -> Loops:
        """The loops over the elements of one result: operand x."""
        strides = self.x_strides or dense_strides(self.shape)
        return plan_loops(tuple(self.shape[axis] for axis in self.axes), tuple(strides[axis] for axis in self.axes))

    @property
    def along(self) -> bool:
        """Whether the lanes of a vector belong to one result."""
        return self.kept.one_by_one and self.reduced.inner_strides == (1,) and self.reduced.inner >= LANES

    def tasks(self, isa: Isa) -> int:
        return self.kept.tasks

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * LANES}
