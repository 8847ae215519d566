"""Emitter of `BorderSpec`."""

from __future__ import annotations

from typing import Any

from ...builder import Buffer, Builder, Expr, i64
from ...isa import Isa
from ..base import emitter
from ..border import VALUE_BYTES, BorderSpec


@emitter(BorderSpec)
def emit(spec: BorderSpec, isa: Isa, symbol: str) -> Any:
    """Runs of known length, by vectors whose last one is moved back to end with the run."""
    b = Builder(symbol)
    value, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    widest = min(VALUE_BYTES, 4 * isa.lanes) // (4 if spec.dtype == "float32" else 1)
    with b.tasks() as task:
        image = b.let(task * spec.image.batch + spec.image.offset)
        for offset, length, repetitions, distance in spec.runs:
            with b.loop(0, repetitions) as number:
                fill(b, value, out, b.let(image + (offset + number * distance)), length, widest)
    return b.finish(spec.noalias)


def fill(b: Builder, value: Buffer, out: Buffer, start: Expr, length: int, widest: int) -> None:
    """Fill `length` elements from `start` on with vectors of at most `widest` equal elements."""
    width = min(widest, 1 << (length.bit_length() - 1))
    whole, rest = divmod(length, width)
    splat = b.let(value.load(0, width))
    if whole <= 4:
        for at in range(whole):
            b.store(out, start + i64(at * width), splat, width)
    else:
        with b.loop(0, whole) as step:
            b.store(out, start + step * width, splat, width)
    if rest:
        b.store(out, start + i64(length - width), splat, width)
