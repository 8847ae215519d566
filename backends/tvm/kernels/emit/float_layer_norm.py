"""Emitter of `FloatLayerNormSpec`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, const, intrin, reinterpret
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..epilogue import Epilogue
from ..float_layer_norm import EPSILON, LANES, OUT_SCALE, X_SCALE, X_ZERO_POINT, FloatLayerNormSpec
from .epilogue import EpilogueEmitter
from .lanes import Lanes
from .strided import block_start, emit_loops
from .values import divided


@emitter(FloatLayerNormSpec)
def emit(spec: FloatLayerNormSpec, isa: Isa, symbol: str) -> Any:
    """Three passes over a row, which stays in the first cache: the mean, the variance, and blocks of four vectors."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    work = _LayerNorm(b, ops, spec, buffers)
    emit_loops(b, spec.loops, 1, lambda at, _: work.row(at[0], at[1]))
    return b.finish(spec.noalias)


class _LayerNorm:
    """One row."""

    def __init__(self, b: Builder, ops: VectorOps, spec: FloatLayerNormSpec, buffers: dict[str, Buffer]) -> None:
        self.b, self.ops, self.spec, self.buffers = b, ops, spec, buffers
        self.epilogue = EpilogueEmitter(b, ops, Epilogue(), buffers)

    def row(self, x: Expr, out: Expr) -> None:
        b, ops, length = self.b, self.ops, self.spec.length
        mean = ops.splat(self._mean(lambda first, count: self._values(x + first, count)))

        def deviations(first: Expr, count: int) -> list[Expr]:
            return [b.let(value - mean) for value in self._values(x + first, count)]

        variance = self._mean(lambda first, count: [ops.mul(d, d) for d in deviations(first, count)])
        root = intrin("float32", "llvm.sqrt.f32", variance + self._param(EPSILON))
        inverse = ops.splat(b.let(const(1, "float32") / root))
        step = min(4 * ops.lanes, length)
        with b.loop(0, -(-length // step)) as number:
            start = block_start(b, number, step, length)
            values = [ops.mul(deviation, inverse) for deviation in deviations(start, step)]
            if self.spec.affine:
                gains, shifts = (ops.load_words(b, self.buffers[name], start, step) for name in ("gain", "shift"))
                values = [ops.mul(v, gain) + shift for v, gain, shift in zip(values, gains, shifts, strict=True)]
            self._store([b.let(value) for value in values], b.let(out + start), step)

    def _param(self, word: int) -> Expr:
        return reinterpret("float32", self.buffers["params"][word])

    def _values(self, index: Expr, count: int) -> list[Expr]:
        """`count` elements as float32."""
        b, ops, x = self.b, self.ops, self.buffers["x"]
        if self.spec.x == "f32":
            return ops.load_words(b, x, index, count)
        scale = ops.splat(self._param(X_SCALE))
        centred = ops.load_centred(b, x, index, count, self.buffers["params"][X_ZERO_POINT])
        return [b.let(ops.mul(ops.to_f32(value), scale)) for value in centred]

    def _mean(self, load: Callable[[Expr, int], list[Expr]]) -> Expr:
        lanes = Lanes(self.b, self.ops, LANES, tirx.Add)
        lanes.run(self.spec.length, load)
        return self.b.let(lanes.total() / const(self.spec.length, "float32"))

    def _store(self, values: list[Expr], out: Expr, count: int) -> None:
        if self.spec.out == "f32":
            self.ops.store_words(self.b, self.buffers["out"], out, values, count)
            return
        scale = self.ops.splat(self._param(OUT_SCALE))
        self.epilogue.store_quantized(divided(self.b, self.ops, values, scale), out, count)
