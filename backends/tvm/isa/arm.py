"""AArch64 vector operations: four 32-bit lanes, sixteen bytes. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from ..builder import Buffer, Builder, Expr, Index, broadcast, cast, const, intrin, reinterpret, shuffle
from .vector import ByteRange, VectorOps


class ArmOps(VectorOps):
    """Stored activations are int8; conversions and narrowing saturate."""

    def load_bytes(self, b: Builder, buffer: Buffer, index: Index, count: int) -> list[Expr]:
        words = f"{'u' if buffer.dtype.startswith('u') else ''}int16x8"
        parts: list[Expr] = []
        for step in range(0, count, 8):
            half = b.let(cast(words, buffer.load(index + step, 8)))
            parts += [b.let(cast("int32x4", shuffle([half], range(at, at + 4)))) for at in (0, 4)]
        return parts[: self.vectors_of(count)]

    def load_centred(self, b: Builder, buffer: Buffer, index: Index, count: int, zero_point: Expr) -> list[Expr]:
        """Sixteen at once where there are as many."""
        sizes = {step: 16 if count - step > 8 else 8 for step in range(0, count, 16)}
        loaded = [b.let(buffer.load(index + step, size)) for step, size in sizes.items()]
        return [value for part in loaded for value in self.centred(b, part, zero_point)][: self.vectors_of(count)]

    def centred(self, b: Builder, value: Expr, zero_point: Expr) -> list[Expr]:
        """Activations minus a zero point as int32 vectors: a single instruction widens to words and adds."""
        shift, lanes = broadcast(cast("int16", -zero_point), 8), int(value.ty.dtype.lanes)
        eights = [shuffle([value], range(at, at + 8)) if lanes > 8 else value for at in range(0, lanes, 8)]
        halves = [b.let(cast("int16x8", eight) + shift) for eight in eights]
        return [b.let(cast("int32x4", shuffle([half], range(at, at + 4)))) for half in halves for at in (0, 4)]

    def load_words(self, b: Builder, buffer: Buffer, index: Index, count: int) -> list[Expr]:
        """Four vectors at once: LLVM would compute an address for each."""
        whole = count // 16 * 16
        wide = [b.let(buffer.load(index + step, 16)) for step in range(0, whole, 16)]
        parts = [b.let(shuffle([value], range(at, at + 4))) for value in wide for at in range(0, 16, 4)]
        return [*parts, *super().load_words(b, buffer, index + whole, count - whole)]

    def rint(self, value: Expr) -> Expr:
        return intrin("int32x4", "llvm.aarch64.neon.fcvtns.v4i32.v4f32", value)

    def clamp(self, value: Expr, low: Expr, high: Expr) -> Expr:
        return intrin(self.f32, "llvm.maxnum.v4f32", intrin(self.f32, "llvm.minnum.v4f32", value, high), low)

    def pack_size(self, available: int) -> int:
        return min(available, 4)

    def narrow_lanes(self, vectors: int) -> int:
        return 8 if vectors <= 2 else 16

    def quantize(self, values: Sequence[Expr], into: ByteRange) -> Expr:
        """No float clamp: fcvtns and every narrowing saturate, and the bounds are whole numbers."""
        shifted = self._rounded(values, into) if into.rounding is None else self._low_halves(values, into.rounding)
        stored, lanes = self._bytes(shifted), 8 * len(shifted)
        if into.turned:
            stored = tirx.bitwise_not(stored)
        if into.whole:
            return stored
        low, high = (broadcast(cast("int8", bound), lanes) for bound in (into.byte_low, into.byte_high))
        return tirx.Min(tirx.Max(stored, low), high)

    def _rounded(self, values: Sequence[Expr], into: ByteRange) -> list[Expr]:
        """Words of 16 bits of any values, in pairs of vectors, with the zero point added."""
        shift = broadcast(cast("int16", into.zero_point), 8)
        halves = self._halves([self.rint(value) for value in values])
        return [intrin("int16x8", "llvm.sadd.sat.v8i16", half, shift) for half in halves]

    @staticmethod
    def _low_halves(values: Sequence[Expr], rounding: Expr) -> list[Expr]:
        """The same of small values: one instruction rounds a vector and adds, another one cuts two."""
        words = [reinterpret("int16x8", tirx.Add(value, rounding)) for value in values]
        words += words[-1:] * (len(words) % 2)
        return [shuffle(words[at : at + 2], range(0, 16, 2)) for at in range(0, len(words), 2)]

    def quantize_interleaved(self, values: Sequence[Expr], into: ByteRange) -> Expr:
        """With a single 128-bit group, interleaved order is natural order."""
        return self.quantize(values, into)

    def narrow(self, values: Sequence[Expr]) -> Expr:
        return self._bytes(self._halves(values))

    def _halves(self, values: Sequence[Expr]) -> list[Expr]:
        words = [intrin("int16x4", "llvm.aarch64.neon.sqxtn.v4i16", value) for value in values]
        words += words[-1:] * (len(words) % 2)
        return [shuffle(words[at : at + 2], range(8)) for at in range(0, len(words), 2)]

    def _bytes(self, halves: Sequence[Expr]) -> Expr:
        narrowed = [intrin("int8x8", "llvm.aarch64.neon.sqxtn.v8i8", half) for half in halves]
        return narrowed[0] if len(narrowed) == 1 else shuffle(narrowed, range(16))

    def lookup(self, b: Builder, table: Buffer, value: Expr, lanes: int, start: int = 0) -> Expr:
        """Four lookups of 64 entries; an index outside its quarter keeps what the others found."""
        width = f"v{lanes}i8"
        kind, unsigned = f"int8x{lanes}", f"uint8x{lanes}"
        index = b.let(reinterpret(unsigned, value))
        result: Expr = const(0, kind)
        for part in range(4):
            rows = [table.load(start + 64 * part + 16 * row, 16) for row in range(4)]
            relative = reinterpret(kind, index - const(64 * part, unsigned))
            if part == 0:
                result = intrin(kind, f"llvm.aarch64.neon.tbl4.{width}", *rows, relative)
            else:
                result = intrin(kind, f"llvm.aarch64.neon.tbx4.{width}", result, *rows, relative)
        return b.let(result)
