"""How a table of 256 bytes lies in memory, for the lookups of each ISA level (`VectorOps.lookup`). No tvm."""

from __future__ import annotations

import numpy as np

from ..isa import Isa
from .base import Array


def pack_table(isa: Isa, table: Array) -> Array:
    """A logical table (int8[256], entry i for input i - 128) as stored bytes, for indices of the stored bit pattern."""
    patterns = (np.arange(256) - 128 + isa.act_offset).astype(isa.act_dtype).view("uint8")
    entries = np.zeros(256, "uint8")
    entries[patterns] = (table.astype("int64") + isa.act_offset).astype(isa.act_dtype).view("uint8")
    return lay_out(isa, entries).view(isa.act_dtype)


def lay_out(isa: Isa, entries: Array) -> Array:
    """Entries uint8[256], for the bit patterns 0 to 255, as they lie in memory."""
    if isa.lookup == "pairs":
        return np.ascontiguousarray(entries.reshape(2, 128).T).reshape(-1)
    if isa.lookup == "differences":
        rows = entries.reshape(2, 8, 16)
        return np.concatenate([rows[:, :1], rows[:, 1:] ^ rows[:, :-1]], axis=1).reshape(-1)
    return entries
