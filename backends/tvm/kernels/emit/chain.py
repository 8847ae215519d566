"""Emitter of `ChainSpec`."""

from __future__ import annotations

from typing import Any

from ...builder import Builder, Expr
from ...isa import Isa, vector_ops
from ..base import emitter
from ..chain import ChainSpec
from .strided import emit_loops
from .vector_math import VectorMath


@emitter(ChainSpec)
def emit(spec: ChainSpec, isa: Isa, symbol: str) -> Any:
    """Blocks of two native vectors; every vector goes through all steps."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    math, strides = VectorMath(b, ops), spec.loops.inner_strides

    def operand(number: int, at: Expr, vector: int) -> Expr:
        buffer = buffers[f"x{number}"]
        if strides[number] == 0:
            return b.let(ops.splat(buffer[at]))
        return b.let(buffer.load(at + vector * ops.lanes, ops.lanes))

    def block(at: list[Expr], count: int) -> None:
        results = []
        for vector in range(ops.vectors_of(count)):
            values = [operand(number, at[number], vector) for number in range(len(spec.strides))]
            values += [b.let(ops.splat(buffers["parameters"][number])) for number in range(spec.parameters)]
            for name, *numbers in spec.steps:
                values.append(math.call(str(name), [values[int(number)] for number in numbers]))
            results.append(values[-1])
        ops.store_words(b, buffers["out"], at[-1], results, count)

    emit_loops(b, spec.loops, 2 * ops.lanes, block, broadcasts=True)
    return b.finish(spec.noalias)
