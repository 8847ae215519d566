"""x86 vector operations: AVX2 (8 lanes) and AVX-512 (16 lanes). Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from ..builder import Buffer, Builder, Expr, Index, broadcast, cast, const, intrin, reinterpret, shuffle, vector
from .vector import ByteRange, VectorOps


class X86Ops(VectorOps):
    """Stored activations are uint8; float comparisons follow minps/maxps (the second operand wins on NaN)."""

    @property
    def _wide(self) -> bool:
        return self.lanes == 16

    def load_bytes(self, b: Builder, buffer: Buffer, index: Index, count: int) -> list[Expr]:
        steps = range(0, count, self.lanes)
        return [b.let(cast(self.i32, buffer.load(index + step, self.lanes))) for step in steps]

    def rint(self, value: Expr) -> Expr:
        if not self._wide:
            return intrin(self.i32, "llvm.x86.avx.cvt.ps2dq.256", value)
        undefined = self.const_i32(0)
        mask, current_rounding = tirx.IntImm("int16", -1), tirx.IntImm("int32", 4)
        return intrin(self.i32, "llvm.x86.avx512.mask.cvtps2dq.512", value, undefined, mask, current_rounding)

    def clamp(self, value: Expr, low: Expr, high: Expr) -> Expr:
        return tirx.Max(tirx.Min(value, high), low)

    def quantize(self, values: Sequence[Expr], into: ByteRange) -> Expr:
        """Only the upper bound needs a float: cvtps2dq gives the most negative integer for what is below the range."""
        rounded = self._rounded(values, into)
        if len(rounded) == 1 and self._wide:
            shifted = rounded[0] if into.unshifted else rounded[0] + self.splat(into.zero_point)
            if into.whole:
                return self.narrow([shifted])
            return cast("uint8x16", tirx.Max(shifted, self.splat(into.byte_low)))
        lanes = len(values) * self.lanes
        words = [self._shift(half, into) for half in self._words(rounded)]
        return self._above(self._bytes(words, lanes), into, lanes)

    def _rounded(self, values: Sequence[Expr], into: ByteRange) -> list[Expr]:
        """Integers that saturating instructions make bytes of."""
        high = self.splat(into.high)
        return [self.rint(value if into.whole else tirx.Min(value, high)) for value in values]

    def _above(self, stored: Expr, into: ByteRange, lanes: int) -> Expr:
        """Bytes that are not below the range."""
        return stored if into.whole else tirx.Max(stored, broadcast(cast("uint8", into.byte_low), lanes))

    def quantize_interleaved(self, values: Sequence[Expr], into: ByteRange) -> Expr:
        """The packing instructions interleave 128-bit lanes just the other way round, so nothing is permuted."""
        rounded, lanes = self._rounded(values, into), len(values) * self.lanes
        name, suffix = _NAMES[self.lanes]
        kind = vector("int16", 2 * self.lanes)
        pairs = [
            intrin(kind, f"llvm.x86.{name}.packssdw{suffix}", rounded[at], rounded[at + 1])
            for at in range(0, len(rounded), 2)
        ]
        words = [self._shift(pair, into) for pair in pairs]
        if len(words) == 1:
            halves = [shuffle(words, range(at, at + 8)) for at in (0, 8)]
            return self._above(intrin("uint8x16", "llvm.x86.sse2.packuswb.128", *halves), into, lanes)
        packed = intrin(vector("uint8", lanes), f"llvm.x86.{name}.packuswb{suffix}", *words)
        return self._above(packed, into, lanes)

    def narrow(self, values: Sequence[Expr]) -> Expr:
        if len(values) == 1 and self._wide:
            return cast("uint8x16", tirx.Min(tirx.Max(values[0], self.const_i32(0)), self.const_i32(255)))
        return self._bytes(self._words(values), len(values) * self.lanes)

    def _words(self, values: Sequence[Expr]) -> list[Expr]:
        """Saturate one (AVX2) or four vectors of int32 to int16, interleaved by 128-bit lanes when four."""
        if len(values) == 1:
            halves = [shuffle(values, range(4)), shuffle(values, range(4, 8))]
            return [intrin("int16x8", "llvm.x86.sse2.packssdw.128", *halves)]
        name, suffix = _NAMES[self.lanes]
        pack, kind = f"llvm.x86.{name}.packssdw{suffix}", vector("int16", 2 * self.lanes)
        return [intrin(kind, pack, values[at], values[at + 1]) for at in (0, 2)]

    def _shift(self, words: Expr, into: ByteRange) -> Expr:
        if into.unshifted:
            return words
        count = int(words.ty.dtype.lanes)
        splat = broadcast(cast("int16", into.zero_point), count)
        return intrin(f"int16x{count}", f"llvm.sadd.sat.v{count}i16", words, splat)

    def _bytes(self, words: Sequence[Expr], lanes: int) -> Expr:
        """Saturate int16 to uint8; one permutation of 32-bit groups undoes the interleaving of the 128-bit lanes."""
        if len(words) == 1:
            return shuffle([intrin("uint8x16", "llvm.x86.sse2.packuswb.128", words[0], words[0])], range(8))
        name, suffix = _NAMES[self.lanes]
        packed = intrin(vector("uint8", lanes), f"llvm.x86.{name}.packuswb{suffix}", *words)
        groups = self.lanes // 4
        order = [4 * group + part for part in range(4) for group in range(groups)]
        # With VBMI LLVM would permute once for each part that is stored, and take none from the whole.
        whole = self.fence(reinterpret(self.f32, shuffle([reinterpret(self.i32, packed)], order)))
        return reinterpret(vector("uint8", lanes), whole)

    def lookup(self, b: Builder, table: Buffer, value: Expr, lanes: int, start: int = 0) -> Expr:
        width = 64 if self._wide else max(lanes, 16)
        index = b.let(value if width == lanes else shuffle([value] * (width // lanes), range(width)))
        find = {"rows": _look_up_bytes, "pairs": _look_up_pairs, "differences": _look_up_differences}[self.isa.lookup]
        result = b.let(find(b, table, index, width, start))
        return result if width == lanes else shuffle([result], range(lanes))


def _look_up_bytes(b: Builder, table: Buffer, index: Expr, width: int, start: int) -> Expr:
    """AVX512-VBMI: vpermi2b finds one of 128 bytes, and the sign of the index says in which half."""
    quarters = [table.load(start + 64 * part, 64) for part in range(4)]
    low, high = (
        intrin("uint8x64", "llvm.x86.avx512.vpermi2var.qi.512", quarters[at], index, quarters[at + 1]) for at in (0, 2)
    )
    return tirx.Select(_negative(index, width), high, low)


def _look_up_pairs(b: Builder, table: Buffer, index: Expr, width: int, start: int) -> Expr:
    """AVX-512: vpermi2w finds one of 64 words, bit 6 of the index says in which half, and its sign which byte of it."""
    quarters = [reinterpret("uint16x32", table.load(start + 64 * part, 64)) for part in range(4)]
    words = b.let(reinterpret("uint16x32", index))

    def find(places: Expr) -> Expr:
        low, high = (
            intrin("uint16x32", "llvm.x86.avx512.vpermi2var.hi.512", quarters[at], places, quarters[at + 1])
            for at in (0, 2)
        )
        above = tirx.NE(tirx.bitwise_and(places, const(64, "uint16x32")), const(0, "uint16x32"))
        return b.let(tirx.Select(above, high, low))

    eight, low_byte, high_byte = (const(value, "uint16x32") for value in (8, 0xFF, 0xFF00))
    even, odd = find(words), find(b.let(tirx.shift_right(words, eight)))
    first = tirx.bitwise_or(tirx.bitwise_and(even, low_byte), tirx.shift_left(odd, eight))
    second = tirx.bitwise_or(tirx.shift_right(even, eight), tirx.bitwise_and(odd, high_byte))
    low, high = (b.let(reinterpret("uint8x64", part)) for part in (first, second))
    return tirx.Select(_negative(index, width), high, low)


def _look_up_differences(b: Builder, table: Buffer, index: Expr, width: int, start: int) -> Expr:
    """AVX2: pshufb finds one of 16 bytes, or 0 for negative places: for row r the differences up to its own add up."""
    kind = vector("uint8", width)
    low_bits = b.let(tirx.bitwise_and(index, const(127, kind)))
    halves = [const(0, kind)] * 2
    for part in range(8):
        places = b.let(low_bits - const(16 * part, kind))
        for half in range(2):
            row = shuffle([table.load(start + 128 * half + 16 * part, 16)] * (width // 16), range(width))
            halves[half] = tirx.bitwise_xor(halves[half], intrin(kind, _PSHUFB[width], row, places))
    return tirx.Select(_negative(index, width), halves[1], halves[0])


def _negative(index: Expr, width: int) -> Expr:
    return tirx.LT(reinterpret(f"int8x{width}", index), const(0, f"int8x{width}"))


_PSHUFB = {16: "llvm.x86.ssse3.pshuf.b.128", 32: "llvm.x86.avx2.pshuf.b"}
_NAMES = {8: ("avx2", ""), 16: ("avx512", ".512")}
