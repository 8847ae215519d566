"""Emitter of `TopKSpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, cast, i64
from ...isa import Isa
from ..base import emitter
from ..topk import TopKSpec
from .strided import emit_loops


@emitter(TopKSpec)
def emit(spec: TopKSpec, isa: Isa, symbol: str) -> Any:
    """A stable merge sort of indices, from runs of one element up."""
    b = Builder(symbol)
    x, order, values, indices = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    size, (step, value_step, index_step) = spec.size, spec.steps

    def line(at: list[Expr], _: int) -> None:
        with b.loop(0, size) as position:
            b.store(order, position, cast("int32", position))
        width, source = 1, 0
        while width < size:
            _merge_runs(b, spec, x, order, at[0], width, source)
            width, source = 2 * width, size - source
        with b.loop(0, spec.count) as rank:
            index = b.let(cast("int64", order[rank + i64(source)]))
            b.store(values, at[1] + rank * i64(value_step), x[at[0] + index * i64(step)])
            b.store(indices, at[2] + rank * i64(index_step), index)

    emit_loops(b, spec.rows, 1, line)
    return b.finish(spec.noalias)


def _merge_runs(b: Builder, spec: TopKSpec, x: Buffer, order: Buffer, start: Expr, width: int, source: int) -> None:
    """Merge neighbouring runs of `width` sorted indices from one half of `order` into the other."""
    size, step = spec.size, spec.steps[0]
    target = size - source
    with b.loop(0, -(-size // (2 * width))) as pair:
        first = b.let(pair * i64(2 * width))
        middle = b.let(tirx.Min(first + i64(width), i64(size)))
        last = b.let(tirx.Min(first + i64(2 * width), i64(size)))
        left, right = b.registers(1, "int64", "left"), b.registers(1, "int64", "right")
        b.store(left, 0, first)
        b.store(right, 0, middle)
        with b.loop(first, last) as place:
            i, j = b.let(left[0]), b.let(right[0])
            # Reads of a side that is used up stay inside, and are not believed.
            near = b.let(order[tirx.Min(i, middle - i64(1)) + i64(source)])
            far = b.let(order[tirx.Min(j, last - i64(1)) + i64(source)])
            a, c = (b.let(x[start + cast("int64", index) * i64(step)]) for index in (near, far))
            later = tirx.Or(i >= middle, _precedes(spec, c, a))
            take = b.let(cast("int64", tirx.And(j < last, later)))
            b.store(order, place + i64(target), tirx.Select(take > i64(0), far, near))
            b.store(right, 0, j + take)
            b.store(left, 0, i + i64(1) - take)


def _precedes(spec: TopKSpec, x: Expr, y: Expr) -> Expr:
    """Whether x comes before y wherever they stand."""
    better = x < y if spec.smallest else x > y
    if spec.dtype != "float32":
        return better
    greater, less = (y, x) if spec.smallest else (x, y)
    return tirx.Or(better, tirx.And(tirx.Not(greater.equal(greater)), less.equal(less)))
