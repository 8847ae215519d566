"""Emitter of `BorderSpec`."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, i64
from ...isa import Isa
from ..base import emitter
from ..border import VALUE_BYTES, BorderSpec
from .runs import fill_run


@emitter(BorderSpec)
def emit(spec: BorderSpec, isa: Isa, symbol: str) -> Any:
    """Runs of known length, by vectors whose last one is moved back to end with the run."""
    b = Builder(symbol)
    value, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    widest = min(VALUE_BYTES, 4 * isa.lanes) // (4 if spec.dtype == "float32" else 1)
    with b.tasks() as task:
        image = b.let(tirx.floordiv(task, i64(spec.parts)) * spec.image.batch + spec.image.offset)
        part = b.let(tirx.floormod(task, i64(spec.parts)))
        for offset, length, repetitions, distance in spec.runs:
            with _share(b, spec, part, offset, repetitions) as number:
                fill_run(b, value, out, b.let(image + (offset + number * distance)), length, widest)
    return b.finish(spec.noalias)


@contextmanager
def _share(b: Builder, spec: BorderSpec, part: Expr, offset: int, repetitions: int) -> Generator[Expr]:
    """The repetitions of a run that belong to a part: of few all, to the first part in front and to the last behind."""
    if repetitions >= spec.parts:
        low, high = (tirx.floordiv(end * repetitions, i64(spec.parts)) for end in (part, part + 1))
        with b.loop(b.let(low), b.let(high)) as number:
            yield number
        return
    with b.when(part == (0 if offset == 0 else spec.parts - 1)), b.loop(0, repetitions) as number:
        yield number
