"""Quantizing planes of float32 into interleaved bytes: NCHW images of few channels to NHWC. Imports tvm."""

from __future__ import annotations

from tvm import tirx

from ...builder import Buffer, Builder, Expr, i64, reinterpret, shuffle
from ...isa.vector import ByteRange, VectorOps, store_part
from ..unary import FACTOR, PIXELS, RUN_PIXELS, UnarySpec
from .epilogue import byte_range
from .values import divided


def emit_interleaved(b: Builder, ops: VectorOps, spec: UnarySpec, buffers: dict[str, Buffer]) -> None:
    """A task is a run of pixels, in blocks of sixteen; the last one is moved back to end with the run."""
    loops = spec.loops
    (channels, pixels), plane = (loops.inner, loops.shape[-2]), loops.strides[0][-1]
    runs, size = -(-pixels // RUN_PIXELS), min(PIXELS, pixels)
    into = byte_range(buffers["params"])
    scale = ops.splat(reinterpret("float32", buffers["params"][FACTOR]))
    with b.tasks() as task:
        first = b.let(tirx.floormod(task, i64(runs)) * RUN_PIXELS)
        rest = b.let(tirx.floordiv(task, i64(runs)))
        starts: list[Expr] = [i64(0), i64(0)]
        for axis in reversed(range(len(loops.shape) - 2)):
            index = b.let(tirx.floormod(rest, i64(loops.shape[axis])))
            rest = b.let(tirx.floordiv(rest, i64(loops.shape[axis])))
            starts = [b.let(start + index * row[axis]) for start, row in zip(starts, loops.strides, strict=True)]
        last = b.let(tirx.Min(first + RUN_PIXELS, i64(pixels)))
        with b.loop(0, tirx.floordiv(last - first + (PIXELS - 1), i64(PIXELS))) as block:
            pixel = b.let(tirx.Min(first + block * PIXELS, i64(pixels - size)))
            places = [b.let(starts[0] + pixel + at) for at in range(0, channels * plane, plane)]
            loaded = [ops.load_words(b, buffers["x"], place, PIXELS) for place in places]
            planes = [quantized(b, ops, into, divided(b, ops, values, scale)) for values in loaded]
            _store(b, buffers["out"], b.let(starts[1] + pixel * channels), planes, size)


def quantized(b: Builder, ops: VectorOps, into: ByteRange, values: list[Expr]) -> Expr:
    """Sixteen float32 values as one vector of bytes."""
    taken = ops.pack_size(len(values))
    parts = [b.let(ops.quantize(values[at : at + taken], into)) for at in range(0, len(values), taken)]
    return parts[0] if len(parts) == 1 else b.let(shuffle(parts, range(PIXELS)))


def _store(b: Builder, out: Buffer, place: Expr, planes: list[Expr], count: int) -> None:
    """Store `count` pixels whose channels come from different vectors."""
    channels = len(planes)
    for part in range(channels):
        size = min(PIXELS, count * channels - part * PIXELS)
        if size > 0:
            lanes = [divmod(at, channels) for at in range(part * PIXELS, (part + 1) * PIXELS)]
            value = _merged(b, planes, [(channel, pixel) for pixel, channel in lanes])
            store_part(b, out, place + i64(part * PIXELS), value, count=size, lanes=PIXELS)


def _merged(b: Builder, planes: list[Expr], picks: list[tuple[int, int]]) -> Expr:
    """Lane i is element picks[i][1] of vector picks[i][0]; two vectors at a time, which is what processors do."""
    merged = b.let(shuffle(planes[:2], [min(channel, 1) * PIXELS + pixel for channel, pixel in picks]))
    for number in range(2, len(planes)):
        picked = [PIXELS + pixel if channel == number else at for at, (channel, pixel) in enumerate(picks)]
        merged = b.let(shuffle([merged, planes[number]], picked))
    return merged
