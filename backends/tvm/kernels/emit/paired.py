"""The epilogue of pairs of pixels, as smmla leaves them. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence

from ...builder import Expr, Index, reinterpret, shuffle
from ...isa.arm import ArmOps
from ...isa.vector import store_part
from .. import epilogue as words
from .epilogue import EpilogueEmitter

#: Vectors that narrow to one of bytes, and channels of two pixels in it.
NARROWED, CHANNELS = 4, 8


class PairedEpilogue(EpilogueEmitter):
    """Vectors of two channels of one pixel and the same of the next, with constants that lie likewise.

    They are parted as bytes: two instructions for 32 results.
    """

    def scale(self, channel: Index, count: int) -> list[Expr]:
        return super().scale(2 * channel, 2 * self.ops.lanes * self.ops.vectors_of(count))

    def store_pixels(
        self,
        acc: Sequence[Sequence[Expr]],
        scale: Sequence[Expr],
        places: Sequence[tuple[Index, Index]],
        count: int,
    ) -> None:
        used = 2 * self.ops.vectors_of(count)
        for pair, values in enumerate(acc):
            held = [self.b.let(value) for value in values[:used]]
            self._store_pair(held, scale, places[2 * pair : 2 * pair + 2], count)

    def _store_pair(
        self, acc: Sequence[Expr], scale: Sequence[Expr], places: Sequence[tuple[Index, Index]], count: int
    ) -> None:
        if self.spec.out != "byte":
            values = acc if self.spec.out == "i32" else [self.b.let(value) for value in self._products(acc, scale)]
            for pixel, (index, _) in enumerate(places):
                self.ops.store_words(self.b, self.buffers["out"], index, _parted(values, pixel), count)
            return
        values = self._products(acc, scale)
        if self.spec.residual is not None:
            values = self._added(values, self._residual([place for _, place in places], count))
        eights = [self._stored(values[at : at + NARROWED]) for at in range(0, len(values), NARROWED)]
        for done in range(0, count, 2 * CHANNELS):
            some = eights[done // CHANNELS : done // CHANNELS + 2]
            lanes = CHANNELS * len(some)
            for pixel, (index, _) in enumerate(places):
                picked = [at + byte for at in range(2 * pixel, 2 * lanes, 4) for byte in (0, 1)]
                part, size = self.b.let(shuffle(some, picked)), min(lanes, count - done)
                store_part(self.b, self.buffers["out"], index + done, part, count=size, lanes=lanes)

    def _stored(self, values: Sequence[Expr]) -> Expr:
        """Sixteen bytes, of which two vectors of results fill half."""
        b, ops = self.b, self.ops
        stored = b.let(ops.quantize(values, self.range()))
        if len(values) < NARROWED:
            stored = b.let(shuffle([stored] * 2, range(16)))
        return ops.lookup(b, self.buffers["table"], stored, 16) if self.spec.table else stored

    def _residual(self, places: Sequence[Index], count: int) -> list[Expr]:
        """The residual of both pixels minus its zero point, its bytes brought together two by two."""
        b, ops, found = self.b, self.ops, list[Expr]()
        assert isinstance(ops, ArmOps)
        for done in range(0, count, CHANNELS):
            loaded = [self.buffers["residual"].load(place + done, CHANNELS) for place in (places[0], places[-1])]
            twos = [b.let(reinterpret("int16x4", value)) for value in loaded]
            joined = b.let(reinterpret("int8x16", shuffle(twos, [0, 4, 1, 5, 2, 6, 3, 7])))
            found += ops.centred(b, joined, self.buffers["params"][words.RESIDUAL_ZERO_POINT])
        return found[: 2 * ops.vectors_of(count)]


def _parted(values: Sequence[Expr], pixel: int) -> list[Expr]:
    """The vectors of four channels of one of the pixels."""
    lanes = [2 * pixel, 2 * pixel + 1, 2 * pixel + 4, 2 * pixel + 5]
    return [shuffle(values[at : at + 2], lanes) for at in range(0, len(values), 2)]
