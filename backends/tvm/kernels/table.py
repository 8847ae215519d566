"""Map every byte through a table of 256 entries, to bytes or to float32. No tvm."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec
from .lookup import pack_table
from .strided import Loops, Strides, dense_strides, plan_loops


@dataclass(frozen=True)
class TableSpec(KernelSpec):
    """``out[i] = table[x[i]]`` over a tensor of `shape`; strides are in elements, contiguous when None.

    `pack` takes table: int8[256] of logical outputs or, for ``out="f32"``, float32[256]; entry i is for the logical
    input i - 128.
    """

    shape: tuple[int, ...]
    x_strides: Strides | None = None
    out_strides: Strides | None = None
    out: Literal["byte", "f32"] = "byte"

    @property
    def args(self) -> tuple[Arg, ...]:
        dtype = "act" if self.out == "byte" else "float32"
        return (Arg("x", "act", "in"), Arg("table", dtype, "const"), Arg("out", dtype, "out"))

    @property
    def loops(self) -> Loops:
        dense = dense_strides(self.shape)
        return plan_loops(self.shape, self.x_strides or dense, self.out_strides or dense)

    def tasks(self, isa: Isa) -> int:
        return self.loops.tasks

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        table = arrays["table"]
        if self.out == "byte":
            return {"table": pack_table(isa, table)}
        patterns = (np.arange(256) - 128 + isa.act_offset).astype(isa.act_dtype).view("uint8")
        by_pattern = np.zeros(256, "float32")
        by_pattern[patterns] = table
        return {"table": by_pattern}

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"x": 4 * isa.lanes}
