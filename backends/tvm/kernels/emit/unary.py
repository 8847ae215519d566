"""Emitter of `UnarySpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, Index, broadcast, cast, const, reinterpret, vector
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps, store_part
from ..base import emitter
from ..epilogue import BYTE_HI, BYTE_LO, Epilogue
from ..unary import FACTOR, X_ZERO_POINT, UnarySpec
from .epilogue import EpilogueEmitter
from .interleaved import emit_interleaved
from .strided import emit_loops
from .values import divided


@emitter(UnarySpec)
def emit(spec: UnarySpec, isa: Isa, symbol: str) -> Any:
    """Blocks of four native vectors, or of sixteen pixels where planes become pixels."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    if spec.interleaved:
        emit_interleaved(b, ops, spec, buffers)
        return b.finish(spec.noalias)
    work = _Unary(b, ops, buffers)
    emit_loops(b, spec.loops, 4 * ops.lanes, lambda at, count: getattr(work, spec.op)(at[0], at[1], count))
    return b.finish(spec.noalias)


class _Unary:
    """One block of every conversion."""

    def __init__(self, b: Builder, ops: VectorOps, buffers: dict[str, Buffer]) -> None:
        self.b, self.ops, self.buffers = b, ops, buffers
        self.epilogue = EpilogueEmitter(b, ops, Epilogue(), buffers)

    def _centered(self, x: Index, count: int) -> list[Expr]:
        ops = self.ops
        zero = ops.splat(self.buffers["params"][X_ZERO_POINT])
        return [ops.to_f32(value - zero) for value in ops.load_bytes(self.b, self.buffers["x"], x, count)]

    def _factor(self) -> Expr:
        return self.ops.splat(reinterpret("float32", self.buffers["params"][FACTOR]))

    def quantize(self, x: Index, out: Index, count: int) -> None:
        values = self.ops.load_words(self.b, self.buffers["x"], x, count)
        self.epilogue.store_quantized(divided(self.b, self.ops, values, self._factor()), out, count)

    def dequantize(self, x: Index, out: Index, count: int) -> None:
        values = [self.b.let(value * self._factor()) for value in self._centered(x, count)]
        self.ops.store_words(self.b, self.buffers["out"], out, values, count)

    def requantize(self, x: Index, out: Index, count: int) -> None:
        values = [self.ops.mul(value, self._factor()) for value in self._centered(x, count)]
        self.epilogue.store_quantized(values, out, count)

    def clamp(self, x: Index, out: Index, count: int) -> None:
        lanes, params, dtype = 4 * self.ops.lanes, self.buffers["params"], self.buffers["x"].dtype
        low, high = (broadcast(cast(dtype, params[word]), lanes) for word in (BYTE_LO, BYTE_HI))
        value = tirx.Min(tirx.Max(self.buffers["x"].load(x, lanes), low), high)
        store_part(self.b, self.buffers["out"], out, self.b.let(value), count=count, lanes=lanes)

    def flip(self, x: Index, out: Index, count: int) -> None:
        lanes, dtype = 4 * self.ops.lanes, vector(self.buffers["x"].dtype, 4 * self.ops.lanes)
        loaded = reinterpret(vector("uint8", lanes), self.buffers["x"].load(x, lanes))
        value = reinterpret(dtype, tirx.bitwise_xor(loaded, const(0x80, vector("uint8", lanes))))
        store_part(self.b, self.buffers["out"], out, self.b.let(value), count=count, lanes=lanes)
