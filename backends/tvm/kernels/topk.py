"""The elements that come first in order along an axis. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..isa import Isa
from .base import Arg, KernelSpec
from .strided import Loops, Strides, dense_strides, plan_loops


@dataclass(frozen=True)
class TopKSpec(KernelSpec):
    """The `count` largest (or `smallest`) elements along `axis`, best first, and their int64 indices.

    Of equal elements the one with the lower index comes first; a NaN counts as larger than everything. Strides are
    in elements, contiguous when None.
    """

    dtype: Literal["float32", "int32", "int64"]
    shape: tuple[int, ...]
    axis: int
    count: int
    smallest: bool = False
    x_strides: Strides | None = None
    value_strides: Strides | None = None
    index_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", self.dtype, "in"),
            Arg("order", "int32", "scratch", 2 * 4 * self.size),
            Arg("values", self.dtype, "out"),
            Arg("indices", "int64", "out"),
        )

    @property
    def size(self) -> int:
        """Elements of one line."""
        return self.shape[self.axis]

    @property
    def steps(self) -> tuple[int, ...]:
        """The distances between neighbours along the axis, in x, values and indices."""
        return tuple(strides[self.axis] for strides in self._strides())

    @property
    def rows(self) -> Loops:
        """The loops over lines: operands x, values and indices."""
        others = [axis for axis in range(len(self.shape)) if axis != self.axis]
        rows = (tuple(strides[axis] for axis in others) for strides in self._strides())
        return plan_loops(tuple(self.shape[axis] for axis in others), *rows)

    def _strides(self) -> tuple[Strides, Strides, Strides]:
        result = (*self.shape[: self.axis], self.count, *self.shape[self.axis + 1 :])
        dense = dense_strides(result)
        return self.x_strides or dense_strides(self.shape), self.value_strides or dense, self.index_strides or dense

    def tasks(self, isa: Isa) -> int:
        return self.rows.tasks
