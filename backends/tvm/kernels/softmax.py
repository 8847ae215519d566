"""Softmax of bytes: exponentials from a table, an exact int32 sum, one division per row. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec
from .epilogue import PARAM_WORDS, pack_params
from .lookup import lay_out
from .strided import Loops, Strides, dense_strides, plan_rows

#: Word of `params` after those of the epilogue: the float32 factor, one over the output's scale.
FACTOR = PARAM_WORDS
SOFTMAX_WORDS = PARAM_WORDS + 16
#: Bytes of an exponential: it is at most 2**23.
PLANES = 3


@dataclass(frozen=True)
class SoftmaxSpec(KernelSpec):
    """Softmax of a tensor of `shape` along `axis`; strides are in elements, contiguous when None.

    With ``e = exponentials[max - x]``: ``t = f32(e) * (1 / f32(sum e)) * factor``, every operation rounded to float32;
    then ``y = int(rint(clamp(t, lo, hi))) + zp``. For ``out="f32"``: ``f32(e) * (1 / f32(sum e))``. `pack` takes
    exponentials int32[256], and for bytes factor (float32, 0-d), zero_point and optionally lo, hi. One task is one row.
    Quick where the axis is contiguous in x and out.
    """

    shape: tuple[int, ...]
    axis: int
    x_strides: Strides | None = None
    out_strides: Strides | None = None
    out: Literal["byte", "f32"] = "byte"

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "act", "in"),
            Arg("exponentials", "int32", "const"),
            Arg("params", "int32", "const"),
            Arg("powers", "int32", "scratch", bytes=4 * self.length + 256),
            Arg("out", "act" if self.out == "byte" else "float32", "out"),
        )

    @property
    def length(self) -> int:
        """Elements of one row."""
        return self.shape[self.axis]

    @property
    def steps(self) -> tuple[int, int]:
        """The distance between neighbours of a row in x and in out."""
        dense = dense_strides(self.shape)
        return (self.x_strides or dense)[self.axis], (self.out_strides or dense)[self.axis]

    @property
    def rows(self) -> Loops:
        """The loops over rows: operands x and out."""
        others = [axis for axis in range(len(self.shape)) if axis != self.axis % len(self.shape)]
        dense = dense_strides(self.shape)
        picked = [tuple(row[axis] for axis in others) for row in (self.x_strides or dense, self.out_strides or dense)]
        return plan_rows(tuple(self.shape[axis] for axis in others), *picked)

    def by_planes(self, isa: Isa) -> bool:
        """Whether exponentials are looked up a byte at a time for a whole vector, instead of one by one.

        Not with AVX2, where each of the three lookups takes 39 instructions for 32 bytes.
        """
        return self.out == "byte" and self.steps == (1, 1) and isa.lookup != "differences"

    def tasks(self, isa: Isa) -> int:
        return self.rows.tasks

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        words = np.zeros(SOFTMAX_WORDS, "int32")
        if self.out == "byte":
            words[:PARAM_WORDS] = pack_params(isa, arrays)
            words.view("float32")[FACTOR] = arrays["factor"]
        return {
            "exponentials": self._table(isa, np.ascontiguousarray(arrays["exponentials"], "int32")),
            "params": words,
        }

    def _table(self, isa: Isa, exponentials: Array) -> Array:
        if not self.by_planes(isa):
            # Entry k belongs to x - max = k - 255, so that the kernel adds and never negates.
            return exponentials[::-1].copy()
        planes = exponentials.view("uint8").reshape(256, 4).T[:PLANES]
        return np.concatenate([lay_out(isa, np.ascontiguousarray(plane)) for plane in planes]).view("int32")

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * isa.lanes}
