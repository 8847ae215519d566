"""Emitter of `GatherSpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Builder, cast, i64
from ...isa import Isa
from ..base import emitter
from ..gather import GatherSpec
from .runs import copy_run


@emitter(GatherSpec)
def emit(spec: GatherSpec, isa: Isa, symbol: str) -> Any:
    """One copy of a run for every row."""
    b = Builder(symbol)
    x, indices, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    source = spec.x_strides or (spec.size * spec.inner, spec.inner)
    target = spec.out_strides or (spec.count * spec.inner, spec.inner)
    with b.tasks() as task:
        last = tirx.Min(task * spec.rows + spec.rows, i64(spec.outer * spec.count))
        with b.loop(b.let(task * spec.rows), b.let(last)) as row:
            outer, position = (b.let(op(row, i64(spec.count))) for op in (tirx.floordiv, tirx.floormod))
            index = b.let(cast("int64", indices[position]))
            wrapped = b.let(tirx.Select(index < i64(0), index + spec.size, index))
            inside = b.let(tirx.Max(tirx.Min(wrapped, i64(spec.size - 1)), i64(0)))
            start = b.let(outer * source[0] + inside * source[1])
            place = b.let(outer * target[0] + position * target[1])
            copy_run(b, x, out, start, place, spec.inner, 4 * isa.lanes // spec.element)
    return b.finish(spec.noalias)
