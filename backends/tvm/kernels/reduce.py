"""Means of bytes over any axes: the exact int32 sum times one factor. No tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec
from .epilogue import PARAM_WORDS, pack_params
from .strided import Loops, Strides, dense_strides, plan_loops

#: Words of `params` after those of the epilogue: what the zero points of all elements sum to, and the float32 factor.
SHIFT, FACTOR = PARAM_WORDS, PARAM_WORDS + 1
REDUCE_WORDS = PARAM_WORDS + 16


@dataclass(frozen=True)
class ReduceMeanSpec(KernelSpec):
    """The mean of a tensor of `shape` over `axes`; strides are in elements, contiguous when None.

    `out_strides` has one stride for each axis that is kept. ``t = f32(sum(x - zx)) * m``, then
    ``y = int(rint(clamp(t, lo, hi))) + zp``, or t itself for ``out="f32"``. `pack` takes multiplier (float32, 0-d,
    which contains the count), x_zero_point (stored domain) and for bytes zero_point and optionally lo, hi.
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    x_strides: Strides | None = None
    out_strides: Strides | None = None
    out: Literal["byte", "f32"] = "byte"

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "act", "in"),
            Arg("params", "int32", "const"),
            Arg("out", "act" if self.out == "byte" else "float32", "out"),
        )

    @property
    def count(self) -> int:
        """Elements of one mean."""
        return math.prod(self.shape[axis] for axis in self.axes)

    @property
    def kept(self) -> Loops:
        """The loops over the results: operands x and out."""
        axes = [axis for axis in range(len(self.shape)) if axis not in self.axes]
        shape = tuple(self.shape[axis] for axis in axes)
        strides = self.x_strides or dense_strides(self.shape)
        return plan_loops(shape, tuple(strides[axis] for axis in axes), self.out_strides or dense_strides(shape))

    @property
    def summed(self) -> Loops:
        """The loops over the elements of one mean: operand x."""
        strides = self.x_strides or dense_strides(self.shape)
        return plan_loops(tuple(self.shape[axis] for axis in self.axes), tuple(strides[axis] for axis in self.axes))

    def tasks(self, isa: Isa) -> int:
        return self.kept.tasks

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        words = np.zeros(REDUCE_WORDS, "int32")
        if self.out == "byte":
            words[:PARAM_WORDS] = pack_params(isa, arrays)
        words[SHIFT] = self.count * int(arrays["x_zero_point"])
        words.view("float32")[FACTOR] = arrays["multiplier"]
        return {"params": words}

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * isa.lanes}
