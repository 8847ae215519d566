"""Small float32 computations that several emitters share. Imports tvm."""

from __future__ import annotations

from tvm import tirx

from ...builder import Buffer, Builder, Expr, Index
from ...isa.vector import VectorOps


def divided(b: Builder, ops: VectorOps, x: Buffer, scale: Expr, index: Index, count: int) -> list[Expr]:
    """Return x / s with NaN replaced by zero, so that it quantizes to the zero point."""
    quotients = [b.let(value / scale) for value in ops.load_words(b, x, index, count)]
    return [tirx.Select(value.equal(value), value, ops.const_f32(0)) for value in quotients]
