"""Emitter of `ScanSpec`."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx

from ...builder import Builder, Expr, cast, i64
from ...isa import Isa
from ..base import emitter
from ..scan import ScanSpec
from .strided import emit_loops


@emitter(ScanSpec)
def emit(spec: ScanSpec, isa: Isa, symbol: str) -> Any:
    """One line at a time, element by element."""
    b = Builder(symbol)
    x, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    wide = "float64" if spec.dtype == "float32" and spec.op in ("sum", "prod") else x.dtype
    size, (step, out_step) = spec.shape[spec.axis], spec.steps

    def line(at: list[Expr], _: int) -> None:
        total = b.registers(1, wide, "total")
        b.store(total, 0, _neutral(spec, wide))
        with b.loop(0, size) as number:
            position = b.let(i64(size - 1) - number) if spec.reverse else number
            held, value = b.let(total[0]), b.let(cast(wide, x[at[0] + position * i64(step)]))
            joined = b.let(_combined(spec, held, value))
            if spec.running:
                stored = cast(x.dtype, held if spec.exclusive else joined)
                b.store(out, at[1] + position * i64(out_step), stored)
            b.store(total, 0, joined)
        if not spec.running:
            b.store(out, at[1], cast(x.dtype, total[0]))

    emit_loops(b, spec.rows, 1, line)
    return b.finish(spec.noalias)


def _neutral(spec: ScanSpec, dtype: str) -> Expr:
    if spec.op in ("sum", "prod"):
        return cast(dtype, tirx.const(int(spec.op == "prod"), "int32"))
    if spec.dtype == "float32":
        return tirx.const(float("-inf" if spec.op == "max" else "inf"), dtype)
    if spec.dtype == "bool":
        return tirx.const(int(spec.op == "min"), dtype)
    info = np.iinfo(spec.dtype)
    return tirx.IntImm(dtype, int(info.min if spec.op == "max" else info.max))


def _combined(spec: ScanSpec, held: Expr, value: Expr) -> Expr:
    if spec.dtype == "bool":
        return tirx.bitwise_or(held, value) if spec.op in ("sum", "max") else tirx.bitwise_and(held, value)
    if spec.op == "sum":
        return held + value
    if spec.op == "prod":
        return held * value
    better = value > held if spec.op == "max" else value < held
    chosen = tirx.Select(better, value, held)
    return tirx.Select(value.equal(value), chosen, value) if spec.dtype == "float32" else chosen
