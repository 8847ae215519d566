"""Emitter of `SparseConvSpec`: the loops of a convolution around tiles that walk a list of blocks. Imports tvm."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from ...builder import Buffer, Builder, Expr, const, intrin, reinterpret, shuffle
from ...isa import Isa
from ...isa.vector import VectorOps
from ..base import emitter
from ..packing import BLOCK_CHANNELS, BLOCK_DEPTH
from ..sparse import SparseConvSpec, plan_sparse
from .conv import ConvEmitter
from .dots import Accumulators, Dots, Operands, SmmlaDots, VectorDots, dots_for
from .lists import Lists

#: Additions under way at once that hide the latency of a multiply-accumulate instruction.
IN_FLIGHT = 10
#: A tile of few pixels has at most this many sums for each result.
MOST_CHAINS = 8


@emitter(SparseConvSpec)
def emit(spec: SparseConvSpec, isa: Isa, symbol: str) -> Any:
    """The kernel of a convolution with sparse weights on one ISA level."""
    return _SparseEmitter(spec, spec.conv, plan_sparse(spec, isa), isa, symbol).emit()


class _SparseEmitter(ConvEmitter):
    def make_dots(self) -> Dots:
        plan, buffers = self.plan, self.buffers
        operands = Operands(
            buffers["x"],
            buffers["weight"],
            buffers["bias"],
            plan.runs,
            0,
            0,
            plan.tile.vectors,
            paired=plan.dot.paired,
        )
        lists = Lists(buffers["starts"], buffers["taps"])
        if plan.dot.kind == "smmla":
            return _SmmlaBlocks(self.b, self.ops, operands, lists)
        if plan.dot.kind == "smull":
            return _SmullBlocks(self.b, self.ops, operands, lists, full_range=self.spec.full_range)
        dots = dots_for(plan.dot, self.b, self.ops, operands, full_range=self.spec.full_range)
        assert isinstance(dots, VectorDots)
        return _VectorBlocks(self.b, self.ops, operands, lists, dots, plan.dot.registers)

    def weights_of(self, index: Expr) -> Expr:
        return index


@contextmanager
def _pairs(b: Builder, lists: Lists, tile: Expr) -> Generator[Expr]:
    """A loop over every second block of a tile, whose number of blocks is even."""
    first, last = lists.bounds(b, tile)
    with b.loop(0, (last - first) // 2) as pair:
        yield b.let(first + 2 * pair)


class _VectorBlocks(Dots):
    """Tiles of one vector for each pixel and channel vector; the place of weights is the number of a channel tile."""

    def __init__(
        self, b: Builder, ops: VectorOps, operands: Operands, lists: Lists, dots: VectorDots, registers: int
    ) -> None:
        super().__init__(b, ops, operands)
        self.lists, self.dots, self.registers = lists, dots, registers

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        b, vectors = self.b, self.operands.vectors
        chains = self._chains(len(pixels), channel)
        count = len(chains)
        first, last = self.lists.bounds(b, weight)
        rest = first
        if count > 1:
            rest = b.let(last - (last - first) % count)
            with b.loop(0, (rest - first) // count) as group:
                for number, acc in enumerate(chains):
                    self._step(acc, x, pixels, b.let(first + group * count + number))
        with b.loop(rest, last) as block:
            self._step(chains[0], x, pixels, block)
        totals = [sum((acc[at] for acc in chains[1:]), chains[0][at]) for at in range(len(pixels) * vectors)]
        return [totals[at : at + vectors] for at in range(0, len(totals), vectors)]

    def _chains(self, pixels: int, channel: Expr) -> list[Buffer]:
        """Accumulators that take turns, as many as hide the latency and fit the registers; the first has the bias."""
        b, tile = self.b, pixels * self.operands.vectors
        wanted = min(MOST_CHAINS, -(-IN_FLIGHT // tile), (self.registers - 4) // tile)
        rest = [b.registers(tile, self.ops.i32, "acc") for _ in range(1, wanted)]
        for position in range(tile):
            for acc in rest:
                b.store(acc, position, self.ops.const_i32(0))
        return [self.start(pixels, channel), *rest]

    def _step(self, acc: Buffer, x: Expr, pixels: Sequence[int], block: Expr) -> None:
        weight = self.b.let(block * (BLOCK_CHANNELS * BLOCK_DEPTH))
        self.dots.step(acc, self.lists.tap(self.b, x, block), pixels, weight, BLOCK_DEPTH)


class _SmmlaBlocks(SmmlaDots):
    """smmla of two blocks: its eight bytes of K are four of each."""

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands, lists: Lists) -> None:
        super().__init__(b, ops, operands)
        self.lists = lists

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        b, acc = self.b, self.start(len(pixels), channel)
        with _pairs(b, self.lists, weight) as block:
            taps = [self.lists.tap(b, x, block + number) for number in (0, 1)]
            quads = [[self._load(tap + offset) for tap in taps] for offset in pixels]
            rows = [[self._joined(quads[at : at + 2])] for at in range(0, len(pixels), 2)]
            self.multiply(acc, rows, b.let(block * (BLOCK_CHANNELS * BLOCK_DEPTH)))
        return self.results(acc, len(pixels))

    def _load(self, place: Expr) -> Expr:
        return self.b.let(reinterpret("int32x2", self.operands.x.load(place, 8)))

    def _joined(self, quads: Sequence[Sequence[Expr]]) -> Expr:
        """The four bytes for each block of one pixel, then of the next; an odd last pixel pairs with itself."""
        return self.b.let(reinterpret("int8x16", shuffle([*quads[0], *quads[-1]], [0, 2, 4, 6])))


class _SmullBlocks(Dots):
    """ARMv8.0: smull and smlal of two blocks, sadalp into two partial sums each of two channels.

    As in `SmlalDots` a word holds two products, unless weights may be -128 (`full_range`).
    """

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands, lists: Lists, *, full_range: bool) -> None:
        super().__init__(b, ops, operands)
        self.lists, self.full_range = lists, full_range

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        b, halves = self.b, BLOCK_CHANNELS // 2
        acc = b.registers(len(pixels) * halves, "int32x4", "acc")
        for position in range(len(pixels) * halves):
            b.store(acc, position, const(0, "int32x4"))
        with _pairs(b, self.lists, weight) as block:
            self._step(acc, x, pixels, block)
        bias = self.bias(channel)
        return [
            [
                intrin("int32x4", "llvm.aarch64.neon.addp.v4i32", acc[at + 2 * v], acc[at + 2 * v + 1]) + value
                for v, value in enumerate(bias)
            ]
            for at in range(0, len(pixels) * halves, halves)
        ]

    def _step(self, acc: Buffer, x: Expr, pixels: Sequence[int], block: Expr) -> None:
        b, size = self.b, BLOCK_CHANNELS * BLOCK_DEPTH
        taps = [self.lists.tap(b, x, block + number) for number in (0, 1)]
        quads = [[self._spread(tap + offset) for tap in taps] for offset in pixels]
        for half in range(BLOCK_CHANNELS // 2):
            places = [(block + number) * size + half * 2 * BLOCK_DEPTH for number in (0, 1)]
            weights = [b.let(self.operands.weight.load(place, 2 * BLOCK_DEPTH)) for place in places]
            for pixel, spread in enumerate(quads):
                at = pixel * (BLOCK_CHANNELS // 2) + half
                for words in self._products(spread, weights):
                    b.store(acc, at, acc[at] + intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", words))

    def _spread(self, place: Expr) -> Expr:
        """Four bytes of a pixel, twice."""
        eight = self.b.let(reinterpret("int32x2", self.operands.x.load(place, 8)))
        return self.b.let(reinterpret("int8x8", shuffle([eight], [0, 0])))

    def _products(self, left: Sequence[Expr], right: Sequence[Expr]) -> list[Expr]:
        pairs = zip(left, right, strict=True)
        parts = [intrin("int16x8", "llvm.aarch64.neon.smull.v8i16", *pair) for pair in pairs]
        return parts if self.full_range else [parts[0] + parts[1]]
