"""Pick rows along an axis by indices known only at run time, or constant. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..isa import Isa
from .base import Arg, KernelSpec

#: Elements that one task copies, at least.
TASK = 4096


@dataclass(frozen=True)
class GatherSpec(KernelSpec):
    """``out[o, i] = x[o, indices[i]]``: rows of `inner` contiguous elements of 1, 2, 4 or 8 bytes.

    `outer` x `size` rows in x, `outer` x `count` rows in out; strides are in elements, contiguous when None. A negative
    index counts from the end; one outside the axis is taken as the nearest inside.
    """

    element: int
    outer: int
    size: int
    count: int
    inner: int
    index: Literal["int32", "int64"] = "int64"
    x_strides: tuple[int, int] | None = None
    out_strides: tuple[int, int] | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        dtype = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}[self.element]
        return (Arg("x", dtype, "in"), Arg("indices", self.index, "in"), Arg("out", dtype, "out"))

    @property
    def rows(self) -> int:
        """Rows that one task copies."""
        return max(1, TASK // self.inner)

    def tasks(self, isa: Isa) -> int:
        return -(-self.outer * self.count // self.rows)
