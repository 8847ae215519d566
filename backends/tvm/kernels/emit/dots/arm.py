"""smull and smlal, sdot, smmla. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ....builder import Buffer, Builder, Expr, Index, const, i64, intrin, reinterpret, shuffle
from ....isa.vector import VectorOps
from ...base import round_up
from ...tiling import Runs
from .base import MOST_PEELED, Accumulators, Dots, Operands, VectorDots, walk

#: Bytes of K in a step over pairs of pixels.
PAIRED_DEPTH = 32


class ElementDots(VectorDots):
    """smlal by element: one of eight words of a pixel times four words of channels."""

    def step(self, acc: Buffer, x: Index, pixels: Sequence[int], weight: Index, depth: int) -> None:
        b, vectors = self.b, self.operands.vectors
        loaded = [b.let(self.operands.x.load(x + offset, depth)) for offset in pixels]
        for k in range(depth):
            for v in range(vectors):
                weights = b.let(self.operands.weight.load(weight + (k * vectors + v) * 4, 4))
                for pixel, values in enumerate(loaded):
                    at = pixel * vectors + v
                    element = shuffle([values], [k] * 4)
                    b.store(acc, at, acc[at] + intrin("int32x4", "llvm.aarch64.neon.smull.v4i32", weights, element))


class SdotDots(VectorDots):
    """sdot by element: four channels of four bytes times one 32-bit lane of a pixel's sixteen bytes."""

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        runs = self.operands.runs
        if runs.count == 1 and runs.padded < 2 * runs.chunk:
            # Without a loop over K LLVM would keep all pixels, each of their lanes spread, or all weights, and spill.
            x, weight = self.b.let(self.b.anew(x, channel)), self.b.let(self.b.anew(weight, x))
        return super().accumulate(x, pixels, weight, channel)

    def step(self, acc: Buffer, x: Index, pixels: Sequence[int], weight: Index, depth: int) -> None:
        b, vectors = self.b, self.operands.vectors
        loaded = [b.let(reinterpret("int32x4", self.operands.x.load(x + offset, 16))) for offset in pixels]
        for quad in range(depth // 4):
            for v in range(vectors):
                weights = b.let(self.operands.weight.load(weight + (quad * vectors + v) * 16, 16))
                for pixel, values in enumerate(loaded):
                    at = pixel * vectors + v
                    lane = reinterpret("int8x16", shuffle([values], [quad] * 4))
                    b.store(acc, at, intrin("int32x4", "llvm.aarch64.neon.sdot.v4i32.v16i8", acc[at], weights, lane))


class SmmlaDots(Dots):
    """smmla: two pixels by two channels in an accumulator, eight bytes of K at once."""

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        acc = self.start(len(pixels), channel)
        self.walk(x, weight, partial(self._step, acc, pixels))
        return self.results(acc, len(pixels))

    def _step(self, acc: Buffer, pixels: Sequence[int], x: Index, weight: Index, depth: int) -> None:
        for at in range(0, depth, 16):
            rows = self._rows(self.operands.x, x + at, pixels, min(16, depth - at))
            self.multiply(acc, rows, weight + at * self.width)

    def start(self, pixels: int, channel: Expr) -> Buffer:
        """Accumulators that hold the bias."""
        b, halves = self.b, 2 * self.operands.vectors
        acc = b.registers(-(-pixels // 2) * halves, "int32x4", "acc")
        start = self._start(channel)
        for position in range(-(-pixels // 2) * halves):
            b.store(acc, position, start[position % halves])
        return acc

    def _start(self, channel: Expr) -> list[Expr]:
        """The bias of two channels, twice, in each vector."""
        bias = self.operands.bias
        if self.operands.paired and bias is not None:
            return self.ops.load_words(self.b, bias, 2 * channel, 2 * self.width)
        both = [([value], [at, at + 1] * 2) for value in self.bias(channel) for at in (0, 2)]
        return [self.b.let(shuffle(*each)) for each in both]

    def results(self, acc: Buffer, pixels: int) -> Accumulators:
        """The accumulators by pixel, or by pair of pixels."""
        vectors, halves = self.operands.vectors, 2 * self.operands.vectors
        if self.operands.paired:
            return [[acc[first + at] for at in range(halves)] for first in range(0, -(-pixels // 2) * halves, halves)]
        found: Accumulators = []
        for pixel in range(pixels):
            first, lanes = pixel // 2 * halves, [0, 1, 4, 5] if pixel % 2 == 0 else [2, 3, 6, 7]
            found.append([shuffle([acc[first + 2 * v], acc[first + 2 * v + 1]], lanes) for v in range(vectors)])
        return found

    def multiply(self, acc: Buffer, rows: Sequence[Sequence[Expr]], weight: Index) -> None:
        """Add the products of each pair of pixels, whose left operands are `rows`, and the weights from `weight` on."""
        b, halves = self.b, 2 * self.operands.vectors
        for eight in range(len(rows[0])):
            for at in range(halves):
                weights = b.let(self.operands.weight.load(weight + (eight * halves + at) * 16, 16))
                for pair, row in enumerate(rows):
                    position = pair * halves + at
                    value = intrin("int32x4", "llvm.aarch64.neon.smmla.v4i32.v16i8", acc[position], row[eight], weights)
                    b.store(acc, position, value)

    def _rows(self, source: Buffer, x: Index, pixels: Sequence[Index], depth: int) -> list[list[Expr]]:
        """For every pair of pixels the left operands of each eight bytes of K; an odd last pixel pairs with itself."""
        b, found = self.b, []
        loaded = [b.let(source.load(x + offset, depth)) for offset in pixels]
        for first in range(0, len(pixels), 2):
            pair = [loaded[first], loaded[min(first + 1, len(pixels) - 1)]]
            lanes = [[*range(at, at + 8), *range(at + depth, at + depth + 8)] for at in range(0, depth, 8)]
            found.append([b.let(shuffle(pair, picked)) for picked in lanes])
        return found


class PairedDots(SmmlaDots):
    """Bytes that `gather` laid side by side as smmla takes them, for `pixels` pixels at most.

    The array, on the stack, is [K / 8][pair of pixels][pixel][8]: all pairs of a step lie together.
    """

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands, pixels: int) -> None:
        depth = operands.runs.count * operands.runs.padded
        super().__init__(b, ops, replace(operands, runs=Runs(1, 1, depth, depth, PAIRED_DEPTH)))
        self.source, self.size = operands, round_up(pixels, 2) * depth

    def read(self, x: Buffer) -> None:
        self.source = replace(self.source, x=x)

    def begin(self) -> None:
        self.paired = self.b.registers(self.size, "int8", "paired")

    def gather(self, x: Expr, pixels: Sequence[Index]) -> None:
        pairs = -(-len(pixels) // 2)

        def lay(at: Index, place: Index, depth: int) -> None:
            for pair, row in enumerate(self._rows(self.source.x, at, pixels, depth)):
                for eight, values in enumerate(row):
                    self.b.store(self.paired, place + (eight * pairs + pair) * 16, values, 16)

        walk(self.b, self.source, x, i64(0), 2 * pairs, lay)

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        b, pairs = self.b, -(-len(pixels) // 2)
        acc = self.start(len(pixels), channel)

        def step(at: Index, weights: Index, depth: int) -> None:
            first = at * (2 * pairs)
            rows = [
                [b.let(self.paired.load(first + (eight * pairs + pair) * 16, 16)) for eight in range(depth // 8)]
                for pair in range(pairs)
            ]
            self.multiply(acc, rows, weights)

        self.walk(i64(0), weight, step)
        return self.results(acc, len(pixels))


class SmlalDots(Dots):
    """ARMv8.0: smull and smlal2 to words, sadalp into four partial sums of one pixel and one channel.

    A word holds two products: exact unless both weights are -128, so `full_range` adds each product pair on its own.
    """

    full_range = False

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        b, runs = self.b, self.operands.runs
        acc = b.registers(len(pixels) * self.width, "int32x4", "acc")
        if runs.count > 1 or runs.padded // runs.chunk > MOST_PEELED:
            for position in range(len(pixels) * self.width):
                b.store(acc, position, const(0, "int32x4"))
        self.walk(x, weight, partial(self._step, acc, pixels), partial(self._step, acc, pixels, begin=True))
        return self.sums(acc, len(pixels), channel)

    def sums(self, acc: Buffer, pixels: int, channel: Expr) -> Accumulators:
        """The partial sums added up, with the bias."""
        bias = self.bias(channel)
        firsts = range(0, pixels * self.width, self.width)
        return [[self._sum(acc, first + 4 * v) + value for v, value in enumerate(bias)] for first in firsts]

    def _step(
        self, acc: Buffer, pixels: Sequence[int], x: Index, weight: Index, depth: int, *, begin: bool = False
    ) -> None:
        """Add the products of `depth` bytes of K, or `begin` the sums with them."""
        b = self.b
        loaded = [b.let(self.operands.x.load(x + offset, depth)) for offset in pixels]
        for channel in range(self.width):
            weights = b.let(self.operands.weight.load(weight + channel * depth, depth))
            if self.full_range:
                for at in range(0, depth, 8):
                    words = self.words([(loaded, weights)], range(at, at + 8))
                    self.add_words(acc, words, channel, begin=begin and at == 0)
            else:
                self.add_words(acc, self.words([(loaded, weights)]), channel, begin=begin)

    def words(self, factors: Sequence[tuple[Sequence[Expr], Expr]], part: range | None = None) -> list[Expr]:
        """For each pixel the sums of the products of its bytes with weights, or those of a `part` of the bytes.

        Each instruction for all pixels: a processor that keeps their order would wait for the one before.
        """
        words: list[Expr] = []
        for values, weights in factors:
            depth = int(weights.ty.dtype.lanes)
            for eight in [part] if part else [range(at, at + 8) for at in range(0, depth, 8)]:
                products = [self._product(value, weights, eight) for value in values]
                words = [self.b.let(product + words[at] if words else product) for at, product in enumerate(products)]
        return words

    def add_words(self, acc: Buffer, words: Sequence[Expr], channel: int, *, begin: bool) -> None:
        """Add neighbouring words to the sums of a channel, or `begin` the sums with them."""
        for pixel, word in enumerate(words):
            at = pixel * self.width + channel
            pairs = intrin("int32x4", "llvm.aarch64.neon.saddlp.v4i32.v8i16", word)
            self.b.store(acc, at, pairs if begin else acc[at] + pairs)

    @staticmethod
    def _product(left: Expr, right: Expr, part: range) -> Expr:
        """Products of eight bytes; all of a vector of eight are `part`."""
        whole = int(left.ty.dtype.lanes) == len(part)
        operands = (left, right) if whole else (shuffle([left], part), shuffle([right], part))
        return intrin("int16x8", "llvm.aarch64.neon.smull.v8i16", *operands)

    @staticmethod
    def _sum(acc: Buffer, first: int) -> Expr:
        """The horizontal sums of four registers as one vector."""
        addp = "llvm.aarch64.neon.addp.v4i32"
        pairs = [intrin("int32x4", addp, acc[at], acc[at + 1]) for at in (first, first + 2)]
        return intrin("int32x4", addp, *pairs)


class FullRangeSmlalDots(SmlalDots):
    """For weights that may be -128."""

    full_range = True
