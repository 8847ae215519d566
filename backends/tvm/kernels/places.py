"""Read or write single elements at places that indices tell, known only at run time. No tvm."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ..isa import Isa
from .base import Arg, KernelSpec
from .pointwise import stored_dtype
from .strided import Loops, Strides, dense_strides, plan_loops

PlaceOp = Literal["read", "write", "add", "mul", "min", "max"]


@dataclass(frozen=True)
class PlacesSpec(KernelSpec):
    """``part[i] = whole[place(i)]`` for every index i of `shape`; to write, ``whole[place(i)] = part[i]``.

    ``place(i)`` is ``sum(i * whole_strides)`` plus, for each of the `limits`, an index times its step: indices lie at
    ``sum(i * index_strides) + number * component``. A negative index counts from the end; one outside its limit is
    taken as the nearest inside. Other operations than read and write combine with the element that is there. Writes
    come in row-major order, so of several to one place the last one stays; they are one task. Booleans are bytes.
    Strides are in elements, of the part contiguous when None.
    """

    op: PlaceOp
    dtype: str
    shape: tuple[int, ...]
    whole_strides: Strides
    limits: tuple[int, ...]
    steps: tuple[int, ...]
    index_strides: Strides
    component: int = 1
    index: Literal["int32", "int64"] = "int64"
    part_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        kind = stored_dtype(self.dtype)
        reads = self.op == "read"
        whole = Arg("whole", kind, "in" if reads else "out")
        part = Arg("part", kind, "out" if reads else "in")
        return (whole, Arg("indices", self.index, "in"), part)

    @property
    def loops(self) -> Loops:
        """Operands whole, indices and part."""
        part = self.part_strides or dense_strides(self.shape)
        if self.op == "read":
            return plan_loops(self.shape, self.whole_strides, self.index_strides, part)
        # Loops are ordered by their last operand: here by the order of writing.
        order = dense_strides(self.shape)
        loops = plan_loops(self.shape, self.whole_strides, self.index_strides, part, order)
        return replace(loops, strides=loops.strides[:3], task_axes=0, runs=1)

    def tasks(self, isa: Isa) -> int:
        return self.loops.tasks
