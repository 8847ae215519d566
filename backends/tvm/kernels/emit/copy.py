"""Emitter of `CopySpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, i64
from ...isa import Isa
from ..base import emitter
from ..copy import CopySpec
from .depthwise import unpack
from .strided import block_start, emit_loops


@emitter(CopySpec)
def emit(spec: CopySpec, isa: Isa, symbol: str) -> Any:
    """Contiguous runs by vectors, transpositions by square tiles of 16-byte rows, the rest element by element."""
    b = Builder(symbol)
    x, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    axis = spec.transposed_axis
    if axis is not None:
        _transpose(b, spec, x, out, axis)
        return b.finish(spec.noalias)
    widest = 4 * isa.lanes // spec.element
    inner = spec.loops.inner
    step = min(widest, 1 << (inner.bit_length() - 1))

    def block(at: list[Expr], count: int) -> None:
        b.store(out, at[1], x.load(at[0], count), count)

    emit_loops(b, spec.loops, 1 if spec.loops.inner_strides != (1, 1) else step, block)
    return b.finish(spec.noalias)


def _transpose(b: Builder, spec: CopySpec, x: Buffer, out: Buffer, axis: int) -> None:
    """A task is one strip of tiles along the output's contiguous axis; the last tiles overlap their neighbours."""
    loops, tile = spec.loops, 16 // spec.element
    last = len(loops.shape) - 1
    with b.tasks() as task:
        strips = -(-loops.shape[axis] // tile)
        across = block_start(b, tirx.floormod(task, i64(strips)), tile, loops.shape[axis])
        rest = b.let(tirx.floordiv(task, i64(strips)))
        source, target = across, across * loops.strides[1][axis]
        for other in reversed([other for other in range(last) if other != axis]):
            index = b.let(tirx.floormod(rest, i64(loops.shape[other])))
            rest = b.let(tirx.floordiv(rest, i64(loops.shape[other])))
            source, target = source + index * loops.strides[0][other], target + index * loops.strides[1][other]
        source, target = b.let(source), b.let(target)
        with b.loop(0, -(-loops.inner // tile)) as number:
            along = block_start(b, number, tile, loops.inner)
            start = b.let(source + along * loops.strides[0][last])
            rows = [b.let(x.load(start + row * loops.strides[0][last], tile)) for row in range(tile)]
            base = b.let(target + along)
            for column, value in enumerate(transposed(b, rows, spec.dtype)):
                b.store(out, base + column * loops.strides[1][axis], value, tile)


def transposed(b: Builder, rows: list[Expr], dtype: str) -> list[Expr]:
    """The columns of a square of n rows of 16 bytes, by log2 n rounds of interleaving row i with row i + n/2."""
    count = len(rows)
    for _ in range(count.bit_length() - 1):
        pairs = [unpack(rows[at], rows[at + count // 2], dtype) for at in range(count // 2)]
        rows = [b.let(half) for pair in pairs for half in pair]
    return rows
