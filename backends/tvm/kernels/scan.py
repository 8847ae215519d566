"""Running and final sums, products and extremes along one axis, one element after the other. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..isa import Isa
from .base import Arg, KernelSpec
from .pointwise import stored_dtype
from .strided import Loops, Strides, dense_strides, plan_loops

ScanOp = Literal["sum", "prod", "max", "min"]


@dataclass(frozen=True)
class ScanSpec(KernelSpec):
    """Along `axis` of a tensor of `shape`, each element combined with all before it; or all, without `running`.

    `exclusive` leaves the element itself out; `reverse` begins at the end. Sums and products of float32 are kept in
    float64, and rounded when stored. Integers wrap around; of truth values (bytes), the sum and the largest are
    their disjunction. Strides are in elements, contiguous when None; without `running`, `out_strides` has none for
    the axis.
    """

    op: ScanOp
    dtype: str
    shape: tuple[int, ...]
    axis: int
    running: bool = True
    exclusive: bool = False
    reverse: bool = False
    x_strides: Strides | None = None
    out_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        kind = stored_dtype(self.dtype)
        return (Arg("x", kind, "in"), Arg("out", kind, "out"))

    @property
    def steps(self) -> tuple[int, int]:
        """The distances between neighbours along the axis, in x and out."""
        return self._strides()[0][self.axis], self._strides()[1][self.axis] if self.running else 0

    @property
    def rows(self) -> Loops:
        """The loops over all but the axis: operands x and out."""
        others = [axis for axis in range(len(self.shape)) if axis != self.axis]
        x, out = self._strides()
        shape = tuple(self.shape[axis] for axis in others)
        target = tuple(out[axis] for axis in others) if self.running else out
        return plan_loops(shape, tuple(x[axis] for axis in others), target)

    def _strides(self) -> tuple[Strides, Strides]:
        kept = self.shape if self.running else (*self.shape[: self.axis], *self.shape[self.axis + 1 :])
        return self.x_strides or dense_strides(self.shape), self.out_strides or dense_strides(kept)

    def tasks(self, isa: Isa) -> int:
        return self.rows.tasks
