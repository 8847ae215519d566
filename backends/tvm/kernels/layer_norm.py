"""Layer norm of bytes from exact integer sums. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec, padded
from .epilogue import PARAM_WORDS, pack_params

#: Words of `params` after those of the epilogue: the input's zero point, and the float32 term beside the variance.
X_ZERO_POINT, BIAS = PARAM_WORDS, PARAM_WORDS + 1
NORM_WORDS = PARAM_WORDS + 16


@dataclass(frozen=True)
class LayerNormSpec(KernelSpec):
    """Normalize `rows` rows of `length` contiguous elements; row strides are in elements, `length` when None.

    With n elements, ``S = sum(x - zx)`` and ``Q = sum((x - zx)^2)``:
    ``t = f32(n (x - zx) - S) * (1 / sqrt(f32(n Q - S^2) + bias)) * gain + shift``, every operation rounded to float32;
    then ``y = int(rint(clamp(t, lo, hi))) + zp``, or t for ``out="f32"``. `pack` takes gain and shift float32[length],
    bias (float32, 0-d), x_zero_point (stored domain), and for bytes zero_point and optionally lo, hi. One task is one
    row.
    """

    rows: int
    length: int
    x_stride: int | None = None
    out_stride: int | None = None
    out: Literal["byte", "f32"] = "byte"

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "act", "in"),
            Arg("gain", "float32", "const"),
            Arg("shift", "float32", "const"),
            Arg("params", "int32", "const"),
            Arg("out", "act" if self.out == "byte" else "float32", "out"),
        )

    def tasks(self, isa: Isa) -> int:
        return self.rows

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        words = np.zeros(NORM_WORDS, "int32")
        if self.out == "byte":
            words[:PARAM_WORDS] = pack_params(isa, arrays)
        words[X_ZERO_POINT] = int(arrays["x_zero_point"])
        words.view("float32")[BIAS] = arrays["bias"]
        size = self.length + 4 * isa.lanes
        return {
            "gain": padded(arrays["gain"], size, "float32"),
            "shift": padded(arrays["shift"], size, "float32"),
            "params": words,
        }

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * isa.lanes}
