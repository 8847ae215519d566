"""Pooling windows over padded NHWC images: the largest element, or the mean. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec, StridedView
from .epilogue import PARAM_WORDS, pack_params

#: Word of average pooling's `params` after those of the epilogue: what the zero points of a window sum to.
SHIFT = PARAM_WORDS
POOL_WORDS = PARAM_WORDS + 16


@dataclass(frozen=True)
class Window:
    """Where windows lie: output (h, w) covers rows from ``h * stride_h`` and columns from ``w * stride_w`` on."""

    batch: int
    out_h: int
    out_w: int
    channels: int
    kernel_h: int
    kernel_w: int
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1


@dataclass(frozen=True)
class MaxPoolSpec(KernelSpec):
    """The largest element of each window; the border of the padded image holds the smallest value. A task is a row."""

    window: Window
    input: StridedView
    output: StridedView
    dtype: Literal["act", "float32"] = "act"

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("x", self.dtype, "in"), Arg("out", self.dtype, "out"))

    def tasks(self, isa: Isa) -> int:
        return self.window.batch * self.window.out_h

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * isa.lanes}


@dataclass(frozen=True)
class AvgPoolSpec(KernelSpec):
    """The sum of each window times a factor for its place. The border of the padded image holds the zero point.

    ``t = f32(sum(x - zx)) * factors[h, w]``, then ``y = int(rint(clamp(t, lo, hi))) + zp``, or t for ``out="f32"``.
    `pack` takes factors float32[out_h, out_w], x_zero_point (stored domain), and for bytes zero_point and optionally
    lo, hi relative to it. A task is one row.
    """

    window: Window
    input: StridedView
    output: StridedView
    out: Literal["byte", "f32"] = "byte"

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "act", "in"),
            Arg("factors", "float32", "const"),
            Arg("params", "int32", "const"),
            Arg("out", "act" if self.out == "byte" else "float32", "out"),
        )

    def tasks(self, isa: Isa) -> int:
        return self.window.batch * self.window.out_h

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        words = np.zeros(POOL_WORDS, "int32")
        if self.out == "byte":
            words[:PARAM_WORDS] = pack_params(isa, arrays)
        words[SHIFT] = self.window.kernel_h * self.window.kernel_w * int(arrays["x_zero_point"])
        return {"factors": np.ascontiguousarray(arrays["factors"], "float32").reshape(-1), "params": words}

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * isa.lanes}


@dataclass(frozen=True)
class FloatAvgPoolSpec(KernelSpec):
    """The float32 sum of each window, taken row by row, over the count for its place; the border holds 0.

    `pack` takes counts float32[out_h, out_w]. A task is one row.
    """

    window: Window
    input: StridedView
    output: StridedView

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("x", "float32", "in"), Arg("counts", "float32", "const"), Arg("out", "float32", "out"))

    def tasks(self, isa: Isa) -> int:
        return self.window.batch * self.window.out_h

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        return {"counts": np.ascontiguousarray(arrays["counts"], "float32").reshape(-1)}

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * isa.lanes}
