"""Emitter of `DepthwiseSpec`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tvm import tirx

from ...builder import Buffer, Builder, Expr, Index, cast, i64, intrin, reinterpret, shuffle, vector
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps, store_part
from .. import epilogue as words
from ..base import StridedView, emitter
from ..depthwise import Axis, DepthwisePlan, DepthwiseSpec, plan_depthwise
from ..epilogue import Epilogue
from .epilogue import EpilogueEmitter


@emitter(DepthwiseSpec)
def emit(spec: DepthwiseSpec, isa: Isa, symbol: str) -> Any:
    """For its rows and channel blocks, a task walks along its stretch of the row in tiles."""
    b, ops, plan = Builder(symbol), vector_ops(isa), plan_depthwise(spec, isa)
    buffers = {arg.name: b.arg(arg.name, _element(plan, arg.name, arg.dtype_on(isa))) for arg in spec.args}
    tile = _Tile(b, ops, plan, buffers, spec)
    with b.tasks() as task:
        pixels, chunk = b.split(task, plan.channel_chunks)
        line, stretch = b.split(pixels, plan.stretches)
        image, row_tile = b.split(line, plan.row_tiles)
        row = b.let(_clipped(row_tile, plan.rows, plan.geometry.h.count))
        first, low = b.let(chunk * plan.chunk_blocks), b.let(stretch * plan.chunk_tiles)
        high = b.let(tirx.Min(low + plan.chunk_tiles, i64(plan.pixel_tiles)))
        place = _Place.at(b, spec, plan.geometry.h, image, row)
        with b.loop(first, tirx.Min(first + plan.chunk_blocks, i64(plan.blocks))) as block:
            channel = b.let(_clipped(block, plan.width, plan.geometry.channels))
            tile.start(place.moved(b, plan.geometry.w, low * plan.pixels, channel).x)
            with b.loop(low, high) as step:
                pixel = b.let(_clipped(step, plan.pixels, plan.geometry.w.count))
                tile.emit(block, step, place.moved(b, plan.geometry.w, pixel, channel))
    return b.finish(spec.noalias)


def _element(plan: DepthwisePlan, name: str, dtype: str) -> str:
    return "int16" if name == "weight" and plan.kind == "pmaddwd" else dtype


def _clipped(index: Expr, size: int, count: int) -> Expr:
    """Where tile number `index` begins; the last one is moved back, so that it ends with the axis."""
    if count % size == 0 or count < size:
        return index * size
    return tirx.Min(index * size, i64(count - size))


class _Place:
    """Element indices of one spot in x, output and residual."""

    def __init__(self, x: Expr, out: Expr, residual: Expr) -> None:
        self.x, self.out, self.residual = x, out, residual

    @staticmethod
    def at(b: Builder, spec: DepthwiseSpec, axis: Axis, image: Expr, row: Expr) -> _Place:
        residual = spec.epilogue.residual or StridedView(0, 0, 0)
        return _Place(
            b.let(image * spec.input.batch + row * (axis.stride * axis.x) + spec.input.offset),
            b.let(image * spec.output.batch + row * axis.out + spec.output.offset),
            b.let(image * residual.batch + row * axis.residual + residual.offset),
        )

    def moved(self, b: Builder, axis: Axis, pixel: Expr, channel: Expr) -> _Place:
        return _Place(
            b.let(self.x + pixel * (axis.stride * axis.x) + channel),
            b.let(self.out + pixel * axis.out + channel),
            b.let(self.residual + pixel * axis.residual + channel),
        )


class _Tile:
    """One register tile: `rows` x `pixels` outputs of one channel block."""

    def __init__(
        self, b: Builder, ops: VectorOps, plan: DepthwisePlan, buffers: dict[str, Buffer], spec: DepthwiseSpec
    ) -> None:
        self.b, self.ops, self.plan, self.buffers = b, ops, plan, buffers
        self.epilogue = InterleavedEpilogue(b, ops, spec.epilogue, buffers, plan.vectors)
        self.together = 1 if spec.full_range else 2

    def start(self, x: Expr) -> None:
        """Bring together the columns that the first tile of a row would have from the one before."""
        plan = self.plan
        if plan.kept:
            vectors = len(plan.kept) * plan.groups * plan.vectors
            self.kept = self.b.registers(vectors, f"{self.buffers['x'].dtype}x{4 * plan.lanes}", "kept")
            for column in plan.kept:
                for group in range(plan.groups):
                    self._keep(column, group, self._column(x, column, group))

    def _keep(self, column: int, group: int, operands: Sequence[Expr]) -> None:
        for v, operand in enumerate(operands):
            self.b.store(self.kept, self._kept_at(column, group) + v, operand)

    def _kept_at(self, column: int, group: int) -> int:
        return (self.plan.kept.index(column) * self.plan.groups + group) * self.plan.vectors

    def emit(self, block: Expr, step: Expr, place: _Place) -> None:
        b, plan = self.b, self.plan
        acc = b.registers(plan.rows * plan.pixels * plan.vectors, self.ops.i32, "acc")
        first = b.let(block * plan.width)
        bias = self.ops.load_words(b, self.buffers["bias"], first, plan.width)
        for at in range(plan.rows * plan.pixels * plan.vectors):
            b.store(acc, at, bias[at % plan.vectors])
        weight = b.let(block * plan.block_weights)
        scale = self.epilogue.scale(first, plan.width)
        if plan.rolled:
            self._rolled(acc, place.x, weight)
            self._finish(acc, 0, scale, place)
        elif plan.kind == "smlal":
            self._pairs(acc, place.x, weight)
            for pixel in range(plan.pixels):
                self._finish(acc, pixel, scale, place)
        else:
            weights = self._row_weights(weight, step)
            self._columns(acc, place.x, weights, lambda pixel: self._finish(acc, pixel, scale, place))

    def _finish(self, acc: Buffer, pixel: int, scale: Sequence[Expr], place: _Place) -> None:
        """The epilogue of one pixel in all rows of the tile."""
        plan, h, w = self.plan, self.plan.geometry.h, self.plan.geometry.w
        count = min(plan.width, plan.geometry.channels)
        for row in range(plan.rows):
            at = (row * plan.pixels + pixel) * plan.vectors
            values = [self.b.let(acc[at + v]) for v in range(plan.vectors)]
            out = place.out + (row * h.out + pixel * w.out)
            residual = place.residual + (row * h.residual + pixel * w.residual)
            self.epilogue.store(values, scale, out, residual, count)

    # Dot products over several taps of one column

    def _row_weights(self, weight: Expr, step: Expr) -> list[Expr]:
        """Where each row of the tile reads the weights from element `weight` on.

        Those that do not stay in registers are operands of instructions. LLVM would load them before the loop over
        tiles and store them elsewhere, or load them once for two rows: it takes none of these places to be the same.
        """
        b, plan = self.b, self.plan
        if plan.resident(self.ops.isa.vectors):
            return [weight] * plan.rows
        slots = [[plan.slots_of(row, group) for group in plan.groups_of(row)] for row in range(plan.rows)]
        copies = [slots[:row].count(slots[row]) for row in range(plan.rows)]
        places = [b.let(b.anew(weight, step + copy)) for copy in range(max(copies) + 1)]
        return [places[copy] for copy in copies]

    def _columns(self, acc: Buffer, x: Expr, weights: Sequence[Expr], finish: Callable[[int], None]) -> None:
        """Bring together each column of taps once, and use it for every output that has it.

        A pixel is finished as soon as its last column is done, which frees its registers.
        """
        plan, w = self.plan, self.plan.geometry.w
        uses: dict[int, list[tuple[int, int]]] = {}
        for pixel in range(plan.pixels):
            for k in range(w.kernel):
                uses.setdefault(pixel * w.stride + k * w.dilation, []).append((pixel, k))
        for column, found in sorted(uses.items()):
            for group in range(plan.groups):
                if column in plan.kept:
                    first = self._kept_at(column, group)
                    operands = [self.b.let(self.kept[first + v]) for v in range(plan.vectors)]
                else:
                    operands = self._column(x, column, group)
                if (before := column - plan.pixels * w.stride) in plan.kept:
                    self._keep(before, group, operands)
                for row in (row for row in range(plan.rows) if group in plan.groups_of(row)):
                    for pixel, k in found:
                        weight = weights[row] + self._at(row, k, group)
                        self._accumulate(acc, row * plan.pixels + pixel, operands, weight)
            for pixel, k in found:
                if k == w.kernel - 1:
                    finish(pixel)

    def _column(self, x: Expr, column: int, group: int) -> list[Expr]:
        """The operands of a group of taps in one column."""
        plan, h, w = self.plan, self.plan.geometry.h, self.plan.geometry.w
        taps = plan.taps[group * plan.group : (group + 1) * plan.group]
        return self._gathered([x + (tap * h.x + column * w.x) for tap in taps])

    def _at(self, row: int, column: int, group: int) -> int:
        plan = self.plan
        at = column * len(plan.slots) + plan.slots.index(plan.slots_of(row, group))
        return at * plan.group * plan.width

    def _rolled(self, acc: Buffer, x: Expr, weight: Expr) -> None:
        """The same for a large kernel and a single output, with loops over columns and groups of taps."""
        b, plan, h, w = self.b, self.plan, self.plan.geometry.h, self.plan.geometry.w
        whole, rest = divmod(h.kernel, plan.group)
        step = h.dilation * h.x

        def group_of(start: Expr, size: int, weights: Expr) -> None:
            places = [start + tap * step for tap in range(size)]
            if plan.kind == "smlal":
                self._single(acc, places[0], weights)
            else:
                self._accumulate(acc, 0, self._gathered(places), weights)

        with b.loop(0, w.kernel) as column:
            start = b.let(x + column * (w.dilation * w.x))
            weights = b.let(weight + column * (plan.groups * plan.group * plan.width))
            with b.loop(0, whole) as group:
                offset = group * (plan.group * plan.width)
                group_of(b.let(start + group * (plan.group * step)), plan.group, b.let(weights + offset))
            if rest:
                tail = b.let(start + whole * plan.group * step)
                group_of(tail, rest, b.let(weights + whole * plan.group * plan.width))

    def _gathered(self, places: Sequence[Index]) -> list[Expr]:
        """The vectors of a block whose 32-bit lanes hold the bytes (words for pmaddwd) of all taps of a channel."""
        b, plan = self.b, self.plan
        loaded = [b.let(self.buffers["x"].load(place, plan.width)) for place in places]
        loaded += loaded[-1:] * (plan.group - len(loaded))
        if plan.kind == "pmaddwd":
            wide = [b.let(cast(vector("int16", plan.width), value)) for value in loaded]
            return [b.let(half) for half in unpack(wide[0], wide[1], "int16")]
        dtype = self.buffers["x"].dtype
        low, high = (_interleaved(loaded[at], loaded[at + 1], dtype) for at in (0, 2))
        found: list[Expr] = []
        for left, right in zip(low, high, strict=True):
            words = int(left.ty.dtype.lanes) // 2
            pairs = [b.let(reinterpret(vector("int16", words), value)) for value in (left, right)]
            found += [b.let(half) for half in unpack(pairs[0], pairs[1], "int16")]
        return [b.let(reinterpret(vector(dtype, 4 * plan.lanes), value)) for value in found]

    def _accumulate(self, acc: Buffer, output: int, operands: Sequence[Expr], weight: Index) -> None:
        b, plan = self.b, self.plan
        size = plan.group * plan.lanes
        for v, operand in enumerate(operands):
            at = output * plan.vectors + v
            weights = self.buffers["weight"].load(weight + v * size, size)
            b.store(acc, at, self._dot(acc[at], operand, weights))

    def _dot(self, total: Expr, x: Expr, weights: Expr) -> Expr:
        i32 = self.ops.i32
        if self.plan.kind == "pmaddwd":
            return total + intrin(i32, "llvm.x86.avx2.pmadd.wd", x, weights)
        if self.plan.kind == "sdot":
            return intrin(i32, "llvm.aarch64.neon.sdot.v4i32.v16i8", total, x, weights)
        return intrin(i32, f"llvm.x86.avx512.vpdpbusd.{32 * self.plan.lanes}", total, x, weights)

    # ARMv8.0: products of two taps in words

    def _pairs(self, acc: Buffer, x: Expr, weight: Expr) -> None:
        b, plan, h, w = self.b, self.plan, self.plan.geometry.h, self.plan.geometry.w
        loaded: dict[tuple[int, int], Expr] = {}
        taps = [(row, column) for row in range(h.kernel) for column in range(w.kernel)]
        for position in range(0, len(taps), self.together):
            pair = taps[position : position + self.together]
            weights = [b.let(self.buffers["weight"].load(weight + (k * h.kernel + r) * 16, 16)) for r, k in pair]
            for output in range(plan.pixels):
                values = []
                for r, k in pair:
                    spot = (r * h.dilation, output * w.stride + k * w.dilation)
                    if spot not in loaded:
                        loaded[spot] = b.let(self.buffers["x"].load(x + (spot[0] * h.x + spot[1] * w.x), 16))
                    values.append(loaded[spot])
                self._add_products(acc, output, values, weights)

    def _single(self, acc: Buffer, place: Index, weight: Index) -> None:
        b = self.b
        value = b.let(self.buffers["x"].load(place, 16))
        self._add_products(acc, 0, [value], [b.let(self.buffers["weight"].load(weight, 16))])

    def _add_products(self, acc: Buffer, output: int, values: Sequence[Expr], weights: Sequence[Expr]) -> None:
        """Add one or two products to every accumulator of an output; two fit a word unless all four are -128."""
        b = self.b
        for half in range(2):
            part = range(8 * half, 8 * half + 8)
            products = [
                intrin("int16x8", "llvm.aarch64.neon.smull.v8i16", shuffle([x], part), shuffle([weight], part))
                for x, weight in zip(values, weights, strict=True)
            ]
            total = b.let(products[0] if len(products) == 1 else products[0] + products[1])
            for quarter in range(2):
                at = output * self.plan.vectors + 2 * half + quarter
                widened = cast("int32x4", shuffle([total], range(4 * quarter, 4 * quarter + 4)))
                b.store(acc, at, acc[at] + widened)


def _interleaved(left: Expr, right: Expr, element: str) -> tuple[Expr, ...]:
    """`unpack`, as one vector where both halves fit it."""
    lanes = int(left.ty.dtype.lanes)
    if lanes * np.dtype(element).itemsize < 16:
        return (shuffle([left, right], [lane for at in range(lanes) for lane in (at, lanes + at)]),)
    return unpack(left, right, element)


def unpack(left: Expr, right: Expr, element: str) -> tuple[Expr, Expr]:
    """Interleave the low, then the high half of every 128-bit group of two vectors (punpckl/h, zip1/2)."""
    lanes = int(left.ty.dtype.lanes)
    group = 16 // np.dtype(element).itemsize
    halves = []
    for start in (0, group // 2):
        order = [
            lane
            for base in range(0, lanes, group)
            for at in range(base + start, base + start + group // 2)
            for lane in (at, lanes + at)
        ]
        halves.append(shuffle([left, right], order))
    return halves[0], halves[1]


class InterleavedEpilogue(EpilogueEmitter):
    """The epilogue of a block whose channels are in the order that `unpack` leaves: narrowing restores it for free."""

    def __init__(self, b: Builder, ops: VectorOps, spec: Epilogue, buffers: dict[str, Buffer], vectors: int) -> None:
        super().__init__(b, ops, spec, buffers)
        self.width = vectors * ops.lanes
        lane = range(ops.lanes)
        self.order = [[at // 4 * 4 * vectors + 4 * v + at % 4 for at in lane] for v in range(vectors)]

    def store(self, acc: Sequence[Expr], scale: Sequence[Expr], index: Index, residual: Index, count: int) -> None:
        b, ops, spec = self.b, self.ops, self.spec
        if spec.out == "i32":
            ops.store_words(b, self.buffers["out"], index, self._sorted(acc), count)
            return
        scaled = [ops.mul(ops.to_f32(value), factor) for value, factor in zip(acc, scale, strict=True)]
        if spec.out == "f32":
            ops.store_words(b, self.buffers["out"], index, self._sorted(scaled), count)
            return
        if spec.residual is not None:
            scaled = self._with_residual(scaled, residual)
        stored = ops.quantize_interleaved(scaled, self.range())
        if spec.table:
            stored = ops.lookup(b, self.buffers["table"], b.let(stored), self.width)
        store_part(b, self.buffers["out"], index, b.let(stored), count=count, lanes=self.width)

    def _sorted(self, values: Sequence[Expr]) -> list[Expr]:
        """The vectors in channel order, each made of four lanes from every source."""
        if self.ops.lanes == 4:
            return list(values)
        flat = [lane for vector_order in self.order for lane in vector_order]
        held = [self.b.let(value) for value in values]
        position = {channel: at for at, channel in enumerate(flat)}
        starts = range(0, self.width, self.ops.lanes)
        return [
            self.b.let(shuffle(held, [position[channel] for channel in range(start, start + self.ops.lanes)]))
            for start in starts
        ]

    def _with_residual(self, values: Sequence[Expr], index: Index) -> list[Expr]:
        ops = self.ops
        held = self.b.let(self.buffers["residual"].load(index, self.width))
        shift = self._word(words.RESIDUAL_ZERO_POINT)
        return self._added(values, [cast(ops.i32, shuffle([held], order)) - shift for order in self.order])
