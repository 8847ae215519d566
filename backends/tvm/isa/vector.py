"""The vector operations kernel generators are written in, one implementation per family. Imports tvm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ..builder import Buffer, Builder, Expr, Index, broadcast, cast, const, intrin, reinterpret, shuffle, vector
from . import Isa


@dataclass(frozen=True)
class ByteRange:
    """Scalar expressions of a quantized range: the float32 upper bound of t, and int32 zero point and stored bounds.

    `whole` says that the range is that of a byte, and that t is far from the bounds of int32: narrowing is enough.
    `unshifted` says that the zero point is 0.
    Where `rounding` is there, t fits a word and the low half of their sum is the byte, or its complement if `turned`.
    """

    high: Expr
    zero_point: Expr
    byte_low: Expr
    byte_high: Expr
    whole: bool = False
    unshifted: bool = False
    rounding: Expr | None = None
    turned: bool = False


class VectorOps(ABC):
    """Operations on native vectors: `lanes` lanes of float32 or int32, or bytes narrowed from several of them.

    A run of `count` elements is a list of ceil(count / lanes) vectors; lanes past `count` hold garbage.
    """

    def __init__(self, isa: Isa) -> None:
        self.isa = isa
        self.lanes = isa.lanes
        self.i32 = vector("int32", self.lanes)
        self.f32 = vector("float32", self.lanes)

    def splat(self, value: Expr) -> Expr:
        """A scalar in every lane."""
        return broadcast(value, self.lanes)

    def const_i32(self, value: int) -> Expr:
        return const(value, self.i32)

    def const_f32(self, value: float) -> Expr:
        return const(value, self.f32)

    def to_f32(self, value: Expr) -> Expr:
        """Convert int32 lanes to float32, rounding to nearest even."""
        return cast(self.f32, value)

    def mul(self, left: Expr, right: Expr) -> Expr:
        """A float32 product that never fuses into a following add (LLVM contracts `a*b+c` by default)."""
        return self.fence(left * right)

    def fence(self, value: Expr) -> Expr:
        """Keep the float vector `value` as it is: no contraction or reassociation looks through it."""
        return intrin(self.f32, f"llvm.arithmetic.fence.v{self.lanes}f32", value)

    def vectors_of(self, count: int) -> int:
        """How many native vectors hold `count` 32-bit elements."""
        return -(-count // self.lanes)

    def load_words(self, b: Builder, buffer: Buffer, index: Index, count: int) -> list[Expr]:
        """Load `count` 32-bit elements; reads up to a whole vector."""
        steps = range(0, count, self.lanes)
        return [b.let(buffer.load(index + step, self.lanes)) for step in steps]

    def store_words(self, b: Builder, buffer: Buffer, index: Index, values: Sequence[Expr], count: int) -> None:
        """Store exactly `count` 32-bit elements."""
        for position, value in enumerate(values):
            done = position * self.lanes
            store_part(b, buffer, index + done, value, count=min(self.lanes, count - done), lanes=self.lanes)

    @abstractmethod
    def load_bytes(self, b: Builder, buffer: Buffer, index: Index, count: int) -> list[Expr]:
        """Load `count` bytes widened to int32 (by the buffer's signedness); reads up to a whole vector of bytes."""

    def load_centred(self, b: Builder, buffer: Buffer, index: Index, count: int, zero_point: Expr) -> list[Expr]:
        """`load_bytes` of activations, minus a zero point (int32) in their domain."""
        return [value - self.splat(zero_point) for value in self.load_bytes(b, buffer, index, count)]

    @abstractmethod
    def quantize(self, values: Sequence[Expr], into: ByteRange) -> Expr:
        """Clamp, round to nearest even, shift by the zero point and narrow `pack_size` float32 vectors to one of bytes.

        Any float is right but NaN, which gives one of the bounds.
        """

    @abstractmethod
    def quantize_interleaved(self, values: Sequence[Expr], into: ByteRange) -> Expr:
        """`quantize` of all vectors of a block whose elements are interleaved as unpacking bytes leaves them.

        Lane l of vector v of V holds element ``l // 4 * 4 V + 4 v + l % 4``; V is 4, or 2 with eight lanes.
        """

    def pack_size(self, available: int) -> int:
        """How many of `available` vectors one `narrow` or `quantize` takes."""
        return 4 if available >= 4 else 1

    def narrow_lanes(self, vectors: int) -> int:
        """Byte lanes of the vector that `narrow` of `vectors` int32 vectors gives."""
        return vectors * self.lanes

    @abstractmethod
    def narrow(self, values: Sequence[Expr]) -> Expr:
        """Saturate `pack_size` int32 vectors into one vector of stored activation bytes, in order."""

    @abstractmethod
    def rint(self, value: Expr) -> Expr:
        """float32 to int32, to nearest even. Out of range: 0x80000000 on x86, saturated on ARM; clamp before."""

    @abstractmethod
    def clamp(self, value: Expr, low: Expr, high: Expr) -> Expr:
        """Clamp float32 lanes; a NaN gives one of the bounds."""

    @abstractmethod
    def lookup(self, b: Builder, table: Buffer, value: Expr, lanes: int, start: int = 0) -> Expr:
        """Map a vector of `lanes` bytes through the 256-byte table at element `start`, by the byte's bit pattern."""


def store_part(
    b: Builder, buffer: Buffer, index: Index, value: Expr, *, count: int, lanes: int, start: int = 0
) -> None:
    """Store `count` of `lanes` lanes, from lane `start` on, in power-of-two pieces, never a byte more."""
    if count == lanes:
        b.store(buffer, index, value, lanes)
        return
    done = 0
    while done < count:
        piece = 1 << ((count - done).bit_length() - 1)
        b.store(buffer, index + done, _part(buffer.dtype, value, start + done, piece, lanes), piece)
        done += piece


def _part(dtype: str, value: Expr, first: int, count: int, lanes: int) -> Expr:
    """Lanes [first, first + count); a few bytes as one integer lane, which a single instruction stores."""
    size = 8 * count
    if not dtype.endswith("int8") or size not in {16, 32} or first % count or lanes % count:
        return shuffle([value], range(first, first + count))
    integers = reinterpret(vector(f"int{size}", lanes // count), value)
    return reinterpret(vector(dtype, count), shuffle([integers], [first // count]))
