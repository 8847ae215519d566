"""Emission of the shared epilogue. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvm import tirx

from ...builder import Buffer, Builder, Expr, Index, reinterpret
from ...isa.vector import ByteRange, VectorOps, store_part
from .. import epilogue as words
from ..epilogue import Epilogue


@dataclass(frozen=True)
class _Piece:
    """A vector of results and where its first `count` lanes go."""

    value: Expr
    place: Index
    offset: int
    count: int

    @property
    def index(self) -> Expr:
        return self.place + self.offset

    def follows(self, other: _Piece, lanes: int) -> bool:
        """Whether it continues where a whole vector of the same pixel ended."""
        return self.place is other.place and self.offset == other.offset + lanes


class EpilogueEmitter:
    """Emits the epilogue of one kernel. Create it after all parameters are declared, outside the loops."""

    def __init__(self, b: Builder, ops: VectorOps, spec: Epilogue, buffers: dict[str, Buffer]) -> None:
        self.b, self.ops, self.spec, self.buffers = b, ops, spec, buffers

    def _word(self, position: int) -> Expr:
        return self.ops.splat(self.buffers["params"][position])

    def _float(self, position: int) -> Expr:
        return self.ops.splat(reinterpret("float32", self.buffers["params"][position]))

    def range(self) -> ByteRange:
        """The range of the stored bytes."""
        spec, plain = self.spec, byte_range(self.buffers["params"])
        rounding = None if spec.small is None else self._float(words.ROUNDING)
        turned = spec.small == "odd"
        return replace(plain, whole=spec.whole, unshifted=spec.unshifted, rounding=rounding, turned=turned)

    def scale(self, channel: Index, count: int) -> list[Expr]:
        """The multiplier vectors of `count` channels; load them once per channel block."""
        if self.spec.out == "i32":
            return []
        return self.ops.load_words(self.b, self.buffers["multiplier"], channel, count)

    def store(self, acc: Sequence[Expr], scale: Sequence[Expr], index: Index, residual: Index, count: int) -> None:
        """Finish `count` channels of one pixel and store them at element `index` of ``out``.

        `acc` already contains the bias; `residual` is the element index into ``residual``.
        """
        self.store_pixels([acc], scale, [(index, residual)], count)

    def store_pixels(
        self,
        acc: Sequence[Sequence[Expr]],
        scale: Sequence[Expr],
        places: Sequence[tuple[Index, Index]],
        count: int,
    ) -> None:
        """Finish `count` channels of several pixels; `places` are their indices into ``out`` and ``residual``."""
        used = self.ops.vectors_of(count)
        held = [[self.b.let(value) for value in values[:used]] for values in acc]
        if self.spec.out == "byte":
            results = [self._scaled(values, scale, at[1], count) for values, at in zip(held, places, strict=True)]
            self._store_bytes(results, [at[0] for at in places], count)
            return
        for values, (index, _) in zip(held, places, strict=True):
            words_out = values if self.spec.out == "i32" else self._products(values, scale)
            self.ops.store_words(self.b, self.buffers["out"], index, words_out, count)

    def store_quantized(self, values: Sequence[Expr], index: Index, count: int) -> None:
        """Clamp, round, shift by the zero point, map through the table and store `count` float32 values as bytes."""
        self._store_bytes([values], [index], count)

    def _products(self, values: Sequence[Expr], scale: Sequence[Expr]) -> list[Expr]:
        return [self.ops.mul(self.ops.to_f32(value), factor) for value, factor in zip(values, scale, strict=True)]

    def _scaled(self, values: Sequence[Expr], scale: Sequence[Expr], residual: Index, count: int) -> list[Expr]:
        products = self._products(values, scale)
        if self.spec.residual is None:
            return products
        zero_point, source = self.buffers["params"][words.RESIDUAL_ZERO_POINT], self.buffers["residual"]
        return self._added(products, self.ops.load_centred(self.b, source, residual, count, zero_point))

    def _store_bytes(self, values: Sequence[Sequence[Expr]], places: Sequence[Index], count: int) -> None:
        """Narrow vectors of all pixels in groups that fill a byte vector, and store each pixel's part of a group."""
        lanes = self.ops.lanes
        pieces = [
            _Piece(value, place, at * lanes, min(lanes, count - at * lanes))
            for row, place in zip(values, places, strict=True)
            for at, value in enumerate(row)
        ]
        while pieces:
            taken = self.ops.pack_size(len(pieces))
            self._store_group(pieces[:taken])
            pieces = pieces[taken:]

    def _store_group(self, pieces: Sequence[_Piece]) -> None:
        b, ops = self.b, self.ops
        stored = b.let(ops.quantize([piece.value for piece in pieces], self.range()))
        width = ops.narrow_lanes(len(pieces))
        if self.spec.table:
            stored = ops.lookup(b, self.buffers["table"], stored, width)
        first = 0
        while first < len(pieces):
            last = first + 1
            while last < len(pieces) and pieces[last].follows(pieces[last - 1], ops.lanes):
                last += 1
            count = sum(piece.count for piece in pieces[first:last])
            start = first * ops.lanes
            store_part(b, self.buffers["out"], pieces[first].index, stored, count=count, lanes=width, start=start)
            first = last

    def _added(self, values: Sequence[Expr], residual: Sequence[Expr]) -> list[Expr]:
        """The sums with a residual minus its zero point, int32."""
        ops, factor = self.ops, self._float(words.RESIDUAL_MULTIPLIER)
        terms = [ops.mul(ops.to_f32(value), factor) for value in residual]
        return [tirx.Add(value, term) for value, term in zip(values, terms, strict=True)]


def byte_range(params: Buffer) -> ByteRange:
    """The range that a `params` constant describes."""
    high = reinterpret("float32", params[words.HI])
    return ByteRange(high, params[words.ZERO_POINT], params[words.BYTE_LO], params[words.BYTE_HI])
