"""Emitter of `PlacesSpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, cast, i64
from ...isa import Isa
from ..base import emitter
from ..places import PlacesSpec
from .strided import emit_loops


@emitter(PlacesSpec)
def emit(spec: PlacesSpec, isa: Isa, symbol: str) -> Any:
    """One element at a time."""
    b = Builder(symbol)
    whole, indices, part = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)

    def one(at: list[Expr], _: int) -> None:
        place = at[0]
        for number, (limit, step) in enumerate(zip(spec.limits, spec.steps, strict=True)):
            index = b.let(cast("int64", indices[at[1] + i64(number * spec.component)]))
            wrapped = b.let(tirx.Select(index < i64(0), index + i64(limit), index))
            inside = tirx.Max(tirx.Min(wrapped, i64(limit - 1)), i64(0))
            place = b.let(place + inside * i64(step))
        if spec.op == "read":
            b.store(part, at[2], whole[place])
            return
        value = b.let(part[at[2]])
        b.store(whole, place, value if spec.op == "write" else _combined(spec, b.let(whole[place]), value))

    emit_loops(b, spec.loops, 1, one)
    return b.finish(spec.noalias)


def _combined(spec: PlacesSpec, held: Expr, value: Expr) -> Expr:
    """Of floats, a NaN stays; of truth values, sums and products are their logic."""
    if spec.dtype == "bool":
        return tirx.bitwise_or(held, value) if spec.op in ("add", "max") else tirx.bitwise_and(held, value)
    if spec.op == "add":
        return held + value
    if spec.op == "mul":
        return held * value
    better = value > held if spec.op == "max" else value < held
    chosen = tirx.Select(better, value, held)
    if spec.dtype != "float32":
        return chosen
    return tirx.Select(value.equal(value), chosen, value)
