"""Emitter of `ReduceMeanSpec`."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from ...builder import Buffer, Builder, Expr, cast, i64, intrin, reinterpret
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..epilogue import Epilogue
from ..reduce import FACTOR, SHIFT, ReduceMeanSpec
from ..strided import Loops
from .epilogue import EpilogueEmitter
from .strided import emit_loops


@emitter(ReduceMeanSpec)
def emit(spec: ReduceMeanSpec, isa: Isa, symbol: str) -> Any:
    """Neighbouring results in the lanes of vectors; or, where the summed elements are neighbours, one at a time."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    epilogue = EpilogueEmitter(b, ops, Epilogue(), buffers)
    kept, summed = spec.kept, spec.summed
    along = kept.one_by_one and summed.inner_strides == (1,) and summed.inner >= ops.lanes

    def block(at: list[Expr], count: int) -> None:
        if along:
            totals = [b.let(ops.splat(_sum_along(b, ops, buffers["x"], summed, at[0])))]
        else:
            totals = _sum_across(b, ops, buffers["x"], summed, at[0], count)
        shift, factor = ops.splat(buffers["params"][SHIFT]), reinterpret("float32", buffers["params"][FACTOR])
        values = [b.let(ops.mul(ops.to_f32(total - shift), ops.splat(factor))) for total in totals]
        if spec.out == "byte":
            epilogue.store_quantized(values, at[1], count)
        else:
            ops.store_words(b, buffers["out"], at[1], values, count)

    emit_loops(b, kept, 4 * ops.lanes, block)
    return b.finish(spec.noalias)


def _sum_across(b: Builder, ops: VectorOps, x: Buffer, summed: Loops, start: Expr, count: int) -> list[Expr]:
    """`count` neighbouring sums."""
    vectors = ops.vectors_of(count)
    acc = b.registers(vectors, ops.i32, "sum")
    for v in range(vectors):
        b.store(acc, v, ops.const_i32(0))
    with ExitStack() as stack:
        at = start
        for size, stride in zip(summed.shape, summed.strides[0], strict=True):
            at = b.let(at + stack.enter_context(b.loop(0, size)) * stride)
        for v, value in enumerate(ops.load_bytes(b, x, at, count)):
            b.store(acc, v, acc[v] + value)
    return [b.let(acc[v]) for v in range(vectors)]


def _sum_along(b: Builder, ops: VectorOps, x: Buffer, summed: Loops, start: Expr) -> Expr:
    """One sum whose innermost elements are contiguous."""
    acc, rest = b.registers(1, ops.i32, "sum"), b.registers(1, "int32", "rest")
    b.store(acc, 0, ops.const_i32(0))
    b.store(rest, 0, cast("int32", i64(0)))
    whole, tail = divmod(summed.inner, ops.lanes)
    with ExitStack() as stack:
        at = start
        for size, stride in zip(summed.shape[:-1], summed.strides[0][:-1], strict=True):
            at = b.let(at + stack.enter_context(b.loop(0, size)) * stride)
        with b.loop(0, whole) as step:
            b.store(acc, 0, acc[0] + ops.load_bytes(b, x, at + step * ops.lanes, ops.lanes)[0])
        if tail:
            with b.loop(whole * ops.lanes, summed.inner) as position:
                b.store(rest, 0, rest[0] + cast("int32", x[at + position]))
    return b.let(intrin("int32", f"llvm.vector.reduce.add.v{ops.lanes}i32", acc[0]) + rest[0])
