"""Packing the right operand of a product at run time, in blocks of 16 channels by 16 bytes of K. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx

from ...builder import Buffer, Builder, Expr, Index, const, i64, reinterpret, shuffle
from ...isa import Isa
from ..base import round_up
from ..matmul import GROUP
from ..tiling import Dot, Runs

#: Four consecutive bytes of K of each of sixteen channels, channel by channel.
Quad = Expr


@dataclass(frozen=True)
class Columns:
    """The operand in memory: `depth` x `columns` with rows `stride` apart, or `transposed`."""

    source: Buffer
    depth: int
    columns: int
    stride: int
    transposed: bool


@dataclass(frozen=True)
class Packed:
    """Where the packed columns go: `width` channels make a block in the layout of `dot`."""

    buffer: Buffer
    dot: Dot
    runs: Runs
    width: int


class ColumnPacker:
    """Emits the packing of columns into ``packed`` for the inner loops of one ISA level.

    Bytes past `depth` become zero: the left operand holds garbage there.
    """

    def __init__(self, b: Builder, isa: Isa, columns: Columns, packed: Packed) -> None:
        self.b, self.isa, self.columns = b, isa, columns
        self.packed, self.dot, self.runs, self.width = packed.buffer, packed.dot, packed.runs, packed.width

    def emit(self, start: Expr, first: Expr, last: Expr) -> None:
        """Pack the groups of channels [first, last) of the matrix at element `start`; group `first` goes in front."""
        b, whole = self.b, self.columns.columns // GROUP
        with b.loop(first, b.let(tirx.Min(last, i64(whole))), "group") as group:
            self._group(start, group, first, GROUP)
        if self.columns.columns % GROUP:
            with b.when(last > whole):
                self._group(start, i64(whole), first, self.columns.columns % GROUP)

    def _group(self, start: Expr, group: Expr, first: Expr, channels: int) -> None:
        b, depth = self.b, self.columns.depth
        place = b.let(group - first)
        with b.loop(0, depth // GROUP, "k") as k:
            self._block(start, group, place, k, channels, GROUP)
        if depth % GROUP:
            self._block(start, group, place, i64(depth // GROUP), channels, depth % GROUP)
        missing = self.runs.padded - round_up(depth, 4)
        if self.dot.kind == "amx" and missing:
            zeros = [const(0, f"int8x{4 * GROUP}")] * (missing // 4)
            self._store_quads(place, i64(round_up(depth, 4)), zeros)

    def _block(self, start: Expr, group: Expr, place: Expr, k: Expr, channels: int, depth: int) -> None:
        load = self._from_rows if self.columns.transposed else self._from_columns
        at = start + (
            group * GROUP * self.columns.stride + k * GROUP
            if self.columns.transposed
            else k * GROUP * self.columns.stride + group * GROUP
        )
        quads = load(self.b.let(at), channels, depth)
        kind = self.dot.kind
        store = {"smlal": self._store_sixteens, "smmla": self._store_eights, "pmaddwd": self._store_words}.get(kind)
        if store is None:
            self._store_quads(place, k * GROUP, quads)
        else:
            store(place, k, quads)

    def _from_rows(self, at: Expr, channels: int, depth: int) -> list[Quad]:
        """Sixteen rows of bytes of one channel each: four transpositions of 4 x 4 words."""
        rows = [self._row(at + channel * self.columns.stride, depth) for channel in range(channels)]
        words = [reinterpret("int32x4", row) for row in rows] + [const(0, "int32x4")] * (GROUP - channels)
        quads = [shuffle(words, range(quad, 4 * GROUP, 4)) for quad in range(-(-depth // 4))]
        return [self.b.let(reinterpret(f"int8x{4 * GROUP}", quad)) for quad in quads]

    def _from_columns(self, at: Expr, channels: int, depth: int) -> list[Quad]:
        """Up to sixteen rows of sixteen channels each: bytes of four rows interleaved."""
        rows = [self._row(at + row * self.columns.stride, GROUP) for row in range(depth)]
        rows += [const(0, "int8x16")] * (round_up(depth, 4) - depth)
        order = [GROUP * byte + channel for channel in range(GROUP) for byte in range(4)]
        return [self.b.let(shuffle(rows[first : first + 4], order)) for first in range(0, len(rows), 4)]

    def _row(self, at: Index, valid: int) -> Expr:
        """Sixteen signed bytes, zero from byte `valid` on."""
        value = reinterpret("int8x16", self.columns.source.load(at, 16))
        if self.isa.act_offset:
            value = tirx.bitwise_xor(value, const(-128, "int8x16"))
        if valid < 16:
            value = shuffle([value, const(0, "int8x16")], [lane if lane < valid else 16 for lane in range(16)])
        return self.b.let(value)

    def _block_of(self, place: Expr) -> tuple[Expr, Expr]:
        """The index of the block's first weight, and the group within the block."""
        groups = self.width // GROUP
        block = self.b.let(tirx.truncdiv(place, i64(groups)))
        return self.b.let(block * (self.runs.padded * self.width)), self.b.let(place - block * groups)

    def _store_quads(self, place: Expr, first: Expr, quads: Sequence[Quad]) -> None:
        """`first` is the byte of K that the quads begin with."""
        b, (base, group) = self.b, self._block_of(place)
        chunk = self.runs.chunk if self.dot.kind == "amx" else 4
        span = GROUP if self.dot.kind == "amx" else self.width
        for number, quad in enumerate(quads):
            byte = b.let(first + 4 * number)
            whole = b.let(tirx.truncdiv(byte, i64(chunk)))
            at = base + whole * (chunk * self.width) + group * (chunk * GROUP if span == GROUP else 4 * GROUP)
            b.store(self.packed, at + (byte - whole * chunk) * span, quad, 4 * GROUP)

    def _store_words(self, place: Expr, k: Expr, quads: Sequence[Quad]) -> None:
        """Even and odd bytes sign-extended to words, eight channels a vector."""
        b, (base, group) = self.b, self._block_of(place)
        for number, quad in enumerate(quads):
            at = b.let(base + (k * 4 + number) * (4 * self.width) + group * (4 * GROUP))
            for half in range(2):
                words = b.let(reinterpret("int16x16", shuffle([quad], range(32 * half, 32 * half + 32))))
                eight = const(8, "int16x16")
                even = tirx.shift_right(tirx.shift_left(words, eight), eight)
                b.store(self.packed, at + 32 * half, even, 16)
                b.store(self.packed, at + 32 * half + 16, tirx.shift_right(words, eight), 16)

    def _store_eights(self, place: Expr, k: Expr, quads: Sequence[Quad]) -> None:
        base, group = self._block_of(place)
        for first in range(0, len(quads), 2):
            at = base + (k * 2 + first // 2) * (8 * self.width) + group * (8 * GROUP)
            self._store_mixed(at, _padded(quads[first : first + 2], 2))

    def _store_sixteens(self, place: Expr, k: Expr, quads: Sequence[Quad]) -> None:
        base, group = self._block_of(place)
        size = 16 if len(quads) > 2 else 8
        self._store_mixed(base + k * (16 * self.width) + group * (size * GROUP), _padded(quads, size // 4))

    def _store_mixed(self, at: Expr, quads: Sequence[Quad]) -> None:
        """Store the words of several quads side by side for every channel, four channels at a time."""
        count = len(quads)
        at = self.b.let(at)
        words = [reinterpret(f"int32x{GROUP}", quad) for quad in quads]
        for channel in range(0, GROUP, 4):
            order = [GROUP * quad + lane for lane in range(channel, channel + 4) for quad in range(count)]
            mixed = reinterpret(f"int8x{16 * count}", shuffle(words, order))
            self.b.store(self.packed, at + channel * 4 * count, mixed, 16 * count)


def _padded(quads: Sequence[Quad], count: int) -> list[Quad]:
    return [*quads, *[const(0, f"int8x{4 * GROUP}")] * (count - len(quads))]
