"""Emitter of `CastSpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, cast, intrin
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
        value = b.let(x[at[0]])
        if spec.target == "bool":
            # TIR's != is false for NaN, which is a number other than 0 here.
            value = tirx.Not(value.equal(cast(x.dtype, tirx.const(0, "int32"))))
        b.store(out, at[1], _converted(value, x.dtype, out.dtype))

    emit_loops(b, spec.loops, 1, one)
    return b.finish(spec.noalias)


def _converted(value: Expr, source: str, target: str) -> Expr:
    """Plain conversions of floats out of range differ between processors."""
    if source != "float32" or target == "float32" or value.ty.dtype == "bool":
        return cast(target, value)
    name = "llvm.fptoui.sat" if target.startswith("u") else "llvm.fptosi.sat"
    return intrin(target, f"{name}.i{target.lstrip('uint')}.f32", value)
