"""Emitter of `SoftmaxSpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, cast, const, i64, intrin, reinterpret
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..epilogue import Epilogue
from ..softmax import FACTOR, SoftmaxSpec
from .epilogue import EpilogueEmitter
from .strided import block_start, emit_loops

#: Table loads that are unrolled.
UNROLLED = 8


@emitter(SoftmaxSpec)
def emit(spec: SoftmaxSpec, isa: Isa, symbol: str) -> Any:
    """Three passes over a row: largest element, exponentials and their sum, products."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    work = _Softmax(b, ops, spec, buffers)
    emit_loops(b, spec.rows, 1, lambda at, _: work.row(at[0], at[1]))
    return b.finish(spec.noalias)


class _Softmax:
    """One row."""

    def __init__(self, b: Builder, ops: VectorOps, spec: SoftmaxSpec, buffers: dict[str, Buffer]) -> None:
        self.b, self.ops, self.spec, self.buffers = b, ops, spec, buffers
        self.epilogue = EpilogueEmitter(b, ops, Epilogue(), buffers)

    def row(self, x: Expr, out: Expr) -> None:
        b = self.b
        largest = self._largest(x)
        total = self._exponentials(x, b.let(i64(255) - cast("int64", largest)))
        inverse = self.ops.splat(b.let(const(1, "float32") / cast("float32", total)))
        length, step = self.spec.length, 4 * self.ops.lanes
        if self.spec.steps[1] != 1:
            with b.loop(0, length) as position:
                self._store(inverse, position, b.let(out + position * self.spec.steps[1]), 1)
            return
        with b.loop(0, -(-length // step)) as number:
            start = block_start(b, number, step, length)
            self._store(inverse, start, b.let(out + start), min(step, length))

    def _largest(self, x: Expr) -> Expr:
        b, spec, buffer = self.b, self.spec, self.buffers["x"]
        lanes, length = 4 * self.ops.lanes, spec.length
        if spec.steps[0] != 1 or length < lanes:
            one = b.registers(1, buffer.dtype, "largest")
            b.store(one, 0, buffer[x])
            with b.loop(1, length) as position:
                b.store(one, 0, tirx.Max(one[0], buffer[x + position * spec.steps[0]]))
            return b.let(one[0])
        many = b.registers(1, f"{buffer.dtype}x{lanes}", "largest")
        b.store(many, 0, buffer.load(x, lanes))
        with b.loop(1, -(-length // lanes)) as number:
            start = block_start(b, number, lanes, length)
            b.store(many, 0, tirx.Max(many[0], buffer.load(x + start, lanes)))
        kind = "umax" if buffer.dtype == "uint8" else "smax"
        return b.let(intrin(buffer.dtype, f"llvm.vector.reduce.{kind}.v{lanes}i8", many[0]))

    def _exponentials(self, x: Expr, shift: Expr) -> Expr:
        """Keep the exponentials of the row in scratch memory; returns their sum."""
        b, step = self.b, self.spec.steps[0]
        total = b.registers(1, "int32", "total")
        b.store(total, 0, const(0, "int32"))

        def one(position: Expr) -> None:
            entry = shift + cast("int64", self.buffers["x"][x + position * step])
            power = b.let(self.buffers["exponentials"][entry])
            b.store(self.buffers["powers"], position, power)
            b.store(total, 0, total[0] + power)

        whole = self.spec.length // UNROLLED
        with b.loop(0, whole) as number:
            for part in range(UNROLLED):
                one(number * UNROLLED + part)
        for position in range(whole * UNROLLED, self.spec.length):
            one(i64(position))
        return b.let(total[0])

    def _store(self, inverse: Expr, position: Expr, out: Expr, count: int) -> None:
        b, ops = self.b, self.ops
        powers = ops.load_words(b, self.buffers["powers"], position, count)
        values = [b.let(ops.mul(ops.to_f32(power), inverse)) for power in powers]
        if self.spec.out == "f32":
            ops.store_words(b, self.buffers["out"], out, values, count)
            return
        factor = ops.splat(reinterpret("float32", self.buffers["params"][FACTOR]))
        self.epilogue.store_quantized([ops.mul(value, factor) for value in values], out, count)
