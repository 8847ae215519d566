"""Emitters of `NearestSpec`, `BilinearSpec` and `FloatLinearSpec`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, cast, reinterpret
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..epilogue import Epilogue
from ..resize import FACTOR, SHIFT, BilinearSpec, FloatLinearSpec, NearestSpec
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
        image, row = b.split(task, spec.out_h)
        source = b.let(image * spec.input.batch + _index(buffers["rows"], row) * spec.input.row + spec.input.offset)
        target = b.let(image * spec.output.batch + row * spec.output.row + spec.output.offset)
        with b.loop(0, spec.out_w) as column:
            start = b.let(source + _index(buffers["columns"], column) * spec.input.pixel)
            place = b.let(target + column * spec.output.pixel)
            copy_run(b, buffers["x"], buffers["out"], start, place, spec.channels, widest)
    return b.finish(spec.noalias)


@emitter(BilinearSpec)
def emit_bilinear(spec: BilinearSpec, isa: Isa, symbol: str) -> Any:
    """Channels in blocks of four vectors, in int32."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    epilogue = EpilogueEmitter(b, ops, Epilogue(), buffers)

    def mix(x: Expr, first: Expr, y: Expr, second: Expr) -> Expr:
        return x * first + y * second

    def block(taps: Taps, place: Expr, count: int) -> None:
        loaded = [[ops.load_bytes(b, buffers["x"], at, count) for at in row] for row in taps.places]
        _finish(b, ops, spec, buffers, epilogue, taps.mixed(b, ops, loaded, mix), place)

    _linear(b, spec, buffers, 4 * ops.lanes, block)
    return b.finish(spec.noalias)


@emitter(FloatLinearSpec)
def emit_linear(spec: FloatLinearSpec, isa: Isa, symbol: str) -> Any:
    """One vector of channels at a time, in float32."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}

    def mix(x: Expr, first: Expr, y: Expr, second: Expr) -> Expr:
        return tirx.Add(ops.mul(x, first), ops.mul(y, second))

    def block(taps: Taps, place: Expr, count: int) -> None:
        loaded = [[ops.load_words(b, buffers["x"], at, count) for at in row] for row in taps.places]
        ops.store_words(b, buffers["out"], place, taps.mixed(b, ops, loaded, mix), count)

    _linear(b, spec, buffers, ops.lanes, block)
    return b.finish(spec.noalias)


@dataclass(frozen=True)
class Taps:
    """Two rows by two columns: element indices, and the scalar weights of rows and columns."""

    places: list[list[Expr]]
    row_weights: list[Expr]
    column_weights: list[Expr]

    def mixed(
        self, b: Builder, ops: VectorOps, loaded: list[list[list[Expr]]], mix: Callable[[Expr, Expr, Expr, Expr], Expr]
    ) -> list[Expr]:
        """The weighted sums of the vectors at the four places: columns first."""
        left, right = (ops.splat(weight) for weight in self.column_weights)
        above, below = (ops.splat(weight) for weight in self.row_weights)
        lines = [[b.let(mix(x, left, y, right)) for x, y in zip(near, far, strict=True)] for near, far in loaded]
        return [b.let(mix(x, above, y, below)) for x, y in zip(*lines, strict=True)]


def _linear(
    b: Builder,
    spec: BilinearSpec | FloatLinearSpec,
    buffers: dict[str, Buffer],
    step: int,
    block: Callable[[Taps, Expr, int], None],
) -> None:
    """All pixels of a task's row, channels in blocks of `step`; the last block is moved back."""
    view, count = spec.input, min(step, spec.channels)
    with b.tasks() as task:
        image, row = b.split(task, spec.out_h)
        base = b.let(image * view.batch + view.offset)
        rows = [b.let(base + _index(buffers["rows"], row * 2 + at) * view.row) for at in range(2)]
        row_weights = [b.let(buffers["row_weights"][row * 2 + at]) for at in range(2)]
        target = b.let(image * spec.output.batch + row * spec.output.row + spec.output.offset)
        with b.loop(0, spec.out_w) as column:
            columns = [b.let(_index(buffers["columns"], column * 2 + at) * view.pixel) for at in range(2)]
            column_weights = [b.let(buffers["column_weights"][column * 2 + at]) for at in range(2)]
            with b.loop(0, -(-spec.channels // step)) as number:
                channel = block_start(b, number, step, spec.channels)
                places = [[b.let(line + offset + channel) for offset in columns] for line in rows]
                place = b.let(target + column * spec.output.pixel + channel)
                block(Taps(places, row_weights, column_weights), place, count)


def _index(table: Buffer, position: Expr) -> Expr:
    return cast("int64", table[position])


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
