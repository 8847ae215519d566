"""Read images at coordinates known only at run time. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..isa import Isa
from .base import Arg, KernelSpec
from .strided import Loops, Strides, dense_strides, plan_loops


@dataclass(frozen=True)
class GridSpec(KernelSpec):
    """``out[n, c, i, j]``: the float32 image ``x[n, c]`` at ``grid[n, i, j] = (column, row)``, from -1 to 1.

    `shape` is (N, C, H, W) of x, `outputs` (I, J). With `corners` -1 and 1 are the centers of the corner elements, else
    their outer edges. ``linear`` weighs four neighbours, in the order of rows; ``nearest`` rounds halves to even.
    Coordinates outside read 0 (``zeros``) or the nearest edge (``border``), or are mirrored first (``reflection``);
    those that are no numbers read the first element of their axis, or 0. Strides are in elements, contiguous when None.
    """

    shape: tuple[int, int, int, int]
    outputs: tuple[int, int]
    mode: Literal["linear", "nearest"] = "linear"
    padding: Literal["zeros", "border", "reflection"] = "zeros"
    corners: bool = False
    x_strides: Strides | None = None
    grid_strides: Strides | None = None
    out_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("x", "float32", "in"), Arg("grid", "float32", "in"), Arg("out", "float32", "out"))

    @property
    def x_steps(self) -> Strides:
        """The distances between elements of x along each axis."""
        return self.x_strides or dense_strides(self.shape)

    @property
    def coordinate_step(self) -> int:
        """The distance between the two coordinates of a place."""
        return self.grid_strides[3] if self.grid_strides else 1

    @property
    def loops(self) -> Loops:
        """Operands x, grid and out."""
        batch, channels, *_ = self.shape
        shape = (batch, channels, *self.outputs)
        grid = self.grid_strides or dense_strides((batch, *self.outputs, 2))
        x = (*self.x_steps[:2], 0, 0)
        return plan_loops(shape, x, (grid[0], 0, grid[1], grid[2]), self.out_strides or dense_strides(shape))

    def tasks(self, isa: Isa) -> int:
        return self.loops.tasks
