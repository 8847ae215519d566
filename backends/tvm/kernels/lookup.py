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
    return np.ascontiguousarray(_laid_out(isa, entries)).reshape(-1).view(isa.act_dtype)


def _laid_out(isa: Isa, entries: Array) -> Array:
    if isa.lookup == "pairs":
        return entries.reshape(2, 128).T
    if isa.lookup == "differences":
        rows = entries.reshape(2, 8, 16)
        found: Array = np.concatenate([rows[:, :1], rows[:, 1:] ^ rows[:, :-1]], axis=1)
        return found
    return entries
