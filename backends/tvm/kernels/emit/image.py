"""Emitter of `QuantizeImageSpec`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, i64, shuffle
from ...isa import Isa, vector_ops
from ...isa.vector import ByteRange, VectorOps, store_part
from ..base import emitter
from ..image import PIXELS, QuantizeImageSpec
from .epilogue import byte_range
from .unary import divided


@emitter(QuantizeImageSpec)
def emit(spec: QuantizeImageSpec, isa: Isa, symbol: str) -> Any:
    """A row in blocks of sixteen pixels; the last one is moved back to end with the row."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    into = byte_range(buffers["params"])
    view, plane = spec.output, spec.height * spec.width
    count = min(PIXELS, spec.width)
    with b.tasks() as task:
        image = b.let(tirx.floordiv(task, i64(spec.height)))
        row = b.let(tirx.floormod(task, i64(spec.height)))
        source = b.let(image * (spec.channels * plane) + row * spec.width)
        target = b.let(image * view.batch + row * view.row + view.offset)
        scale = b.let(ops.splat(buffers["scale"][0]))
        with b.loop(0, -(-spec.width // PIXELS)) as block:
            start = b.let(tirx.Min(block * PIXELS, i64(spec.width - count)))
            place = b.let(target + start * view.pixel)

            def bytes_of(plane_start: Expr) -> Expr:
                values = divided(b, ops, buffers["x"], scale, plane_start, PIXELS)
                return _quantized(b, ops, into, values)

            if spec.interleaved:
                planes = [bytes_of(b.let(source + (channel * plane + start))) for channel in range(spec.channels)]
                _store_interleaved(b, buffers["out"], place, planes, count)
            else:
                with b.loop(0, spec.channels) as channel:
                    values = bytes_of(b.let(source + (channel * plane + start)))
                    for pixel in range(count):
                        at = place + (channel + pixel * view.pixel)
                        store_part(b, buffers["out"], at, _rotated(values, pixel), count=1, lanes=PIXELS)
    return b.finish(spec.noalias)


def _rotated(values: Expr, first: int) -> Expr:
    return shuffle([values], [(first + lane) % PIXELS for lane in range(PIXELS)])


def _quantized(b: Builder, ops: VectorOps, into: ByteRange, values: Sequence[Expr]) -> Expr:
    """Sixteen float32 values as one vector of bytes."""
    taken = ops.pack_size(len(values))
    parts = [b.let(ops.quantize(values[at : at + taken], into)) for at in range(0, len(values), taken)]
    return parts[0] if len(parts) == 1 else b.let(shuffle(parts, range(PIXELS)))


def _store_interleaved(b: Builder, out: Buffer, place: Expr, planes: list[Expr], count: int) -> None:
    """Store `count` pixels whose channels come from different vectors."""
    channels = len(planes)
    left = count * channels
    for part in range(channels):
        lanes = [divmod(at, channels) for at in range(part * PIXELS, (part + 1) * PIXELS)]
        value = planes[0] if channels == 1 else _merged(b, planes, [(channel, pixel) for pixel, channel in lanes])
        size = min(PIXELS, left - part * PIXELS)
        if size > 0:
            store_part(b, out, place + i64(part * PIXELS), value, count=size, lanes=PIXELS)


def _merged(b: Builder, planes: list[Expr], picks: list[tuple[int, int]]) -> Expr:
    """Lane i is element picks[i][1] of vector picks[i][0]; two vectors at a time, which is what processors do."""
    merged = b.let(shuffle(planes[:2], [min(channel, 1) * PIXELS + pixel for channel, pixel in picks]))
    for number in range(2, len(planes)):
        picked = [PIXELS + pixel if channel == number else at for at, (channel, pixel) in enumerate(picks)]
        merged = b.let(shuffle([merged, planes[number]], picked))
    return merged
