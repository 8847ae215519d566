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
            shifted = rounded[0] + self.splat(into.zero_point)
            if into.whole:
                return self.narrow([shifted])
            return cast("uint8x16", tirx.Max(shifted, self.splat(into.byte_low)))
        lanes = len(values) * self.lanes
        words = [self._shift(half, into.zero_point) for half in self._words(rounded)]
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
        words = [self._shift(pair, into.zero_point) for pair in pairs]
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

    def _shift(self, words: Expr, zero_point: Expr) -> Expr:
        count = int(words.ty.dtype.lanes)
        splat = broadcast(cast("int16", zero_point), count)
        return intrin(f"int16x{count}", f"llvm.sadd.sat.v{count}i16", words, splat)

    def _bytes(self, words: Sequence[Expr], lanes: int) -> Expr:
        """Saturate int16 to uint8; one permutation of 32-bit groups undoes the interleaving of the 128-bit lanes."""
        if len(words) == 1:
            return shuffle([intrin("uint8x16", "llvm.x86.sse2.packuswb.128", words[0], words[0])], range(8))
        name, suffix = _NAMES[self.lanes]
        packed = intrin(vector("uint8", lanes), f"llvm.x86.{name}.packuswb{suffix}", *words)
        groups = self.lanes // 4
        order = [4 * group + part for part in range(4) for group in range(groups)]
        return reinterpret(vector("uint8", lanes), shuffle([reinterpret(self.i32, packed)], order))

    def lookup(self, b: Builder, table: Buffer, value: Expr, lanes: int) -> Expr:
        """Sixteen in-register lookups of 16 entries: a biased saturating add clears every byte of another sixteenth."""
        width = max(lanes, 16)
        kind = vector("uint8", width)
        index = b.let(value if width == lanes else shuffle([value] * (width // lanes), range(width)))
        result = const(0, kind)
        for part in range(16):
            row = shuffle([table.load(16 * part, 16)] * (width // 16), range(width))
            toggled = tirx.bitwise_xor(index, const(16 * part, kind))
            selector = intrin(kind, f"llvm.uadd.sat.v{width}i8", toggled, const(0x70, kind))
            result = tirx.bitwise_or(result, intrin(kind, _PSHUFB[width], row, selector))
        result = b.let(result)
        return result if width == lanes else shuffle([result], range(lanes))


_PSHUFB = {16: "llvm.x86.ssse3.pshuf.b.128", 32: "llvm.x86.avx2.pshuf.b", 64: "llvm.x86.avx512.pshuf.b.512"}
_NAMES = {8: ("avx2", ""), 16: ("avx512", ".512")}
