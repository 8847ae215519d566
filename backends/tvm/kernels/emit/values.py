"""Small float32 computations that several emitters share. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from ...builder import Builder, Expr
from ...isa.vector import VectorOps


def divided(b: Builder, ops: VectorOps, values: Sequence[Expr], scale: Expr) -> list[Expr]:
    """Return x / s with NaN replaced by zero, so that it quantizes to the zero point."""
    quotients = [b.let(value / scale) for value in values]
    return [tirx.Select(value.equal(value), value, ops.const_f32(0)) for value in quotients]
