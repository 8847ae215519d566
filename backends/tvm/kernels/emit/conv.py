"""Emitter of `ConvSpec`: loops over tasks and tiles around the register tiles of `dots`. Imports tvm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, Index, i64
from ...isa import Isa, vector_ops
from ..base import KernelSpec, emitter
from ..conv import ConvSpec
from ..conv_plan import ConvPlan, Line, plan_conv
from ..tiling import amx_rows
from .dots import AmxDots, Dots, Operands, Sharing, dots_for, weight_dtype
from .epilogue import EpilogueEmitter
from .paired import PairedEpilogue


@dataclass(frozen=True)
class _Place:
    """Element indices into input, output and residual."""

    x: Expr
    out: Expr
    residual: Expr

    def move(self, line: Line, count: Expr) -> _Place:
        return _Place(self.x + count * line.x, self.out + count * line.out, self.residual + count * line.residual)

    def bind(self, b: Builder) -> _Place:
        return _Place(b.let(self.x), b.let(self.out), b.let(self.residual))


@dataclass(frozen=True)
class _Offset:
    """Where one pixel of a tile lies, in elements from the tile's place."""

    x: Index
    out: Index
    residual: Index


@dataclass(frozen=True)
class _Accumulated:
    """A tile after the loops over K: accumulators by pixel or pair of pixels, and where its results go."""

    acc: list[list[Expr]]
    pixels: Sequence[_Offset]
    place: _Place
    channel: Expr


@emitter(ConvSpec)
def emit(spec: ConvSpec, isa: Isa, symbol: str) -> Any:
    """The kernel of a convolution on one ISA level."""
    plan = plan_conv(spec, isa)
    even = plan.inner.count % plan.tile.units == 0
    kind = _TileConvEmitter if plan.dot.kind == "amx" and even else ConvEmitter
    return kind(spec, spec, plan, isa, symbol).emit()


class ConvEmitter:
    """Emits the kernel `kernel` that computes the convolution `spec`, cut by `plan`."""

    def __init__(self, kernel: KernelSpec, spec: ConvSpec, plan: ConvPlan, isa: Isa, symbol: str) -> None:
        self.kernel, self.spec, self.plan, self.isa = kernel, spec, plan, isa
        self.b, self.ops = Builder(symbol), vector_ops(isa)
        dtypes = {arg.name: arg.dtype_on(isa) for arg in kernel.args} | {"weight": weight_dtype(plan.dot)}
        self.buffers = {name: self.b.arg(name, dtype) for name, dtype in dtypes.items()}
        kind = PairedEpilogue if plan.dot.paired else EpilogueEmitter
        self.epilogue = kind(self.b, self.ops, spec.epilogue, self.buffers)
        self.width = plan.tile.vectors * isa.lanes
        self.dots = self.make_dots()

    def make_dots(self) -> Dots:
        """The register tiles, with the loops over K."""
        spec, plan = self.spec, self.plan
        return dots_for(
            plan.dot,
            self.b,
            self.ops,
            self.operands(),
            rows=amx_rows(plan.tile.units, plan.pixel.count),
            pixels=plan.tile.units * plan.pixel.count,
            full_range=spec.full_range,
            single=plan.blocks * plan.groups == 1,
        )

    def operands(self) -> Operands:
        """What tiles multiply."""
        spec, plan, buffers = self.spec, self.plan, self.buffers
        return Operands(
            buffers["x"],
            buffers["weight"],
            buffers["bias"],
            plan.runs,
            spec.dilation_h * spec.input.row,
            spec.dilation_w * spec.input.pixel,
            plan.tile.vectors,
            plan.ahead,
            plan.lying,
            plan.dot.paired,
            Sharing(spec.shared, spec.in_channels, spec.out_channels // spec.shared) if spec.shared > 1 else None,
            self._ends_half(),
        )

    def _ends_half(self) -> bool:
        """Whether the last vector of every block has few channels, and an instruction for half of it is cheaper."""
        lanes = self.isa.lanes
        few = 0 < self.spec.out_channels % lanes <= lanes // 2
        return few and self.plan.blocks == 1 and self.plan.dot.loop == "vnni" and lanes == 16 and self.spec.shared == 1

    def weights_of(self, index: Expr) -> Expr:
        """What `Dots.accumulate` takes as the place of the weights of channel block `index`."""
        return index * (self.plan.runs.count * self.plan.runs.padded * self.width)

    def emit(self) -> Any:
        """The PrimFunc."""
        b, plan = self.b, self.plan
        self.begin()
        with b.tasks() as task:
            channels, pixels = b.split(task, plan.pixel_chunks)
            lines, stretch = b.split(pixels, plan.inner_chunks)
            if plan.inside:
                with b.loop(0, plan.groups, "group") as group:
                    self._lines(group, (i64(0), i64(plan.blocks)), lines, stretch)
            else:
                group, chunk = b.split(channels, plan.group_chunks)
                self._lines(group, self._chunk(group, chunk, pixels), lines, stretch)
        self.end()
        return b.finish(self.kernel.noalias)

    def _chunk(self, group: Expr, chunk: Expr, pixels: Expr) -> tuple[Expr, Expr]:
        """The first and the end of the channel blocks of a task, which asks for the weights of the next ones."""
        b, plan = self.b, self.plan
        first = b.let(chunk * plan.chunk_blocks)
        end = b.let(tirx.Min(first + plan.chunk_blocks, i64(plan.blocks)))
        size = plan.chunk_blocks * plan.runs.count * plan.run_weights * self.isa.lanes
        self.dots.aim(self.weights_of(group * plan.blocks + end) + pixels * (size // plan.pixel_chunks))
        return first, end

    def begin(self) -> None:
        """What precedes the first task."""
        self.dots.begin()

    def end(self) -> None:
        """What follows the last task."""
        self.dots.end()

    def _lines(self, group: Expr, blocks: tuple[Expr, Expr], lines: Expr, stretch: Expr) -> None:
        b, plan, spec = self.b, self.plan, self.spec
        total = plan.batches.count * plan.outer.count
        low = b.let(lines * plan.chunk_outer)
        high = b.let(tirx.Min(low + plan.chunk_outer, i64(total)))
        residual = spec.epilogue.residual.offset if spec.epilogue.residual else 0
        start = _Place(
            spec.input.offset + group * (spec.in_channels * spec.shared),
            spec.output.offset + group * spec.out_channels,
            residual + group * spec.out_channels,
        )
        with b.loop(low, high, "line") as line:
            image, row = b.split(line, plan.outer.count)
            place = start.move(plan.batches, image).move(plan.outer, row).bind(b)
            self._tiles(place, group, blocks, stretch)

    def _tiles(self, place: _Place, group: Expr, blocks: tuple[Expr, Expr], stretch: Expr) -> None:
        """The whole tiles of one stretch of a line, and behind the last one what is left of the line."""
        b, plan = self.b, self.plan
        units = plan.tile.units
        whole, tail = divmod(plan.inner.count, units)
        low = b.let(stretch * plan.chunk_tiles)
        if whole:
            with b.loop(low, b.let(tirx.Min(low + plan.chunk_tiles, i64(whole))), "tile") as tile:
                self._blocks(place, tile * units, group, blocks, units)
        if tail:
            with b.when(stretch == plan.inner_chunks - 1):
                self._blocks(place, i64(whole * units), group, blocks, tail)

    def _blocks(self, line: _Place, first: Expr, group: Expr, blocks: tuple[Expr, Expr], units: int) -> None:
        """The blocks of a tile that begins with unit `first` of a line."""
        b, plan = self.b, self.plan
        place = line if plan.inner.bent else line.move(plan.inner, first).bind(b)
        pixels = self._pixels(first, units)
        self.dots.gather(place.x, [pixel.x for pixel in pixels])
        with b.loop(*blocks, "block") as block:
            self._tile(place, block, b.let(group * plan.blocks + block), pixels)

    def _pixels(self, first: Expr, units: int) -> list[_Offset]:
        """Where the pixels of a tile lie, from its place on or from the start of a bent line."""
        b, line = self.b, self.plan.inner
        if line.rows is None:
            return _offsets(self.plan, units)
        found: list[_Offset] = []
        for unit in range(units):
            row, column = b.split(b.let(first + unit), line.bent)
            place = _Place(i64(0), i64(0), i64(0)).move(line.rows, row).move(line, column).bind(b)
            found.append(_Offset(place.x, place.out, place.residual))
        return found

    def _tile(self, place: _Place, block: Expr, index: Expr, pixels: Sequence[_Offset]) -> None:
        """The tile at `place` of channel block `block` of a group and `index` of all."""
        b = self.b
        channel = b.let(index * self.width)
        acc = self.dots.accumulate(place.x, [pixel.x for pixel in pixels], b.let(self.weights_of(index)), channel)
        column = b.let(block * self.width)
        moved = _Place(place.x, place.out + column, place.residual + column).bind(b)
        self._finish(_Accumulated(acc, pixels, moved, channel), block)

    def _finish(self, tile: _Accumulated, block: Expr) -> None:
        """The epilogue of a tile."""
        self._by_width(block, lambda count: self._store(tile, self.epilogue.scale(tile.channel, count), count))

    def _by_width(self, block: Expr, emit: Callable[[int], None]) -> None:
        """Emit with the number of channels of a block: the last one of a group may have fewer."""
        last = self.spec.out_channels - (self.plan.blocks - 1) * self.width
        if self.plan.blocks == 1 or last == self.width:
            emit(last)
            return
        with self.b.when(block < self.plan.blocks - 1):
            emit(self.width)
        with self.b.when(block == self.plan.blocks - 1):
            emit(last)

    def _store(self, tile: _Accumulated, scale: Sequence[Expr], count: int) -> None:
        places = [(tile.place.out + pixel.out, tile.place.residual + pixel.residual) for pixel in tile.pixels]
        self.epilogue.store_pixels(tile.acc, scale, places, count)


#: What `_TileConvEmitter` remembers of a tile until its epilogue; no tile has channel -1.
_OUT, _RESIDUAL, _CHANNEL, _BLOCK = range(4)


class _TileConvEmitter(ConvEmitter):
    """A convolution by AMX tiles of one size, where each is multiplied during the epilogue of the one before.

    A processor looks ahead some hundred instructions, and an epilogue has more: else vector units would wait for the
    products, and products for the epilogue.
    """

    dots: AmxDots

    def make_dots(self) -> AmxDots:
        dots = super().make_dots()
        assert isinstance(dots, AmxDots)
        return dots

    def begin(self) -> None:
        super().begin()
        self.pending = self.b.registers(4, "int64", "pending")
        self.b.store(self.pending, _CHANNEL, i64(-1))

    def end(self) -> None:
        with self.b.when(self.pending[_CHANNEL] >= 0):
            place, channel, block = self._taken()
            self._by_width(block, lambda count: self._together(self._parts(place, channel, count)))
        super().end()

    def _tile(self, place: _Place, block: Expr, index: Expr, pixels: Sequence[_Offset]) -> None:
        b, column, sources = self.b, block * self.width, [pixel.x for pixel in pixels]
        weights, bias = b.let(self.weights_of(index)), b.let(index * self.width)
        with b.when(self.pending[_CHANNEL] < 0):
            self.dots.multiply(place.x, sources, weights, bias)
        with b.when(self.pending[_CHANNEL] >= 0):
            before, channel, last = self._taken()
            self._by_width(
                last,
                lambda count: self.dots.multiply(place.x, sources, weights, bias, self._parts(before, channel, count)),
            )
        self.dots.spill(len(pixels))
        for at, value in (
            (_OUT, place.out + column),
            (_RESIDUAL, place.residual + column),
            (_CHANNEL, bias),
            (_BLOCK, block),
        ):
            b.store(self.pending, at, value)

    def _taken(self) -> tuple[_Place, Expr, Expr]:
        """Place, first channel and block of the tile that was multiplied last."""
        out, residual, channel, block = (self.b.let(self.pending[at]) for at in (_OUT, _RESIDUAL, _CHANNEL, _BLOCK))
        return _Place(i64(0), out, residual), channel, block

    def _parts(self, place: _Place, channel: Expr, count: int) -> list[Callable[[], None]]:
        """The epilogue of the tile that was multiplied last, as pieces that fill a vector of bytes."""
        pixels = _offsets(self.plan, self.plan.tile.units)
        scale = self.epilogue.scale(channel, count)
        acc = self.dots.sums(len(pixels))
        size = max(1, 4 // self.ops.vectors_of(count))

        def part(first: int) -> None:
            some = slice(first, first + size)
            self._store(_Accumulated(acc[some], pixels[some], place, channel), scale, count)

        return [partial(part, first) for first in range(0, len(pixels), size)]

    @staticmethod
    def _together(parts: Sequence[Callable[[], None]]) -> None:
        for part in parts:
            part()


def _offsets(plan: ConvPlan, units: int) -> list[_Offset]:
    """Offsets of the pixels of `units` units."""
    inner, pixel = plan.inner, plan.pixel
    return [
        _Offset(u * inner.x + p * pixel.x, u * inner.out + p * pixel.out, u * inner.residual + p * pixel.residual)
        for u in range(units)
        for p in range(pixel.count)
    ]
