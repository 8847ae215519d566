"""Layer norm of float32, or of bytes as the float32 they stand for, with the same bits on every target. No tvm."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec, padded
from .epilogue import PARAM_WORDS, pack_params
from .strided import Loops, Strides, dense_strides, plan_rows

Kind = Literal["byte", "f32"]

#: Words of `params` after those of the epilogue: the input's zero point, and float32 scales and epsilon.
X_ZERO_POINT, X_SCALE, OUT_SCALE, EPSILON = range(PARAM_WORDS, PARAM_WORDS + 4)
NORM_WORDS = PARAM_WORDS + 16
#: Virtual lanes of a sum: element i of a row belongs to lane i modulo this.
LANES = 64
#: Rows that a task computes side by side, and elements of them. In one row each sum waits for the one before, and then
#: for quotients and a root; those of several rows do not wait for each other.
MOST_ROWS, MOST_ELEMENTS = 4, 2048


@dataclass(frozen=True)
class FloatLayerNormSpec(KernelSpec):
    """Normalize rows of `length` contiguous elements; `rows` is the shape in which they lie.

    Strides are in elements, one for each axis of `rows`, contiguous when None. With v the elements, which are
    ``f32(x - zx) * sx`` for bytes, and n of them: ``m = sum(v) / n``, ``d = v - m``,
    ``t = d * (1 / sqrt(sum(d * d) / n + epsilon)) * gain + shift``, every operation rounded to float32. Sums run in 64
    lanes, which are then halved (lane i with i + 32, i + 16...). The result is t, or ``quantize`` of t as `unary` has
    it; not `affine` leaves gain and shift out. `pack` takes epsilon (float32, 0-d), gain and, optionally, shift
    float32[length], for bytes x_zero_point (stored domain) and x_scale, and for bytes as results zero_point and
    out_scale. A task is `together` rows.
    """

    rows: tuple[int, ...]
    length: int
    x_strides: Strides | None = None
    out_strides: Strides | None = None
    x: Kind = "f32"
    out: Kind = "f32"
    affine: bool = True

    @property
    def args(self) -> tuple[Arg, ...]:
        affine = (Arg("gain", "float32", "const"), Arg("shift", "float32", "const")) if self.affine else ()
        ends = (Arg("x", _dtype(self.x), "in"), Arg("out", _dtype(self.out), "out"))
        return (ends[0], *affine, Arg("params", "int32", "const"), ends[1])

    @property
    def loops(self) -> Loops:
        """The loops over rows: operands x and out."""
        dense = tuple(self.length * stride for stride in dense_strides(self.rows))
        return plan_rows(self.rows, self.x_strides or dense, self.out_strides or dense)

    @property
    def together(self) -> int:
        """Rows of a task, neighbours along the last axis of `loops` that has any."""
        return max(1, min(MOST_ROWS, MOST_ELEMENTS // self.length, self.loops.shape[-2]))

    @property
    def parts(self) -> int:
        """Tasks along that axis."""
        return -(-self.loops.shape[-2] // self.together)

    def tasks(self, isa: Isa) -> int:
        return math.prod(self.loops.shape[:-2]) * self.parts

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        words = np.zeros(NORM_WORDS, "int32")
        if self.out == "byte":
            words[:PARAM_WORDS] = pack_params(isa, arrays)
        words[X_ZERO_POINT] = arrays.get("x_zero_point", np.int32(0))
        scales = [arrays.get(name, np.float32(1)) for name in ("x_scale", "out_scale")]
        words.view("float32")[[X_SCALE, OUT_SCALE, EPSILON]] = [*scales, arrays["epsilon"]]
        if not self.affine:
            return {"params": words}
        size, none = self.length + 4 * isa.lanes, np.zeros(self.length)
        affine = {"gain": arrays["gain"], "shift": arrays.get("shift", none)}
        return {**{name: padded(array, size, "float32") for name, array in affine.items()}, "params": words}

    def over_read(self, isa: Isa) -> dict[str, int]:
        if self.x == "f32" and self.length % isa.lanes == 0:
            return {}
        return {"x": 4 * isa.lanes}


def _dtype(kind: Kind) -> str:
    return "act" if kind == "byte" else "float32"
