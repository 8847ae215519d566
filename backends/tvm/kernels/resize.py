"""Resampling of NHWC images: nearest elements, or bilinear means, of bytes with integer weights. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec, StridedView
from .epilogue import PARAM_WORDS, pack_params

#: Words of `params` after those of the epilogue: what the input's zero point sums to, and the float32 factor.
SHIFT, FACTOR = PARAM_WORDS, PARAM_WORDS + 1
RESIZE_WORDS = PARAM_WORDS + 16


@dataclass(frozen=True)
class NearestSpec(KernelSpec):
    """Output (n, h, w) is pixel (n, rows[h], columns[w]) of the input, `channels` elements of 1, 2, 4 or 8 bytes.

    `pack` takes rows int[out_h] and columns int[out_w]. A task is one row.
    """

    batch: int
    out_h: int
    out_w: int
    channels: int
    element: int
    input: StridedView
    output: StridedView

    @property
    def args(self) -> tuple[Arg, ...]:
        dtype = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}[self.element]
        return (
            Arg("x", dtype, "in"),
            Arg("rows", "int32", "const"),
            Arg("columns", "int32", "const"),
            Arg("out", dtype, "out"),
        )

    def tasks(self, isa: Isa) -> int:
        return self.batch * self.out_h

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        return {name: np.ascontiguousarray(arrays[name], "int32").reshape(-1) for name in ("rows", "columns")}


@dataclass(frozen=True)
class BilinearSpec(KernelSpec):
    """Output (n, h, w) is the weighted sum of two rows by two columns of the input, all weights integers.

    ``t = f32(sum weight * (x - zx)) * multiplier``, then ``y = int(rint(clamp(t, lo, hi))) + zp``, or t for
    ``out="f32"``. `pack` takes rows, row_weights int[out_h, 2], columns, column_weights int[out_w, 2], whose weights
    sum to one number for every row and to one for every column (an axis that is not resampled has weights 1 and 0);
    multiplier (float32, 0-d), x_zero_point (stored domain), and for bytes zero_point and optionally lo, hi. A task is
    one row.
    """

    batch: int
    out_h: int
    out_w: int
    channels: int
    input: StridedView
    output: StridedView
    out: Literal["byte", "f32"] = "byte"

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "act", "in"),
            Arg("rows", "int32", "const"),
            Arg("row_weights", "int32", "const"),
            Arg("columns", "int32", "const"),
            Arg("column_weights", "int32", "const"),
            Arg("params", "int32", "const"),
            Arg("out", "act" if self.out == "byte" else "float32", "out"),
        )

    def tasks(self, isa: Isa) -> int:
        return self.batch * self.out_h

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        names = ("rows", "row_weights", "columns", "column_weights")
        tables = {name: np.ascontiguousarray(arrays[name], "int32").reshape(-1) for name in names}
        words = np.zeros(RESIZE_WORDS, "int32")
        if self.out == "byte":
            words[:PARAM_WORDS] = pack_params(isa, arrays)
        total = int(tables["row_weights"][:2].sum()) * int(tables["column_weights"][:2].sum())
        words[SHIFT] = total * int(arrays["x_zero_point"])
        words.view("float32")[FACTOR] = arrays["multiplier"]
        return {**tables, "params": words}

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * isa.lanes}


@dataclass(frozen=True)
class FloatLinearSpec(KernelSpec):
    """Output (n, h, w) mixes two columns of each of two rows of a float32 image, then the two rows.

    ``left * column_weights[w, 0] + right * column_weights[w, 1]``, likewise for rows; every operation is rounded by
    itself. `pack` takes rows int[out_h, 2], row_weights float[out_h, 2], columns and column_weights [out_w, 2]. A task
    is one row.
    """

    batch: int
    out_h: int
    out_w: int
    channels: int
    input: StridedView
    output: StridedView

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "float32", "in"),
            Arg("rows", "int32", "const"),
            Arg("row_weights", "float32", "const"),
            Arg("columns", "int32", "const"),
            Arg("column_weights", "float32", "const"),
            Arg("out", "float32", "out"),
        )

    def tasks(self, isa: Isa) -> int:
        return self.batch * self.out_h

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        kinds = {arg.name: arg.dtype for arg in self.args if arg.role == "const"}
        return {name: np.ascontiguousarray(arrays[name], dtype).reshape(-1) for name, dtype in kinds.items()}

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * isa.lanes}
