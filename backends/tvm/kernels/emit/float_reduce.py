"""Emitter of `FloatReduceSpec`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, const
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..float_reduce import LANES, FloatReduceSpec
from .lanes import Lanes
from .strided import emit_loops


@emitter(FloatReduceSpec)
def emit(spec: FloatReduceSpec, isa: Isa, symbol: str) -> Any:
    """Neighbouring results in the lanes of vectors, or sixteen partial results of one."""
    b, ops = Builder(symbol), vector_ops(isa)
    x, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    work = _Reduce(b, ops, spec, x)

    def block(at: list[Expr], count: int) -> None:
        if spec.along:
            b.store(out, at[1], work.finished(work.along(at[0]), "float32"))
            return
        values = [b.let(work.finished(value, ops.f32)) for value in work.across(at[0], count)]
        ops.store_words(b, out, at[1], values, count)

    emit_loops(b, spec.kept, LANES, block)
    return b.finish(spec.noalias)


class _Reduce:
    """The reduction of one block."""

    def __init__(self, b: Builder, ops: VectorOps, spec: FloatReduceSpec, x: Buffer) -> None:
        self.b, self.ops, self.spec, self.x = b, ops, spec, x
        self.start = {"max": float("-inf"), "min": float("inf")}.get(spec.op, 0.0)

    def combine(self, total: Expr, value: Expr) -> Expr:
        if self.spec.op in ("sum", "mean"):
            return total + value
        better = value > total if self.spec.op == "max" else value < total
        return tirx.Select(value.equal(value), tirx.Select(better, value, total), value)

    def finished(self, total: Expr, dtype: str) -> Expr:
        return total / const(self.spec.count, dtype) if self.spec.op == "mean" else total

    def across(self, start: Expr, count: int) -> list[Expr]:
        """`count` neighbouring results, each taken in order."""
        b, ops, loops = self.b, self.ops, self.spec.reduced
        vectors = ops.vectors_of(count)
        acc = b.registers(vectors, ops.f32, "acc")
        for v in range(vectors):
            b.store(acc, v, ops.const_f32(self.start))
        with ExitStack() as stack:
            at = start
            for size, stride in zip(loops.shape, loops.strides[0], strict=True):
                at = b.let(at + stack.enter_context(b.loop(0, size)) * stride)
            for v, value in enumerate(ops.load_words(b, self.x, at, count)):
                b.store(acc, v, self.combine(acc[v], value))
        return [b.let(acc[v]) for v in range(vectors)]

    def along(self, start: Expr) -> Expr:
        """One result of sixteen lanes."""
        b, ops, loops = self.b, self.ops, self.spec.reduced
        lanes = Lanes(b, ops, LANES, self.combine, self.start)
        with ExitStack() as stack:
            at = start
            for size, stride in zip(loops.shape[:-1], loops.strides[0][:-1], strict=True):
                at = b.let(at + stack.enter_context(b.loop(0, size)) * stride)
            lanes.run(loops.inner, lambda first, count: ops.load_words(b, self.x, at + first, count))
        return lanes.total()
