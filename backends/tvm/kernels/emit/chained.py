"""Emitter of `ChainedConvSpec`: the loops of a convolution around tiles that walk pairs of chunks of K. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...builder import Buffer, Builder, Expr, Index
from ...isa import Isa
from ...isa.vector import VectorOps
from ..base import emitter
from ..chained import CHUNK, ChainedConvSpec, plan_chained
from .conv import ConvEmitter
from .dots import Accumulators, Dots, JoinedDots, Operands, SmlalDots
from .lists import Lists


@emitter(ChainedConvSpec)
def emit(spec: ChainedConvSpec, isa: Isa, symbol: str) -> Any:
    """The kernel of a convolution by chains of products."""
    return _ChainedEmitter(spec, spec.conv, plan_chained(spec, isa), isa, symbol).emit()


class _ChainedEmitter(ConvEmitter):
    def make_dots(self) -> Dots:
        plan, dots = self.plan, _ChainedDots(self.b, self.ops, self.operands(), self.lists())
        return JoinedDots(dots, plan.tile.units * plan.pixel.count) if plan.dot.joins else dots

    def lists(self) -> Lists:
        return Lists(self.buffers["starts"], self.buffers["taps"])

    def weights_of(self, index: Expr) -> Expr:
        return index


class _ChainedDots(SmlalDots):
    """Two chunks of K for one sadalp; the place of weights is the number of a block of channels."""

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands, lists: Lists) -> None:
        super().__init__(b, ops, operands)
        self.lists = lists

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        b = self.b
        acc = b.registers(len(pixels) * self.width, "int32x4", "acc")
        first, single, last = self.lists.bounds(b, weight, 2)
        self._chain(acc, x, pixels, [first, b.let(first + 1)], begin=True)
        with b.loop(1, (single - first) // 2) as pair:
            chunk = b.let(first + 2 * pair)
            self._chain(acc, x, pixels, [chunk, b.let(chunk + 1)])
        with b.loop(single, last) as chunk:
            self._chain(acc, x, pixels, [chunk])
        return self.sums(acc, len(pixels), channel)

    def _chain(
        self, acc: Buffer, x: Expr, pixels: Sequence[int], chunks: Sequence[Expr], *, begin: bool = False
    ) -> None:
        """Add the products of some chunks, whose words are added up before they become sums."""
        b, size = self.b, self.width * CHUNK
        loaded: list[tuple[Index, list[Expr]]] = []
        for chunk in chunks:
            tap = self.lists.tap(b, x, chunk)
            values = [b.let(self.operands.x.load(tap + offset, CHUNK)) for offset in pixels]
            loaded.append((b.let(chunk * size), values))
        for channel in range(self.width):
            factors = [
                (values, b.let(self.operands.weight.load(place + channel * CHUNK, CHUNK))) for place, values in loaded
            ]
            self.add_words(acc, self.words(factors), channel, begin=begin)
