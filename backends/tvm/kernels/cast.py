"""Convert elements between number types over strided tensors. No tvm."""

from __future__ import annotations

from dataclasses import dataclass

from ..isa import Isa
from .base import Arg, KernelSpec
from .strided import Loops, Strides, dense_strides, plan_loops


@dataclass(frozen=True)
class CastSpec(KernelSpec):
    """Element i of `out`, of type `target`, is element i of `x`, of type `source`, as the same number.

    Floats truncate toward zero into integers, to the nearest one inside their range; NaN becomes 0. ``bool`` is one
    byte, 1 for everything but 0. Strides are in elements, contiguous when None.
    """

    source: str
    target: str
    shape: tuple[int, ...]
    x_strides: Strides | None = None
    out_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("x", _stored(self.source), "in"), Arg("out", _stored(self.target), "out"))

    @property
    def loops(self) -> Loops:
        dense = dense_strides(self.shape)
        return plan_loops(self.shape, self.x_strides or dense, self.out_strides or dense)

    def tasks(self, isa: Isa) -> int:
        return self.loops.tasks


def _stored(dtype: str) -> str:
    return "uint8" if dtype == "bool" else dtype
