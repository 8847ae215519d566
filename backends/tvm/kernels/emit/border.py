"""Emitter of `BorderSpec`."""

from __future__ import annotations

from typing import Any

from ...builder import Builder
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
        image = b.let(task * spec.image.batch + spec.image.offset)
        for offset, length, repetitions, distance in spec.runs:
            with b.loop(0, repetitions) as number:
                fill_run(b, value, out, b.let(image + (offset + number * distance)), length, widest)
    return b.finish(spec.noalias)
