"""Emitter of `FloatLayerNormSpec`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
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
from .strided import block_start, task_starts
from .values import divided

#: Gives some elements of a row, from one on, as vectors.
Load = Callable[[Expr, int], list[Expr]]


@emitter(FloatLayerNormSpec)
def emit(spec: FloatLayerNormSpec, isa: Isa, symbol: str) -> Any:
    """Three passes over some rows, which stay in the first cache: mean, variance, and blocks of four vectors."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    work = _LayerNorm(b, ops, spec, buffers)
    loops = replace(spec.loops, task_axes=len(spec.loops.shape) - 2)
    with b.tasks() as task:
        outer, part = b.split(task, spec.parts)
        starts = task_starts(b, loops, outer)
        first = block_start(b, part, spec.together, loops.shape[-2])
        strides = [row[-2] for row in loops.strides]
        rows = [
            [b.let(start + (first + row) * stride) for start, stride in zip(starts, strides, strict=True)]
            for row in range(spec.together)
        ]
        work.rows([x for x, _ in rows], [out for _, out in rows])
    return b.finish(spec.noalias)


class _LayerNorm:
    """Rows, each part of all of them before the next part."""

    def __init__(self, b: Builder, ops: VectorOps, spec: FloatLayerNormSpec, buffers: dict[str, Buffer]) -> None:
        self.b, self.ops, self.spec, self.buffers = b, ops, spec, buffers
        self.epilogue = EpilogueEmitter(b, ops, Epilogue(), buffers)

    def rows(self, xs: Sequence[Expr], outs: Sequence[Expr]) -> None:
        b, ops, length = self.b, self.ops, self.spec.length
        means = [self._mean(partial(self._values, x)) for x in xs]
        centred = [partial(self._deviations, x, b.let(ops.splat(mean))) for x, mean in zip(xs, means, strict=True)]
        variances = [self._mean(partial(self._squares, deviations)) for deviations in centred]
        inverses = [b.let(ops.splat(self._inverse_root(variance))) for variance in variances]
        step = min(4 * ops.lanes, length)
        with b.loop(0, -(-length // step)) as number:
            start = block_start(b, number, step, length)
            affine = ("gain", "shift") if self.spec.affine else ()
            factors = [ops.load_words(b, self.buffers[name], start, step) for name in affine]
            for deviations, inverse, out in zip(centred, inverses, outs, strict=True):
                values = [ops.mul(deviation, inverse) for deviation in deviations(start, step)]
                if factors:
                    values = [ops.mul(v, gain) + shift for v, gain, shift in zip(values, *factors, strict=True)]
                self._store([b.let(value) for value in values], b.let(out + start), step)

    def _deviations(self, x: Expr, mean: Expr, first: Expr, count: int) -> list[Expr]:
        return [self.b.let(value - mean) for value in self._values(x, first, count)]

    def _squares(self, deviations: Load, first: Expr, count: int) -> list[Expr]:
        return [self.ops.mul(d, d) for d in deviations(first, count)]

    def _inverse_root(self, variance: Expr) -> Expr:
        root = intrin("float32", "llvm.sqrt.f32", variance + self._param(EPSILON))
        return self.b.let(const(1, "float32") / root)

    def _param(self, word: int) -> Expr:
        return reinterpret("float32", self.buffers["params"][word])

    def _values(self, row: Expr, first: Expr, count: int) -> list[Expr]:
        """`count` elements of a row as float32."""
        b, ops, x = self.b, self.ops, self.buffers["x"]
        if self.spec.x == "f32":
            return ops.load_words(b, x, row + first, count)
        scale = ops.splat(self._param(X_SCALE))
        centred = ops.load_centred(b, x, row + first, count, self.buffers["params"][X_ZERO_POINT])
        return [b.let(ops.mul(ops.to_f32(value), scale)) for value in centred]

    def _mean(self, load: Load) -> Expr:
        lanes = Lanes(self.b, self.ops, LANES, tirx.Add)
        lanes.run(self.spec.length, load)
        return self.b.let(lanes.total() / const(self.spec.length, "float32"))

    def _store(self, values: list[Expr], out: Expr, count: int) -> None:
        if self.spec.out == "f32":
            self.ops.store_words(self.b, self.buffers["out"], out, values, count)
            return
        scale = self.ops.splat(self._param(OUT_SCALE))
        self.epilogue.store_quantized(divided(self.b, self.ops, values, scale), out, count)
