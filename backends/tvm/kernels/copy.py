"""Copy elements from one strided tensor to another: slices, concatenation parts, padding, transposition. No tvm."""

from __future__ import annotations

from dataclasses import dataclass

from ..isa import Isa
from .base import Arg, KernelSpec
from .strided import Loops, Strides, dense_strides, plan_loops

_DTYPES = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}


@dataclass(frozen=True)
class CopySpec(KernelSpec):
    """Element i of `out` becomes element i of `x`, for all multi-indices i inside `shape` (any rank).

    `element` is 1, 2, 4 or 8 bytes; strides are in elements, contiguous when None. Transposing is a matter of strides:
    NCHW to NHWC is shape (N, H, W, C) with x_strides (C H W, W, 1, H W).
    """

    element: int
    shape: tuple[int, ...]
    x_strides: Strides | None = None
    out_strides: Strides | None = None

    @staticmethod
    def permuted(element: int, shape: tuple[int, ...], order: tuple[int, ...]) -> CopySpec:
        """Transpose a contiguous tensor of `shape`: axis i of the contiguous output is axis order[i] of x."""
        strides = dense_strides(shape)
        return CopySpec(element, tuple(shape[axis] for axis in order), tuple(strides[axis] for axis in order))

    @property
    def dtype(self) -> str:
        """The type that elements travel as; signedness means nothing."""
        return _DTYPES[self.element]

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("x", self.dtype, "in"), Arg("out", self.dtype, "out"))

    @property
    def loops(self) -> Loops:
        dense = dense_strides(self.shape)
        return plan_loops(self.shape, self.x_strides or dense, self.out_strides or dense)

    @property
    def transposed_axis(self) -> int | None:
        """The axis along which x is contiguous, if it is not the one along which `out` is, and both are long enough."""
        loops, tile = self.loops, 16 // self.element
        if loops.inner_strides == (1, 1) or loops.inner_strides[1] != 1 or loops.inner < tile:
            return None
        for axis in range(len(loops.shape) - 1):
            if loops.strides[0][axis] == 1 and loops.shape[axis] >= tile:
                return axis
        return None

    def tasks(self, isa: Isa) -> int:
        loops, axis = self.loops, self.transposed_axis
        if axis is None:
            return loops.tasks
        tile = 16 // self.element
        tasks = -(-loops.shape[axis] // tile)
        for other, size in enumerate(loops.shape[:-1]):
            if other != axis:
                tasks *= size
        return tasks
