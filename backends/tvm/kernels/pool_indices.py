"""Where the largest element of each window is. No tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..isa import Isa
from .base import Arg, KernelSpec
from .strided import Loops, Strides, dense_strides, plan_loops


@dataclass(frozen=True)
class PoolIndicesSpec(KernelSpec):
    """The int64 index of the first largest float32 element of each window, in the flattened tensor (N, C, *spatial).

    `shape` is that of x, `outputs` are the spatial sizes of the result, `before` is the padding, which is never
    chosen, in front of each axis; a NaN is larger than everything. Each window must hold an element.
    `column_major` flattens the spatial axes the other way round. Strides are in elements, contiguous when None.
    """

    shape: tuple[int, ...]
    outputs: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    before: tuple[int, ...]
    dilation: tuple[int, ...]
    column_major: bool = False
    x_strides: Strides | None = None
    out_strides: Strides | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("x", "float32", "in"), Arg("out", "int64", "out"))

    @property
    def spatial(self) -> Strides:
        """The distances between spatial neighbours in x."""
        return (self.x_strides or dense_strides(self.shape))[2:]

    @property
    def weights(self) -> Strides:
        """What one step along each spatial axis adds to the index."""
        sizes = self.shape[2:]
        if self.column_major:
            return tuple(math.prod(sizes[:axis]) for axis in range(len(sizes)))
        return dense_strides(sizes)

    @property
    def loops(self) -> Loops:
        """Operands: the image in x, its number, the coordinate of the window along each spatial axis, out."""
        batch, channels, *_ = self.shape
        strides = self.x_strides or dense_strides(self.shape)
        shape = (batch, channels, *self.outputs)
        count = len(self.outputs)
        still = (0,) * count
        places = [tuple(int(axis == other) for other in range(count)) for axis in range(count)]
        rows = [(*strides[:2], *still), (channels, 1, *still), *((0, 0, *place) for place in places)]
        return plan_loops(shape, *rows, self.out_strides or dense_strides(shape))

    def tasks(self, isa: Isa) -> int:
        return self.loops.tasks
