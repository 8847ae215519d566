"""Emitter of `ArgMaxSpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, i64
from ...isa import Isa
from ..argmax import ArgMaxSpec
from ..base import emitter
from .strided import emit_loops


@emitter(ArgMaxSpec)
def emit(spec: ArgMaxSpec, isa: Isa, symbol: str) -> Any:
    """One result at a time, element by element."""
    b = Builder(symbol)
    x, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)

    def better(value: Expr, best: Expr) -> Expr:
        if spec.smallest:
            return value <= best if spec.last else value < best
        return value >= best if spec.last else value > best

    def row(at: list[Expr], _: int) -> None:
        best, index = b.registers(1, x.dtype, "best"), b.registers(1, "int64", "index")
        b.store(best, 0, x[at[0]])
        b.store(index, 0, i64(0))
        with b.loop(1, spec.shape[spec.axis]) as position:
            value = b.let(x[at[0] + position * spec.step])
            held, found = b.let(best[0]), b.let(index[0])
            b.store(best, 0, tirx.Select(better(value, held), value, held))
            b.store(index, 0, tirx.Select(better(value, held), position, found))
        b.store(out, at[1], index[0])

    emit_loops(b, spec.rows, 1, row)
    return b.finish(spec.noalias)
