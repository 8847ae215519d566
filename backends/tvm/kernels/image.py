"""Pixels to stored activations: normalized, quantized and laid out in one step. No tvm.

`staircase` says why this arithmetic, of few instructions, gives what `qimage` is defined as.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec
from .epilogue import pack_params
from .strided import Loops, dense_strides, plan_loops

#: Elements that every level loads at once.
UNIT = 16
#: What `pack` takes for each channel, by kind of arithmetic.
BY_CHANNEL = {
    "line": ("factor", "shift"),
    "steps": ("mean", "std_high", "std_low"),
    "short-steps": ("mean", "std_high"),
}
#: Words of the constant `common`.
SCALE_HIGH, SCALE_LOW, GRID_HIGH, GRID_LOW = range(4)

Arithmetic = Literal["line", "steps", "short-steps"]


@dataclass(frozen=True)
class ImageSpec(KernelSpec):
    """Dense pixels uint8[batch, height, width, channels] to bytes of the same order, dense along each row of pixels.

    - ``line``: ``y = int(rint(fma(x, factor, shift))) + zp``
    - ``steps``: ``y = int(rint(((x / scale - mean) / std) / grid)) + zp``, where a quotient is a product with the two
      float32 whose sum is the reciprocal: ``fma(x, high, f32(x * low))``
    - ``short-steps``: the same where every std is a power of two, so that low is 0

    and all saturate. `batch_stride` and `row_stride` are the output's, in elements. `pack` takes zero_point in the
    stored domain; factor and shift, float32[channels]; or mean, std_high and std_low, float32[channels or 1], and
    common: float32[4], the reciprocals of scale and grid.
    """

    batch: int
    height: int
    width: int
    channels: int
    batch_stride: int
    row_stride: int
    by: Arithmetic = "line"

    @property
    def args(self) -> tuple[Arg, ...]:
        names = (*BY_CHANNEL[self.by], *(["common"] if self.by != "line" else []))
        constants = (Arg(name, "float32", "const") for name in names)
        return (Arg("x", "uint8", "in"), *constants, Arg("params", "int32", "const"), Arg("out", "act", "out"))

    @property
    def loops(self) -> Loops:
        shape = (self.batch, self.height, self.width * self.channels)
        return plan_loops(shape, dense_strides(shape), (self.batch_stride, self.row_stride, 1))

    def tasks(self, isa: Isa) -> int:
        return self.loops.tasks

    def patterns(self, isa: Isa) -> int:
        """Vectors until the channels of their lanes repeat."""
        return math.lcm(self.channels, isa.lanes) // isa.lanes

    def step(self, isa: Isa) -> int:
        """Elements of a block: whole pixels, whole patterns, and best a multiple of the four vectors that narrow."""
        unit = math.lcm(self.channels, UNIT)
        return max(1, min(math.lcm(unit, 4 * isa.lanes), self.loops.inner) // unit) * unit

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        lanes, pixels = self.patterns(isa) * isa.lanes, (self.patterns(isa) * isa.lanes // self.channels, self.channels)
        packed = {
            name: np.broadcast_to(arrays[name].astype("float32"), pixels).reshape(lanes) for name in BY_CHANNEL[self.by]
        }
        if self.by != "line":
            packed["common"] = arrays["common"].astype("float32")
        return {**packed, "params": pack_params(isa, {"zero_point": arrays["zero_point"]})}

    def over_read(self, isa: Isa) -> dict[str, int]:
        """Nothing where it matters: an image is a user's memory, and would have to be copied first."""
        return {"x": UNIT} if self.loops.inner < self.step(isa) else {}
