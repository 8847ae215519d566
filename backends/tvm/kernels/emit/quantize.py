"""Emitter of `QuantizeSpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, Index
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..epilogue import Epilogue
from ..quantize import TASK, QuantizeSpec
from .epilogue import EpilogueEmitter


@emitter(QuantizeSpec)
def emit(spec: QuantizeSpec, isa: Isa, symbol: str) -> Any:
    """Blocks of four vectors, the last one of the last task shorter."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    epilogue = EpilogueEmitter(b, ops, Epilogue(), buffers)
    step = 4 * ops.lanes
    whole, tail = divmod(spec.count, step)

    def block(index: Index, count: int) -> None:
        epilogue.store_quantized(_divided(b, ops, buffers, index, count), index, count)

    with b.tasks() as task:
        first = b.let(task * (TASK // step))
        last = b.let(tirx.Min(first + TASK // step, _index(whole)))
        with b.loop(first, last) as position:
            block(position * step, step)
        if tail:
            with b.when(task == spec.tasks(isa) - 1):
                block(whole * step, tail)
    return b.finish(spec.noalias)


def _divided(b: Builder, ops: VectorOps, buffers: dict[str, Buffer], index: Index, count: int) -> list[Expr]:
    """Return x / s with NaN replaced by zero, so that it quantizes to the zero point."""
    scale = ops.splat(buffers["scale"][0])
    quotients = [b.let(value / scale) for value in ops.load_words(b, buffers["x"], index, count)]
    return [tirx.Select(value.equal(value), value, ops.const_f32(0)) for value in quotients]


def _index(value: int) -> Expr:
    return tirx.IntImm("int64", value)
