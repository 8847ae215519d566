"""Emitter of `CastSpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, cast
from ...isa import Isa
from ..base import emitter
from ..cast import CastSpec
from .strided import emit_loops


@emitter(CastSpec)
def emit(spec: CastSpec, isa: Isa, symbol: str) -> Any:
    """One element at a time; LLVM forms vectors where it can."""
    b = Builder(symbol)
    x, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)

    def one(at: list[Expr], count: int) -> None:
        value = x[at[0]]
        if spec.target == "bool":
            value = tirx.NE(value, cast(x.dtype, tirx.const(0, "int32")))
        b.store(out, at[1], cast(out.dtype, value))

    emit_loops(b, spec.loops, 1, one)
    return b.finish(spec.noalias)
