"""vpdpbusd, and products of words. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tvm import tirx

from ....builder import Buffer, Builder, Expr, Index, const, i64, intrin, reinterpret, shuffle, vector
from ....isa.vector import VectorOps
from ...conv_plan import ahead_part
from ...tiling import Runs
from .base import Accumulators, Operands, Step, VectorDots, loop
from .copied import Copy


class QuadDots(VectorDots):
    """Four bytes of one pixel in every lane."""

    rolled = False

    def spread(self, place: Index) -> Expr:
        """The four bytes from `place` on; of groups that share the vector, each lane has those of its own."""
        b, ops, x, shared = self.b, self.ops, self.operands.x, self.operands.shared
        if shared is None:
            return b.let(ops.splat(b.let(reinterpret("int32", x.load(place, 4)))))
        apart = shared.depth // 4
        count = 1 << ((shared.groups - 1) * apart).bit_length()
        quads = b.let(reinterpret(vector("int32", count), x.load(place, 4 * count)))
        groups = (min(lane // shared.channels, shared.groups - 1) for lane in range(ops.lanes))
        # TVM wants as many lanes in as out.
        return b.let(shuffle([quads] * max(1, ops.lanes // count), [group * apart for group in groups]))


class VnniDots(QuadDots):
    """vpdpbusd: four bytes of one pixel in every lane times four bytes of each channel.

    Half a vector costs processors whose units have 256 bits half as much.
    """

    def start(self, pixels: int, channel: Expr) -> Buffer:
        acc, last = super().start(pixels, channel), self.operands.vectors - 1
        if self.operands.half:
            self.halves = self.b.registers(pixels, vector("int32", self.ops.lanes // 2), "halves")
            for pixel in range(pixels):
                self.b.store(self.halves, pixel, self._low(acc[last]))
        return acc

    def results(self, acc: Buffer, pixels: int) -> Accumulators:
        found = super().results(acc, pixels)
        if not self.operands.half:
            return found
        lanes = self.ops.lanes
        none = const(0, vector("int32", lanes // 2))
        whole = [self.b.let(shuffle([self.halves[pixel], none], range(lanes))) for pixel in range(pixels)]
        return [[*values[:-1], last] for values, last in zip(found, whole, strict=True)]

    def step(self, acc: Buffer, x: Index, pixels: Sequence[int], weight: Index, depth: int) -> None:
        b, ops, vectors, half = self.b, self.ops, self.operands.vectors, self.operands.half
        width, places = 4 * ops.lanes, [weight + v * 4 * ops.lanes for v in range(vectors)]
        sizes = [width] * (vectors - half) + [width // 2] * half
        self.fetch_ahead()
        weights = [b.let(self.operands.weight.load(place, size)) for place, size in zip(places, sizes, strict=True)]
        for pixel, offset in enumerate(pixels):
            spread = self._held(self.spread(x + offset)) if half else self.spread(x + offset)
            for v in range(vectors - half):
                self._add(acc, pixel * vectors + v, spread, weights[v])
            if half:
                self._add(self.halves, pixel, self._low(spread), weights[-1])

    def _held(self, words: Expr) -> Expr:
        """The same, of which LLVM does not know that all lanes are alike: it would read them twice to have half."""
        return self.b.let(reinterpret(self.ops.i32, self.ops.fence(reinterpret(self.ops.f32, words))))

    def _low(self, words: Expr) -> Expr:
        return self.b.let(shuffle([words], range(self.ops.lanes // 2)))

    def _add(self, acc: Buffer, at: int, spread: Expr, weights: Expr) -> None:
        lanes = int(spread.ty.dtype.lanes)
        quads, total = reinterpret(vector("uint8", 4 * lanes), spread), vector("int32", lanes)
        name = f"llvm.x86.avx512.vpdpbusd.{32 * lanes}"
        self.b.store(acc, at, intrin(total, name, acc[at], self.b.let(quads), weights))


class PmaddwdDots(QuadDots):
    """pmaddwd: the even and the odd bytes of four as words, times words of weights."""

    def step(self, acc: Buffer, x: Index, pixels: Sequence[int], weight: Index, depth: int) -> None:
        b, ops, vectors = self.b, self.ops, self.operands.vectors
        words = vector("int16", 2 * ops.lanes)
        self.fetch_ahead()
        weights = [self.weight_words(weight + at * 2 * ops.lanes) for at in range(2 * vectors)]
        for pixel, offset in enumerate(pixels):
            spread = self.spread(x + offset)
            even = b.let(reinterpret(words, tirx.bitwise_and(spread, ops.const_i32(0x00FF00FF))))
            logical = reinterpret(vector("uint16", 2 * ops.lanes), spread)
            odd = b.let(reinterpret(words, tirx.shift_right(logical, const(8, vector("uint16", 2 * ops.lanes)))))
            for v in range(vectors):
                at = pixel * vectors + v
                products = [self._madd(part, weights[2 * v + side]) for side, part in enumerate((even, odd))]
                b.store(acc, at, acc[at] + products[0] + products[1])

    def _madd(self, left: Expr, right: Expr) -> Expr:
        return intrin(self.ops.i32, "llvm.x86.avx2.pmadd.wd", left, right)


def spread_pair(b: Builder, ops: VectorOps, x: Buffer, place: Index) -> Expr:
    """The two words from `place` on, in every lane."""
    pair = b.let(reinterpret("int32", x.load(place, 2)))
    return b.let(reinterpret(vector("int16", 2 * ops.lanes), ops.splat(pair)))


def add_pairs(ops: VectorOps, total: Expr, left: Expr, right: Expr) -> Expr:
    """vpdpwssd: the products of both words of a lane."""
    return intrin(ops.i32, f"llvm.x86.avx512.vpdpwssd.{32 * ops.lanes}", total, left, right)


class PairDots(VectorDots):
    """Words: two of one pixel in every lane times two of each channel."""

    rolled = False

    def step(self, acc: Buffer, x: Index, pixels: Sequence[int], weight: Index, depth: int) -> None:
        b, ops, vectors = self.b, self.ops, self.operands.vectors
        weights = [self.weight_words(weight + v * 2 * ops.lanes) for v in range(vectors)]
        for pixel, offset in enumerate(pixels):
            spread = spread_pair(b, ops, self.operands.x, x + offset)
            for v in range(vectors):
                at = pixel * vectors + v
                b.store(acc, at, self._added(acc[at], spread, weights[v]))

    def _added(self, total: Expr, left: Expr, right: Expr) -> Expr:
        return add_pairs(self.ops, total, left, right)


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
        self.copy = Copy(b, ops, operands, pixels, "int16")

    def begin(self) -> None:
        self.operands = replace(self.operands, x=self.copy.begin())

    def gather(self, x: Expr, pixels: Sequence[Index]) -> None:
        self.copy.gather(x, pixels)

    def walk(self, x: Expr, weight: Expr, step: Step, first: Step | None = None) -> None:
        with loop(self.b, self.parts) as part:
            self.fetch_ahead()
            super().walk(x + part * self.part, weight + part * (self.part * self.width), step, first)

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        return super().accumulate(i64(0), self.copy.places(len(pixels)), weight, channel)
