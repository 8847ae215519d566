"""Emitter of `MaddubsConvSpec`: the loops of a convolution around tiles that walk three lists. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ...builder import Buffer, Builder, Expr, Index, const, i64, intrin, reinterpret
from ...isa import Isa
from ...isa.vector import VectorOps
from ..base import emitter
from ..maddubs import CHUNK, MaddubsConvSpec, plan_maddubs
from .conv import ConvEmitter
from .dots import Accumulators, Copy, Dots, Operands
from .lists import Lists


@emitter(MaddubsConvSpec)
def emit(spec: MaddubsConvSpec, isa: Isa, symbol: str) -> Any:
    """The kernel of a convolution by pmaddubsw."""
    return _MaddubsEmitter(spec, spec.conv, plan_maddubs(spec, isa), isa, symbol).emit()


class _MaddubsEmitter(ConvEmitter):
    def make_dots(self) -> Dots:
        lists = Lists(self.buffers["starts"], self.buffers["taps"])
        pixels = self.plan.tile.units * self.plan.pixel.count
        return _MaddubsDots(self.b, self.ops, self.operands(), lists, pixels)

    def weights_of(self, index: Expr) -> Expr:
        return index


class _MaddubsDots(Dots):
    """One vector of channels for each pixel; the place of weights is the number of a block of channels."""

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands, lists: Lists, pixels: int) -> None:
        super().__init__(b, ops, replace(operands, ahead=0))
        self.lists = lists
        self.copy = Copy(b, ops, operands, pixels, "int16")
        self.bytes = CHUNK * ops.lanes
        self.ones = const(1, f"int16x{2 * ops.lanes}")

    def begin(self) -> None:
        self.words = self.copy.begin()

    def gather(self, x: Expr, pixels: Sequence[int]) -> None:
        self.copy.gather(x, pixels)

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        b, acc = self.b, self.start(len(pixels), channel)
        first, single, words, last = self.lists.bounds(b, weight, 3)
        with b.loop(0, (single - first) // 2) as pair:
            number = b.let(first + 2 * pair)
            self._chain(acc, x, pixels, [number, b.let(number + 1)])
        with b.loop(single, words) as number:
            self._chain(acc, x, pixels, [number])
        places = self.copy.places(len(pixels))
        with b.loop(0, (last - words) // 2) as pair:
            self._multiply_words(acc, places, b.let(words + 2 * pair))
        return self.results(acc, len(pixels))

    def _chain(self, acc: Buffer, x: Expr, pixels: Sequence[int], chunks: Sequence[Expr]) -> None:
        """Add the products of some chunks, whose words are added up before they become sums."""
        b, vectors = self.b, self.operands.vectors
        taps = [self.lists.tap(b, x, chunk) for chunk in chunks]
        for v in range(vectors):
            weights = [self._weight(chunk, v) for chunk in chunks]
            for pixel, offset in enumerate(pixels):
                products = [
                    self._products(self._spread(self.operands.x, tap + offset, f"uint8x{self.bytes}"), weight)
                    for tap, weight in zip(taps, weights, strict=True)
                ]
                self._add(acc, pixel * vectors + v, sum(products[1:], products[0]), self.ones)

    def _multiply_words(self, acc: Buffer, places: Sequence[int], number: Expr) -> None:
        """Add the products of both halves of a chunk of words."""
        b, vectors, kind = self.b, self.operands.vectors, f"int16x{self.bytes // 2}"
        tap = self.lists.tap(b, i64(0), number)
        for half in range(2):
            weights = [b.let(reinterpret(kind, self._weight(number + half, v))) for v in range(vectors)]
            for pixel, place in enumerate(places):
                spread = self._spread(self.words, tap + (place + half * CHUNK // 2), kind)
                for v, weight in enumerate(weights):
                    self._add(acc, pixel * vectors + v, spread, weight)

    def _weight(self, number: Expr, v: int) -> Expr:
        place = (number * self.operands.vectors + v) * self.bytes
        return self.b.let(self.operands.weight.load(place, self.bytes))

    def _spread(self, source: Buffer, place: Index, kind: str) -> Expr:
        """32 bits in every lane."""
        count = 4 if source.dtype == "uint8" else 2
        quad = self.b.let(reinterpret("int32", source.load(place, count)))
        return self.b.let(reinterpret(kind, self.ops.splat(quad)))

    def _products(self, left: Expr, right: Expr) -> Expr:
        return self.b.let(intrin(f"int16x{self.bytes // 2}", "llvm.x86.avx2.pmadd.ub.sw", left, right))

    def _add(self, acc: Buffer, position: int, left: Expr, right: Expr) -> None:
        self.b.store(acc, position, acc[position] + intrin(self.ops.i32, "llvm.x86.avx2.pmadd.wd", left, right))
