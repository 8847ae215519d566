"""Emitter of `LayerNormSpec`."""

from __future__ import annotations

from typing import Any

from ...builder import Buffer, Builder, Expr, broadcast, cast, const, i64, intrin, reinterpret, vector
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..epilogue import Epilogue
from ..layer_norm import BIAS, X_ZERO_POINT, LayerNormSpec
from .epilogue import EpilogueEmitter
from .strided import block_start

#: Vectors whose squares are summed before int64 takes over: 255^2 times this stays inside int32.
SQUARES = 1 << 14


@emitter(LayerNormSpec)
def emit(spec: LayerNormSpec, isa: Isa, symbol: str) -> Any:
    """Two passes over a row: exact sums, then the normalized values in blocks of four vectors."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    work = _LayerNorm(b, ops, spec, buffers)
    with b.tasks() as row:
        x = b.let(row * (spec.x_stride or spec.length))
        work.row(x, b.let(row * (spec.out_stride or spec.length)))
    return b.finish(spec.noalias)


class _LayerNorm:
    """One row."""

    def __init__(self, b: Builder, ops: VectorOps, spec: LayerNormSpec, buffers: dict[str, Buffer]) -> None:
        self.b, self.ops, self.spec, self.buffers = b, ops, spec, buffers
        self.epilogue = EpilogueEmitter(b, ops, Epilogue(), buffers)

    def row(self, x: Expr, out: Expr) -> None:
        b, ops, spec = self.b, self.ops, self.spec
        total, squares = self._sums(x)
        wide = b.let(cast("int64", total))
        variance = b.let(squares * spec.length - wide * wide)
        bias = reinterpret("float32", self.buffers["params"][BIAS])
        root = intrin("float32", "llvm.sqrt.f32", cast("float32", variance) + bias)
        inverse = ops.splat(b.let(const(1, "float32") / root))
        shift, step = ops.splat(total), 4 * ops.lanes
        with b.loop(0, -(-spec.length // step)) as number:
            start = block_start(b, number, step, spec.length)
            self._store(x, out, start, min(step, spec.length), shift, inverse)

    def _centered(self, index: Expr, lanes: int) -> Expr:
        """`lanes` elements minus the zero point as int32, computed in words: products of two are then cheap."""
        words = vector("int16", lanes)
        zero = cast("int16", self.buffers["params"][X_ZERO_POINT])
        value = cast(words, self.buffers["x"].load(index, lanes)) - (broadcast(zero, lanes) if lanes > 1 else zero)
        return self.b.let(cast(vector("int32", lanes), value))

    def _sums(self, x: Expr) -> tuple[Expr, Expr]:
        """The sum of the centered elements as int32, and of their squares as int64."""
        b, ops, length = self.b, self.ops, self.spec.length
        whole = length // ops.lanes
        total, squares = b.registers(1, "int32", "total"), b.registers(1, "int64", "squares")
        b.store(total, 0, const(0, "int32"))
        b.store(squares, 0, i64(0))
        for first in range(0, whole, SQUARES):
            sums = b.registers(2, ops.i32, "sums")
            for at in range(2):
                b.store(sums, at, ops.const_i32(0))
            with b.loop(first, min(first + SQUARES, whole)) as number:
                value = self._centered(x + number * ops.lanes, ops.lanes)
                b.store(sums, 0, sums[0] + value)
                b.store(sums, 1, sums[1] + value * value)
            b.store(total, 0, total[0] + intrin("int32", f"llvm.vector.reduce.add.v{ops.lanes}i32", sums[0]))
            wide = cast(vector("int64", ops.lanes), sums[1])
            b.store(squares, 0, squares[0] + intrin("int64", f"llvm.vector.reduce.add.v{ops.lanes}i64", wide))
        if length % ops.lanes:
            with b.loop(whole * ops.lanes, length) as position:
                value = self._centered(x + position, 1)
                b.store(total, 0, total[0] + value)
                b.store(squares, 0, squares[0] + cast("int64", value * value))
        return b.let(total[0]), b.let(squares[0])

    def _store(self, x: Expr, out: Expr, start: Expr, count: int, shift: Expr, inverse: Expr) -> None:
        b, ops = self.b, self.ops
        values = []
        gains = ops.load_words(b, self.buffers["gain"], start, count)
        shifts = ops.load_words(b, self.buffers["shift"], start, count)
        for v, (gain, addend) in enumerate(zip(gains, shifts, strict=True)):
            centered = self._centered(x + (start + v * ops.lanes), ops.lanes)
            deviation = ops.to_f32(centered * ops.const_i32(self.spec.length) - shift)
            values.append(b.let(ops.mul(ops.mul(deviation, inverse), gain) + addend))
        if self.spec.out == "byte":
            self.epilogue.store_quantized(values, out + start, count)
        else:
            ops.store_words(b, self.buffers["out"], out + start, values, count)
