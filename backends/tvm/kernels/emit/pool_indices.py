"""Emitter of `PoolIndicesSpec`."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, i64
from ...isa import Isa
from ..base import emitter
from ..pool_indices import PoolIndicesSpec
from .strided import emit_loops


@emitter(PoolIndicesSpec)
def emit(spec: PoolIndicesSpec, isa: Isa, symbol: str) -> Any:
    """One window at a time, tap by tap; taps outside of the image read its edge, and are not believed."""
    b = Builder(symbol)
    x, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    sizes = spec.shape[2:]

    def window(at: list[Expr], _: int) -> None:
        best, index = b.registers(1, "float32", "best"), b.registers(1, "int64", "index")
        b.store(best, 0, tirx.const(float("-inf"), "float32"))
        b.store(index, 0, i64(-1))
        with ExitStack() as stack:
            place, number = at[0], at[1] * i64(math.prod(sizes))
            inside: Expr = None
            for axis, size in enumerate(sizes):
                tap = stack.enter_context(b.loop(0, spec.kernel[axis]))
                start = at[2 + axis] * i64(spec.stride[axis]) - i64(spec.before[axis])
                position = b.let(start + tap * i64(spec.dilation[axis]))
                within = tirx.And(position >= i64(0), position < i64(size))
                inside = within if inside is None else tirx.And(inside, within)
                near = b.let(tirx.Max(tirx.Min(position, i64(size - 1)), i64(0)))
                place = b.let(place + near * i64(spec.spatial[axis]))
                number = b.let(number + near * i64(spec.weights[axis]))
            value, held, found = b.let(x[place]), b.let(best[0]), b.let(index[0])
            better = tirx.Or(value > held, tirx.Or(tirx.Not(value.equal(value)), found < i64(0)))
            chosen = b.let(tirx.Cast("int64", tirx.And(inside, better)))
            b.store(best, 0, tirx.Select(chosen > i64(0), value, held))
            b.store(index, 0, tirx.Select(chosen > i64(0), number, found))
        b.store(out, at[-1], index[0])

    emit_loops(b, spec.loops, 1, window)
    return b.finish(spec.noalias)
