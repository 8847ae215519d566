"""Emitter of `TableSpec`."""

from __future__ import annotations

from typing import Any

from ...builder import Builder, Expr, cast, reinterpret
from ...isa import Isa, vector_ops
from ...isa.vector import store_part
from ..base import emitter
from ..table import TableSpec
from .strided import emit_loops

#: Elements looked up one by one in a block of float32 output.
UNROLLED = 8


@emitter(TableSpec)
def emit(spec: TableSpec, isa: Isa, symbol: str) -> Any:
    """Bytes by vectors of in-register lookups, float32 by loads."""
    b, ops = Builder(symbol), vector_ops(isa)
    x, table, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    lanes = 4 * ops.lanes

    def block(at: list[Expr], count: int) -> None:
        if spec.out == "byte":
            value = ops.lookup(b, table, b.let(x.load(at[0], lanes)), lanes)
            store_part(b, out, at[1], value, count=count, lanes=lanes)
            return
        for position in range(count):
            pattern = reinterpret("uint8", x[at[0] + position])
            b.store(out, at[1] + position, table[cast("int64", pattern)])

    emit_loops(b, spec.loops, lanes if spec.out == "byte" else UNROLLED, block)
    return b.finish(spec.noalias)
