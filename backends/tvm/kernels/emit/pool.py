"""Emitters of `MaxPoolSpec`, `AvgPoolSpec` and `FloatAvgPoolSpec`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, i64
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps, store_part
from ..base import StridedView, emitter
from ..epilogue import Epilogue
from ..pool import SHIFT, AvgPoolSpec, FloatAvgPoolSpec, MaxPoolSpec, Window
from .epilogue import EpilogueEmitter
from .strided import block_start

#: Up to so many taps are unrolled.
UNROLLED_TAPS = 25


@emitter(MaxPoolSpec)
def emit_max(spec: MaxPoolSpec, isa: Isa, symbol: str) -> Any:
    """Whole vectors of elements, without widening."""
    b = Builder(symbol)
    x, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    lanes = 4 * isa.lanes if spec.dtype == "act" else isa.lanes

    def block(source: Expr, target: Expr, place: Expr, count: int) -> None:
        largest = b.registers(1, f"{x.dtype}x{lanes}", "largest")
        b.store(largest, 0, x.load(source, lanes))
        _taps(
            b,
            spec.window,
            spec.input,
            source,
            lambda at: b.store(largest, 0, tirx.Max(largest[0], x.load(at, lanes))),
        )
        store_part(b, out, target, b.let(largest[0]), count=count, lanes=lanes)

    _windows(b, spec.window, spec.input, spec.output, lanes, block)
    return b.finish(spec.noalias)


@emitter(AvgPoolSpec)
def emit_average(spec: AvgPoolSpec, isa: Isa, symbol: str) -> Any:
    """Sums in int32 vectors, one factor for every place."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    epilogue = EpilogueEmitter(b, ops, Epilogue(), buffers)

    def block(source: Expr, target: Expr, place: Expr, count: int) -> None:
        totals = _sums(b, ops, spec, buffers["x"], source, count)
        factor, shift = ops.splat(buffers["factors"][place]), ops.splat(buffers["params"][SHIFT])
        values = [b.let(ops.mul(ops.to_f32(total - shift), factor)) for total in totals]
        if spec.out == "byte":
            epilogue.store_quantized(values, target, count)
        else:
            ops.store_words(b, buffers["out"], target, values, count)

    _windows(b, spec.window, spec.input, spec.output, 4 * ops.lanes, block)
    return b.finish(spec.noalias)


@emitter(FloatAvgPoolSpec)
def emit_float_average(spec: FloatAvgPoolSpec, isa: Isa, symbol: str) -> Any:
    """One vector of channels at a time."""
    b, ops = Builder(symbol), vector_ops(isa)
    x, counts, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)

    def block(source: Expr, target: Expr, place: Expr, count: int) -> None:
        total = b.registers(1, ops.f32, "total")
        b.store(total, 0, ops.const_f32(0))
        _taps(b, spec.window, spec.input, source, lambda at: b.store(total, 0, total[0] + x.load(at, ops.lanes)))
        ops.store_words(b, out, target, [b.let(total[0] / ops.splat(counts[place]))], count)

    _windows(b, spec.window, spec.input, spec.output, ops.lanes, block)
    return b.finish(spec.noalias)


def _sums(b: Builder, ops: VectorOps, spec: AvgPoolSpec, x: Buffer, source: Expr, count: int) -> list[Expr]:
    vectors = ops.vectors_of(count)
    total = b.registers(vectors, ops.i32, "total")
    for v in range(vectors):
        b.store(total, v, ops.const_i32(0))

    def add(at: Expr) -> None:
        for v, value in enumerate(ops.load_bytes(b, x, at, count)):
            b.store(total, v, total[v] + value)

    _taps(b, spec.window, spec.input, source, add)
    return [b.let(total[v]) for v in range(vectors)]


def _taps(b: Builder, window: Window, view: StridedView, start: Expr, visit: Callable[[Expr], None]) -> None:
    """Call `visit` with the element index of every tap of a window, in a loop if there are many."""
    row, column = window.dilation_h * view.row, window.dilation_w * view.pixel
    if window.kernel_h * window.kernel_w <= UNROLLED_TAPS:
        for r in range(window.kernel_h):
            for c in range(window.kernel_w):
                visit(start + i64(r * row + c * column))
        return
    with b.loop(0, window.kernel_h) as r, b.loop(0, window.kernel_w) as c:
        visit(b.let(start + r * row + c * column))


#: Emits a block: element indices in x and out, the index of the place (row and column), and how many channels.
Block = Callable[[Expr, Expr, Expr, int], None]


def _windows(b: Builder, window: Window, source: StridedView, target: StridedView, step: int, block: Block) -> None:
    """All windows: a task is one row of one image; channels in blocks of `step`, the last one moved back."""
    channels = window.channels
    with b.tasks() as task:
        image = b.let(tirx.floordiv(task, i64(window.out_h)))
        row = b.let(tirx.floormod(task, i64(window.out_h)))
        first = b.let(image * source.batch + row * (window.stride_h * source.row) + source.offset)
        out = b.let(image * target.batch + row * target.row + target.offset)
        with b.loop(0, window.out_w) as column:
            place = b.let(row * window.out_w + column)
            pixel, to = b.let(first + column * (window.stride_w * source.pixel)), b.let(out + column * target.pixel)
            with b.loop(0, -(-channels // step)) as number:
                channel = block_start(b, number, step, channels)
                block(b.let(pixel + channel), b.let(to + channel), place, min(step, channels))
