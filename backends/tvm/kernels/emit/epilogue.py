"""Emission of the shared epilogue. Imports tvm."""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx

from ...builder import Buffer, Builder, Expr, Index, reinterpret
from ...isa.vector import ByteRange, VectorOps, store_part
from .. import epilogue as words
from ..epilogue import Epilogue


class EpilogueEmitter:
    """Emits the epilogue of one kernel. Create it after all parameters are declared, outside the loops."""

    def __init__(self, b: Builder, ops: VectorOps, spec: Epilogue, buffers: dict[str, Buffer]) -> None:
        self.b, self.ops, self.spec, self.buffers = b, ops, spec, buffers

    def _word(self, position: int) -> Expr:
        return self.ops.splat(self.buffers["params"][position])

    def _float(self, position: int) -> Expr:
        return self.ops.splat(reinterpret("float32", self.buffers["params"][position]))

    def _range(self) -> ByteRange:
        params = self.buffers["params"]
        high = reinterpret("float32", params[words.HI])
        return ByteRange(high, params[words.ZERO_POINT], params[words.BYTE_LO], params[words.BYTE_HI])

    def scale(self, channel: Index, count: int) -> list[Expr]:
        """The multiplier vectors of `count` channels; load them once per channel block."""
        if self.spec.out == "i32":
            return []
        return self.ops.load_words(self.b, self.buffers["multiplier"], channel, count)

    def store(self, acc: Sequence[Expr], scale: Sequence[Expr], index: Index, residual: Index, count: int) -> None:
        """Finish `count` channels of one pixel and store them at element `index` of ``out``.

        `acc` already contains the bias; `residual` is the element index into ``residual``.
        """
        b, ops, out = self.b, self.ops, self.buffers["out"]
        if self.spec.out == "i32":
            ops.store_words(b, out, index, acc, count)
            return
        scaled = [ops.mul(ops.to_f32(value), factor) for value, factor in zip(acc, scale, strict=True)]
        if self.spec.out == "f32":
            ops.store_words(b, out, index, scaled, count)
            return
        if self.spec.residual is not None:
            scaled = self._add_residual(scaled, residual, count)
        self.store_quantized(scaled, index, count)

    def store_quantized(self, values: Sequence[Expr], index: Index, count: int) -> None:
        """Clamp, round, shift by the zero point, map through the table and store `count` float32 values as bytes."""
        b, ops, out = self.b, self.ops, self.buffers["out"]
        done, rest = 0, list(values)
        while done < count:
            taken = ops.pack_size(len(rest))
            stored = ops.quantize(rest[:taken], self._range())
            lanes = ops.narrow_lanes(taken)
            if self.spec.table:
                stored = ops.lookup(b, self.buffers["table"], b.let(stored), lanes)
            part = min(count - done, taken * ops.lanes)
            store_part(b, out, index + done, b.let(stored), count=part, lanes=lanes)
            done, rest = done + part, rest[taken:]

    def _add_residual(self, values: Sequence[Expr], index: Index, count: int) -> list[Expr]:
        ops = self.ops
        loaded = ops.load_bytes(self.b, self.buffers["residual"], index, count)
        shift, factor = self._word(words.RESIDUAL_ZERO_POINT), self._float(words.RESIDUAL_MULTIPLIER)
        terms = [ops.mul(ops.to_f32(value - shift), factor) for value in loaded]
        return [tirx.Add(value, term) for value, term in zip(values, terms, strict=True)]
