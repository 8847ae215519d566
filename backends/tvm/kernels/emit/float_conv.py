"""Emitters of `FloatConvSpec` and `FloatMatmulSpec`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, i64, intrin
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..float_conv import FloatConvPlan, FloatConvSpec, FloatMatmulSpec, plan_float_conv
from .strided import block_start


@dataclass(frozen=True)
class _Site:
    """One tile: image, row, group, block number, first channel and first pixel."""

    image: Expr
    row: Expr
    group: Expr
    block: Expr
    channel: Expr
    pixel: Expr


@emitter(FloatConvSpec)
def emit_conv(spec: FloatConvSpec, isa: Isa, symbol: str) -> Any:
    """Bias, products in order of K, residual, clamp."""
    b, ops, plan = Builder(symbol), vector_ops(isa), plan_float_conv(spec, isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    view = spec.input

    def tile(site: _Site) -> None:
        number = b.let(site.group * plan.blocks + site.block)
        bias = ops.load_words(b, buffers["bias"], b.let(number * plan.width), plan.width)
        start = b.let(
            site.image * view.batch
            + site.row * (spec.stride_h * view.row)
            + site.pixel * (spec.stride_w * view.pixel)
            + site.group * spec.in_channels
            + (site.channel if spec.depthwise else i64(0))
            + view.offset
        )
        weights = b.let(number * (plan.depth * plan.width))
        sums = _Sums(b, ops, plan, buffers["x"], buffers["weight"], spec.stride_w * view.pixel)
        acc = sums.start(bias)
        with ExitStack() as stack:
            row, column, k = (
                stack.enter_context(b.loop(0, size)) for size in (spec.kernel_h, spec.kernel_w, spec.in_channels)
            )
            at = b.let(start + row * (spec.dilation_h * view.row) + column * (spec.dilation_w * view.pixel) + k)
            weight = b.let(weights + ((row * spec.kernel_w + column) * spec.in_channels + k) * plan.width)
            sums.add(acc, at, weight, along=spec.depthwise)
        _finish(b, ops, spec, plan, buffers, site, acc)

    _tiles(b, plan, tile)
    return b.finish(spec.noalias)


@emitter(FloatMatmulSpec)
def emit_matmul(spec: FloatMatmulSpec, isa: Isa, symbol: str) -> Any:
    """The same tiles; the right operand is read as it lies."""
    b, ops, plan = Builder(symbol), vector_ops(isa), spec.plan(isa)
    x, y, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    left = spec.x_strides or (spec.rows * spec.depth, spec.depth)
    right = spec.y_strides or (spec.depth * spec.columns, spec.columns)
    target = spec.out_strides or (spec.rows * spec.columns, spec.columns)

    def tile(site: _Site) -> None:
        start = b.let(site.image * left[0] + site.pixel * left[1])
        weights = b.let(site.image * right[0] + site.channel)
        sums = _Sums(b, ops, plan, x, y, left[1])
        acc = sums.start([ops.const_f32(0)] * plan.vectors)
        with b.loop(0, spec.depth) as k:
            sums.add(acc, b.let(start + k), b.let(weights + k * right[1]), along=False)
        place = b.let(site.image * target[0] + site.pixel * target[1] + site.channel)
        count = min(plan.width, plan.channels)
        for pixel in range(plan.pixels):
            values = [b.let(acc[pixel * plan.vectors + v]) for v in range(plan.vectors)]
            ops.store_words(b, out, place + pixel * target[1], values, count)

    _tiles(b, plan, tile)
    return b.finish(spec.noalias)


class _Sums:
    """The accumulators of a tile: `pixels` x `vectors` native vectors."""

    def __init__(self, b: Builder, ops: VectorOps, plan: FloatConvPlan, x: Buffer, weight: Buffer, step: int) -> None:
        self.b, self.ops, self.plan, self.x, self.weight, self.step = b, ops, plan, x, weight, step

    def start(self, bias: list[Expr]) -> Buffer:
        """Fresh accumulators that hold the bias."""
        acc = self.b.registers(self.plan.pixels * self.plan.vectors, self.ops.f32, "acc")
        for at in range(self.plan.pixels * self.plan.vectors):
            self.b.store(acc, at, bias[at % self.plan.vectors])
        return acc

    def add(self, acc: Buffer, x: Expr, weight: Expr, *, along: bool) -> None:
        """One more term for all; with `along`, channels of x lie in the lanes, else one element meets all channels."""
        b, ops, plan = self.b, self.ops, self.plan
        weights = [b.let(self.weight.load(weight + v * ops.lanes, ops.lanes)) for v in range(plan.vectors)]
        for pixel in range(plan.pixels):
            place = x + pixel * self.step
            values = (
                [self.x.load(place + v * ops.lanes, ops.lanes) for v in range(plan.vectors)]
                if along
                else [b.let(ops.splat(self.x[place]))] * plan.vectors
            )
            for v, value in enumerate(values):
                at = pixel * plan.vectors + v
                name = f"llvm.fma.v{ops.lanes}f32"
                b.store(acc, at, intrin(ops.f32, name, value, weights[v], acc[at]))


def _finish(
    b: Builder,
    ops: VectorOps,
    spec: FloatConvSpec,
    plan: FloatConvPlan,
    buffers: dict[str, Buffer],
    site: _Site,
    acc: Buffer,
) -> None:
    count = min(plan.width, plan.channels)
    low, high = (b.let(ops.splat(buffers["bounds"][at])) for at in range(2))
    channel = site.group * plan.channels + site.channel
    out, added = spec.output, spec.residual
    place = b.let(site.image * out.batch + site.row * out.row + site.pixel * out.pixel + channel + out.offset)
    for pixel in range(plan.pixels):
        values = [b.let(acc[pixel * plan.vectors + v]) for v in range(plan.vectors)]
        if added is not None:
            at = site.image * added.batch + site.row * added.row + (site.pixel + pixel) * added.pixel
            terms = ops.load_words(b, buffers["residual"], b.let(at + channel + added.offset), count)
            values = [b.let(value + term) for value, term in zip(values, terms, strict=True)]
        raised = [b.let(tirx.Select(value < low, low, value)) for value in values]
        clamped = [b.let(tirx.Select(value > high, high, value)) for value in raised]
        ops.store_words(b, buffers["out"], place + pixel * out.pixel, clamped, count)


def _tiles(b: Builder, plan: FloatConvPlan, tile: Callable[[_Site], None]) -> None:
    """All tiles: a task is one row of one group, or a tile of pixels, or a channel block of it."""
    with b.tasks() as task:
        rest = task
        places = []
        for size in (plan.pixel_chunks, plan.block_chunks, plan.groups, plan.rows):
            places.append(b.let(tirx.floormod(rest, i64(size))))
            rest = b.let(tirx.floordiv(rest, i64(size)))
        with ExitStack() as stack:
            block = places[1] if plan.block_chunks > 1 else stack.enter_context(b.loop(0, plan.blocks))
            number = places[0] if plan.pixel_chunks > 1 else stack.enter_context(b.loop(0, plan.tiles))
            channel = block_start(b, block, plan.width, plan.channels)
            pixel = block_start(b, number, plan.pixels, plan.columns)
            tile(_Site(rest, places[3], places[2], block, channel, pixel))
