"""Register tiles: the inner loops of matrix kernels, one class for each way to multiply and accumulate.

A tile is a few pixels by a few vectors of channels. `Dots.accumulate` emits the loops over K and returns the
accumulators, bias included, as one list of native int32 vectors for every pixel. Imports tvm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from tvm import tirx

from ...builder import Buffer, Builder, Expr, Index, cast, const, i64, intrin, reinterpret, shuffle, vector
from ...isa.vector import VectorOps
from ..base import round_up
from ..conv import CACHE_LINE, COPIED, ahead_part
from ..tiling import AMX_DEPTH, AMX_ROWS, Dot, Runs

#: Bytes of K in a step over pairs of pixels.
PAIRED_DEPTH = 32
#: Steps of K of which the first one is emitted apart, to begin the sums. It costs each of the others two instructions.
MOST_PEELED = 8


@dataclass(frozen=True)
class Operands:
    """What a tile multiplies: the activation and weight buffers, and where the runs of K lie in the activations.

    `lying` are these runs where pixels are made ready, and `runs` what is multiplied then. Each step of K asks for
    `ahead` cache lines of the weights that come next.
    """

    x: Buffer
    weight: Buffer
    bias: Buffer | None
    runs: Runs
    row_step: int
    column_step: int
    vectors: int
    ahead: int = 0
    lying: Runs | None = None


Accumulators = list[list[Expr]]
Step = Callable[[Index, Index, int], None]


class Dots(ABC):
    """Emits register tiles for one kind of multiply-accumulate instruction."""

    #: Whether LLVM is kept from unrolling the loop over K: whole, it spills, or it is long.
    rolled: ClassVar[bool] = True

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands) -> None:
        self.b, self.ops, self.operands = b, ops, operands
        self.width = operands.vectors * ops.lanes
        self._ahead: Buffer | None = None

    def aim(self, weight: Expr) -> None:
        """Say which weights are next: each step of K asks for some lines of them, from element `weight` on."""
        if self.operands.ahead:
            self._ahead = self._ahead or self.b.registers(1, "int64", "ahead")
            self.b.store(self._ahead, 0, weight)

    def fetch_ahead(self) -> None:
        """Ask the second-level cache for the next lines."""
        if self._ahead is None:
            return
        count, weight = self.operands.ahead, self.operands.weight
        elements = CACHE_LINE // (2 if weight.dtype == "int16" else 1)
        place = self.b.let(self._ahead[0])
        read, second_level, data = (tirx.IntImm("int32", value) for value in (0, 2, 1))
        for line in range(count):
            self.b.call("llvm.prefetch.p0", weight.address(place + line * elements), read, second_level, data)
        self.b.store(self._ahead, 0, place + count * elements)

    def begin(self) -> None:  # noqa: B027 - most instructions need no preparation
        """Emitted once at the start of the kernel."""

    def share(self, other: Dots) -> None:  # noqa: B027
        """Use what `begin` of another instance in the same kernel prepared, instead of an own `begin`."""

    def end(self) -> None:  # noqa: B027
        """Emitted once before the kernel returns."""

    def gather(self, x: Expr, pixels: Sequence[int]) -> None:  # noqa: B027
        """What the tiles of all channel blocks at these pixels need, before the first `accumulate`."""

    @abstractmethod
    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        """The accumulators of the pixels at offsets `pixels` from element `x`, with weights from element `weight` on.

        `channel` is the index of the block's first channel in the bias.
        """

    def bias(self, channel: Expr) -> list[Expr]:
        """The bias vectors of a block."""
        if self.operands.bias is None:
            return [self.ops.const_i32(0)] * self.operands.vectors
        return self.ops.load_words(self.b, self.operands.bias, channel, self.width)

    def walk(self, x: Expr, weight: Expr, step: Step, first: Step | None = None) -> None:
        """Emit the loops over K; `step` gets the activation index, the weight index and the bytes of K to take.

        Where K is a single run of at most `MOST_PEELED` steps, `first` takes the place of `step` once.
        """
        _walk(self.b, self.operands, x, weight, self.width, step, first, rolled=self.rolled)


def _walk(
    b: Builder,
    operands: Operands,
    x: Expr,
    other: Expr,
    width: int,
    step: Step,
    first: Step | None = None,
    *,
    rolled: bool = True,
) -> None:
    """`Dots.walk`, where a byte of K takes `width` elements from `other` on."""
    runs = operands.runs
    whole, tail = divmod(runs.padded, runs.chunk)
    peeled = int(first is not None and runs.count == 1 and 0 < whole <= MOST_PEELED)
    with _loop(b, runs.rows) as row, _loop(b, runs.columns) as column:
        begin = b.let(x + row * operands.row_step + column * operands.column_step)
        start = b.let(other + (row * runs.columns + column) * (runs.padded * width))
        if first is not None and peeled:
            first(begin, start, runs.chunk)
            begin, start = b.let(begin + runs.chunk), b.let(start + runs.chunk * width)
        whole -= peeled
        if whole:
            with _loop(b, whole, opaque=rolled) as k:
                step(begin + k * runs.chunk, start + k * (runs.chunk * width), runs.chunk)
        if tail:
            last = first if first is not None and runs.count == 1 and runs.padded == tail else step
            last(begin + whole * runs.chunk, start + whole * runs.chunk * width, tail)


@contextmanager
def _loop(b: Builder, count: int, *, opaque: bool = False) -> Generator[Expr]:
    """A loop from 0, or nothing around a single pass; LLVM does not unroll an opaque one."""
    if count == 1:
        yield i64(0)
        return
    with b.loop(0, b.opaque(count) if opaque else count) as index:
        yield index


class VectorDots(Dots):
    """Tiles whose accumulators are one native vector for every pixel and channel vector."""

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        b, vectors = self.b, self.operands.vectors
        acc = b.registers(len(pixels) * vectors, self.ops.i32, "acc")
        bias = self.bias(channel)
        for position in range(len(pixels) * vectors):
            b.store(acc, position, bias[position % vectors])
        self.walk(x, weight, lambda at, w, depth: self.step(acc, at, pixels, w, depth))
        return [[acc[pixel * vectors + v] for v in range(vectors)] for pixel in range(len(pixels))]

    @abstractmethod
    def step(self, acc: Buffer, x: Index, pixels: Sequence[int], weight: Index, depth: int) -> None:
        """Add `depth` products of every pixel and channel."""


class VnniDots(VectorDots):
    """vpdpbusd: four bytes of one pixel in every lane times four bytes of each channel."""

    rolled = False

    def step(self, acc: Buffer, x: Index, pixels: Sequence[int], weight: Index, depth: int) -> None:
        b, ops, vectors = self.b, self.ops, self.operands.vectors
        width, bits = 4 * ops.lanes, 32 * ops.lanes
        self.fetch_ahead()
        weights = [b.let(self.operands.weight.load(weight + v * width, width)) for v in range(vectors)]
        for pixel, offset in enumerate(pixels):
            quad = reinterpret("int32", self.operands.x.load(x + offset, 4))
            spread = b.let(reinterpret(vector("uint8", width), ops.splat(b.let(quad))))
            for v in range(vectors):
                at = pixel * vectors + v
                b.store(acc, at, intrin(ops.i32, f"llvm.x86.avx512.vpdpbusd.{bits}", acc[at], spread, weights[v]))


class PmaddwdDots(VectorDots):
    """pmaddwd: the even and the odd bytes of four as words, times weights widened when they were packed."""

    rolled = False

    def step(self, acc: Buffer, x: Index, pixels: Sequence[int], weight: Index, depth: int) -> None:
        b, ops, vectors = self.b, self.ops, self.operands.vectors
        words = vector("int16", 2 * ops.lanes)
        self.fetch_ahead()
        weights = [
            b.let(self.operands.weight.load(weight + at * 2 * ops.lanes, 2 * ops.lanes)) for at in range(2 * vectors)
        ]
        for pixel, offset in enumerate(pixels):
            quad = b.let(reinterpret("int32", self.operands.x.load(x + offset, 4)))
            spread = b.let(ops.splat(quad))
            even = b.let(reinterpret(words, tirx.bitwise_and(spread, ops.const_i32(0x00FF00FF))))
            logical = reinterpret(vector("uint16", 2 * ops.lanes), spread)
            odd = b.let(reinterpret(words, tirx.shift_right(logical, const(8, vector("uint16", 2 * ops.lanes)))))
            for v in range(vectors):
                at = pixel * vectors + v
                products = [self._madd(part, weights[2 * v + side]) for side, part in enumerate((even, odd))]
                b.store(acc, at, acc[at] + products[0] + products[1])

    def _madd(self, left: Expr, right: Expr) -> Expr:
        return intrin(self.ops.i32, "llvm.x86.avx2.pmadd.wd", left, right)


class PairDots(VectorDots):
    """Words: two of one pixel in every lane times two of each channel."""

    rolled = False

    def step(self, acc: Buffer, x: Index, pixels: Sequence[int], weight: Index, depth: int) -> None:
        b, ops, vectors = self.b, self.ops, self.operands.vectors
        lanes = 2 * ops.lanes
        words = vector("int16", lanes)
        weights = [b.let(self.operands.weight.load(weight + v * lanes, lanes)) for v in range(vectors)]
        for pixel, offset in enumerate(pixels):
            pair = b.let(reinterpret("int32", self.operands.x.load(x + offset, 2)))
            spread = b.let(reinterpret(words, ops.splat(pair)))
            for v in range(vectors):
                at = pixel * vectors + v
                b.store(acc, at, self._added(acc[at], spread, weights[v]))

    def _added(self, total: Expr, left: Expr, right: Expr) -> Expr:
        return intrin(self.ops.i32, f"llvm.x86.avx512.vpdpwssd.{32 * self.ops.lanes}", total, left, right)


class MaddDots(PairDots):
    """pmaddwd and an addition."""

    def _added(self, total: Expr, left: Expr, right: Expr) -> Expr:
        return total + intrin(self.ops.i32, "llvm.x86.avx2.pmadd.wd", left, right)


class WidenedDots(MaddDots):
    """Bytes that `gather` made words of, in a small array on the stack: those of `pixels` pixels at most."""

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands, pixels: int) -> None:
        runs = operands.runs
        self.part, self.parts = ahead_part(runs), runs.padded // ahead_part(runs)
        super().__init__(b, ops, replace(operands, runs=Runs(1, 1, self.part, self.part, runs.chunk)))
        self.copy = _Copy(b, operands, pixels, "int16")

    def begin(self) -> None:
        self.operands = replace(self.operands, x=self.copy.begin())

    def gather(self, x: Expr, pixels: Sequence[int]) -> None:
        self.copy.gather(x, pixels)

    def walk(self, x: Expr, weight: Expr, step: Step, first: Step | None = None) -> None:
        with _loop(self.b, self.parts) as part:
            self.fetch_ahead()
            super().walk(x + part * self.part, weight + part * (self.part * self.width), step, first)

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        return super().accumulate(i64(0), self.copy.places(len(pixels)), weight, channel)


class JoinedDots(Dots):
    """Bytes that `gather` copied run by run, so that `inner` multiplies all of K as one run."""

    def __init__(self, inner: Dots, pixels: int) -> None:
        super().__init__(inner.b, inner.ops, inner.operands)
        self.inner = inner
        self.copy = _Copy(inner.b, inner.operands, pixels, inner.operands.x.dtype)

    def aim(self, weight: Expr) -> None:
        self.inner.aim(weight)

    def begin(self) -> None:
        self.inner.operands = replace(self.inner.operands, x=self.copy.begin())

    def gather(self, x: Expr, pixels: Sequence[int]) -> None:
        self.copy.gather(x, pixels)

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        return self.inner.accumulate(i64(0), self.copy.places(len(pixels)), weight, channel)


class _Copy:
    """The runs of K of up to `pixels` pixels one behind the other, in a small array of `dtype` on the stack."""

    def __init__(self, b: Builder, operands: Operands, pixels: int, dtype: str) -> None:
        assert operands.lying is not None
        self.b, self.source, self.lying, self.pixels, self.dtype = b, operands, operands.lying, pixels, dtype
        # Whole vectors are stored: what is too much is the next run's place, and of the last run not the next pixel's.
        self.pitch = operands.runs.padded + COPIED

    def begin(self) -> Buffer:
        """The array."""
        self.array = self.b.registers(self.pixels * self.pitch, self.dtype, "copy")
        return self.array

    def places(self, pixels: int) -> list[int]:
        """Where each pixel begins."""
        return [at * self.pitch for at in range(pixels)]

    def gather(self, x: Expr, pixels: Sequence[int]) -> None:
        """Copy the pixels at offsets `pixels` from element `x`."""
        b, source, runs = self.b, self.source, self.lying
        with _loop(b, runs.rows) as row, _loop(b, runs.columns) as column:
            first = b.let(x + row * source.row_step + column * source.column_step)
            target = b.let((row * runs.columns + column) * runs.length)
            with _loop(b, -(-runs.length // COPIED)) as part:
                for offset, place in zip(pixels, self.places(len(pixels)), strict=True):
                    loaded = source.x.load(first + part * COPIED + offset, COPIED)
                    value = cast(vector(self.dtype, COPIED), loaded) if self.dtype != source.x.dtype else loaded
                    b.store(self.array, target + part * COPIED + place, value, COPIED)


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
        bias = self.bias(channel)
        start = [b.let(shuffle([bias[at // 2]], [0, 1, 0, 1] if at % 2 == 0 else [2, 3, 2, 3])) for at in range(halves)]
        for position in range(-(-pixels // 2) * halves):
            b.store(acc, position, start[position % halves])
        return acc

    def results(self, acc: Buffer, pixels: int) -> Accumulators:
        """The accumulators by pixel."""
        vectors, halves = self.operands.vectors, 2 * self.operands.vectors
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

    def _rows(self, source: Buffer, x: Index, pixels: Sequence[int], depth: int) -> list[list[Expr]]:
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

    def begin(self) -> None:
        self.paired = self.b.registers(self.size, "int8", "paired")

    def gather(self, x: Expr, pixels: Sequence[int]) -> None:
        pairs = -(-len(pixels) // 2)

        def lay(at: Index, place: Index, depth: int) -> None:
            for pair, row in enumerate(self._rows(self.source.x, at, pixels, depth)):
                for eight, values in enumerate(row):
                    self.b.store(self.paired, place + (eight * pairs + pair) * 16, values, 16)

        _walk(self.b, self.source, x, i64(0), 2 * pairs, lay)

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


class AmxDots(Dots):
    """tdpbusd on tiles of up to 16 pixels by 16 channels; results go through a small array on the stack.

    Tiles 0..3 accumulate, 4 and 5 hold pixels, 6 and 7 weights. The shapes are configured once for the kernel.
    Where the kernel's weights are few, they stay in tiles: 6, 7 and, as no second vector accumulates there, 1 and 3.
    """

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands, rows: int, *, single: bool) -> None:
        super().__init__(b, ops, operands)
        self.rows = rows
        self.steps = operands.runs.count * (operands.runs.padded // operands.runs.chunk)
        few = single and operands.vectors == 1 and self.steps <= len(_RESIDENT)
        self.resident = _RESIDENT[: self.steps] if few else ()

    def begin(self) -> None:
        b, depth = self.b, self.operands.runs.chunk
        config = b.registers(64, "uint8", "tile_config")
        shapes = [(self.rows, 64)] * 4 + [(self.rows, depth)] * 2 + [(depth // 4, 64)] * 2
        for tile in self.resident:
            shapes[tile] = (depth // 4, 64)
        content = bytearray(64)
        content[0] = 1
        for tile, (rows, row_bytes) in enumerate(shapes):
            content[16 + 2 * tile], content[48 + tile] = row_bytes, rows
        for at, value in enumerate(content):
            b.store(config, at, const(value, "uint8"))
        b.call("llvm.x86.ldtilecfg", config.address(0))
        for step, tile in enumerate(self.resident):
            b.call("llvm.x86.tileloadd64", _tile(tile), self.operands.weight.address(step * depth * 16), i64(64))
        self.result = b.registers(2 * AMX_ROWS * self.width + 16, "int32", "result")
        address = reinterpret("int64", self.result.address(0))
        # Tiles are stored in half the time where their rows are cache lines, and stacks are aligned to less.
        self.first = b.let(tirx.bitwise_and(i64(0) - tirx.shift_right(address, i64(2)), i64(15)))

    def share(self, other: Dots) -> None:
        assert isinstance(other, AmxDots)
        self.result, self.first = other.result, other.first

    def end(self) -> None:
        self.b.call("llvm.x86.tilerelease")

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        self.multiply(x, pixels, weight)
        self.spill(len(pixels))
        return self.results(channel, len(pixels))

    def multiply(
        self, x: Expr, pixels: Sequence[int], weight: Expr, meanwhile: Sequence[Callable[[], None]] = ()
    ) -> None:
        """The part of `accumulate` that leaves sums in tile registers, for `spill`.

        `meanwhile` emits other work, whose parts go between the steps: a processor hardly starts what lies behind them
        before they are done.
        """
        for tile in self._accumulators(len(pixels)):
            self.b.call("llvm.x86.tilezero", tile)
        stride = pixels[1] - pixels[0] if self.rows > 1 and len(pixels) > 1 else AMX_DEPTH
        firsts = pixels[:: self.rows]
        if self.steps > _UNROLLED:
            self.walk(x, weight, lambda at, w, _: self._step(at, firsts, stride, w))
            for part in meanwhile:
                part()
            return
        for step, place in enumerate(self._places()):
            self._step(x + place, firsts, stride, weight + step * self.operands.runs.chunk * self.width, step)
            for part in meanwhile[step * len(meanwhile) // self.steps : (step + 1) * len(meanwhile) // self.steps]:
                part()

    def spill(self, pixels: int) -> None:
        """Copy the sums of `pixels` pixels to memory, where `results` finds them until the next `spill`."""
        for number, tile in enumerate(self._accumulators(pixels)):
            row, v = divmod(number, self.operands.vectors)
            place = self.result.address(self.first + (row * self.rows * self.width + v * 16))
            self.b.call("llvm.x86.tilestored64", tile, place, i64(4 * self.width))

    def results(self, channel: Expr, pixels: int) -> Accumulators:
        """What `accumulate` returns."""
        bias = self.bias(channel)
        return [
            [self.result.load(self.first + (pixel * self.width + 16 * v), 16) + value for v, value in enumerate(bias)]
            for pixel in range(pixels)
        ]

    def _accumulators(self, pixels: int) -> list[Expr]:
        """The tiles of `pixels` pixels, by rows of tiles and vectors."""
        rows = range(-(-pixels // self.rows))
        return [_tile(2 * row + v) for row in rows for v in range(self.operands.vectors)]

    def _places(self) -> list[int]:
        """Where each step reads the pixels."""
        operands, runs = self.operands, self.operands.runs
        return [
            row * operands.row_step + column * operands.column_step + at
            for row in range(runs.rows)
            for column in range(runs.columns)
            for at in range(0, runs.padded, runs.chunk)
        ]

    def _step(self, x: Index, firsts: Sequence[int], stride: int, weight: Index, step: int | None = None) -> None:
        """Products with the same weights follow each other: other weights cost 18 cycles, be pixels few or not."""
        b, vectors, depth = self.b, range(self.operands.vectors), self.operands.runs.chunk
        self.fetch_ahead()
        for tile, first in enumerate(firsts):
            b.call("llvm.x86.tileloadd64", _tile(4 + tile), self.operands.x.address(x + first), i64(stride))
        weights = [6 + v for v in vectors]
        if self.resident and step is not None:
            weights = [self.resident[step]]
        else:
            for v in vectors:
                place = self.operands.weight.address(weight + v * depth * 16)
                b.call("llvm.x86.tileloadd64", _tile(weights[v]), place, i64(64))
        for v in vectors:
            for tile in range(len(firsts)):
                b.call("llvm.x86.tdpbusd", _tile(2 * tile + v), _tile(4 + tile), _tile(weights[v]))


#: Tiles that may hold the weights of a kernel of one vector of channels for as long as it runs.
_RESIDENT = (6, 7, 1, 3)
#: Steps of K that are emitted one after the other, with other work between them.
_UNROLLED = 16


def _tile(number: int) -> Expr:
    return tirx.IntImm("int8", number)


def dots_for(
    dot: Dot,
    b: Builder,
    ops: VectorOps,
    operands: Operands,
    *,
    rows: int = 1,
    pixels: int = 1,
    full_range: bool,
    single: bool = False,
) -> Dots:
    """The register tiles of `dot`.

    `rows` is the number of pixels in one AMX tile, `pixels` that of the largest register tile; `single` says that all
    tiles multiply by the first block of weights.
    """
    if dot.kind == "amx":
        return AmxDots(b, ops, operands, rows, single=single)
    if dot.kind == "smlal":
        return (FullRangeSmlalDots if full_range else SmlalDots)(b, ops, operands)
    if dot.kind == "pmaddwd/words":
        return WidenedDots(b, ops, operands, pixels)
    if dot.kind == "smmla/pairs":
        return PairedDots(b, ops, operands, pixels)
    if dot.kind.endswith("/joined"):
        direct = replace(dot, kind=dot.instruction)
        return JoinedDots(dots_for(direct, b, ops, operands, full_range=full_range), pixels)
    simple: dict[str, Callable[[Builder, VectorOps, Operands], Dots]] = {
        "vnni": VnniDots,
        "pmaddwd": PmaddwdDots,
        "sdot": SdotDots,
        "smmla": SmmlaDots,
    }
    return simple[dot.kind](b, ops, operands)


def word_dots(dot: Dot, b: Builder, ops: VectorOps, operands: Operands) -> VectorDots:
    """The register tiles of a `dot` of words that lie in memory as such."""
    kinds: dict[str, type[VectorDots]] = {
        "pmaddwd/words": MaddDots,
        "vnni/words": PairDots,
        "smlal/words": ElementDots,
    }
    return kinds[dot.kind](b, ops, operands)


def weight_dtype(dot: Dot) -> str:
    """The element type of packed weights as the inner loop reads them."""
    return f"int{8 * dot.weight_bytes}"
