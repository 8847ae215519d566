"""Emitters of `NearestSpec` and `BilinearSpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, cast, i64, reinterpret
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..epilogue import Epilogue
from ..resize import FACTOR, SHIFT, BilinearSpec, NearestSpec
from .epilogue import EpilogueEmitter
from .runs import copy_run
from .strided import block_start


@emitter(NearestSpec)
def emit_nearest(spec: NearestSpec, isa: Isa, symbol: str) -> Any:
    """One copy of a run of channels for every pixel."""
    b = Builder(symbol)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    widest = 4 * isa.lanes // spec.element
    with b.tasks() as task:
        image, row = _image_and_row(b, task, spec.out_h)
        source = b.let(image * spec.input.batch + _index(buffers["rows"], row) * spec.input.row + spec.input.offset)
        target = b.let(image * spec.output.batch + row * spec.output.row + spec.output.offset)
        with b.loop(0, spec.out_w) as column:
            start = b.let(source + _index(buffers["columns"], column) * spec.input.pixel)
            place = b.let(target + column * spec.output.pixel)
            copy_run(b, buffers["x"], buffers["out"], start, place, spec.channels, widest)
    return b.finish(spec.noalias)


@emitter(BilinearSpec)
def emit_bilinear(spec: BilinearSpec, isa: Isa, symbol: str) -> Any:
    """Channels in blocks of four vectors; the two columns are mixed first, then the two rows."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    epilogue = EpilogueEmitter(b, ops, Epilogue(), buffers)
    view, step = spec.input, 4 * ops.lanes
    count = min(step, spec.channels)
    with b.tasks() as task:
        image, row = _image_and_row(b, task, spec.out_h)
        base = b.let(image * view.batch + view.offset)
        rows = [b.let(base + _index(buffers["rows"], row * 2 + at) * view.row) for at in range(2)]
        row_weights = [b.let(buffers["row_weights"][row * 2 + at]) for at in range(2)]
        target = b.let(image * spec.output.batch + row * spec.output.row + spec.output.offset)
        with b.loop(0, spec.out_w) as column:
            columns = [b.let(_index(buffers["columns"], column * 2 + at) * view.pixel) for at in range(2)]
            column_weights = [b.let(buffers["column_weights"][column * 2 + at]) for at in range(2)]
            with b.loop(0, -(-spec.channels // step)) as number:
                channel = block_start(b, number, step, spec.channels)
                taps = [[b.let(line + offset + channel) for offset in columns] for line in rows]
                totals = _mixed(b, ops, buffers["x"], taps, row_weights, column_weights, count)
                _finish(b, ops, spec, buffers, epilogue, totals, b.let(target + column * spec.output.pixel + channel))
    return b.finish(spec.noalias)


def _image_and_row(b: Builder, task: Expr, rows: int) -> tuple[Expr, Expr]:
    return b.let(tirx.floordiv(task, i64(rows))), b.let(tirx.floormod(task, i64(rows)))


def _index(table: Buffer, position: Expr) -> Expr:
    return cast("int64", table[position])


def _mixed(
    b: Builder,
    ops: VectorOps,
    x: Buffer,
    taps: list[list[Expr]],
    row_weights: list[Expr],
    column_weights: list[Expr],
    count: int,
) -> list[Expr]:
    """The weighted sums of `count` channels."""
    lines = []
    for row in taps:
        near, far = (ops.load_bytes(b, x, at, count) for at in row)
        left, right = (ops.splat(weight) for weight in column_weights)
        lines.append([b.let(p * left + q * right) for p, q in zip(near, far, strict=True)])
    above, below = (ops.splat(weight) for weight in row_weights)
    return [p * above + q * below for p, q in zip(*lines, strict=True)]


def _finish(
    b: Builder,
    ops: VectorOps,
    spec: BilinearSpec,
    buffers: dict[str, Buffer],
    epilogue: EpilogueEmitter,
    totals: list[Expr],
    place: Expr,
) -> None:
    count = min(4 * ops.lanes, spec.channels)
    shift = ops.splat(buffers["params"][SHIFT])
    factor = ops.splat(reinterpret("float32", buffers["params"][FACTOR]))
    values = [b.let(ops.mul(ops.to_f32(total - shift), factor)) for total in totals]
    if spec.out == "byte":
        epilogue.store_quantized(values, place, count)
    else:
        ops.store_words(b, buffers["out"], place, values, count)
