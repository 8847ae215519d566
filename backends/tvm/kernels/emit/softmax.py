"""Emitter of `SoftmaxSpec`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, broadcast, cast, const, i64, intrin, reinterpret, shuffle, vector
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps, store_part
from ..base import emitter
from ..epilogue import Epilogue
from ..softmax import FACTOR, PLANES, SoftmaxSpec
from .depthwise import unpack
from .epilogue import EpilogueEmitter
from .strided import block_start, emit_loops

#: Table loads that are unrolled.
UNROLLED = 8


@emitter(SoftmaxSpec)
def emit(spec: SoftmaxSpec, isa: Isa, symbol: str) -> Any:
    """Three passes over a row: largest element, exponentials and their sum, products."""
    b, ops = Builder(symbol), vector_ops(isa)
    planes = spec.by_planes(isa)
    dtypes = {arg.name: arg.dtype_on(isa) for arg in spec.args} | ({"exponentials": isa.act_dtype} if planes else {})
    buffers = {name: b.arg(name, dtype) for name, dtype in dtypes.items()}
    work = (_PlaneSoftmax if planes else _Softmax)(b, ops, spec, buffers)
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


class _PlaneSoftmax(_Softmax):
    """One row in blocks of a vector of bytes, whose exponentials are looked up byte by byte."""

    def row(self, x: Expr, out: Expr) -> None:
        b, ops, lanes = self.b, self.ops, 4 * self.ops.lanes
        largest = self._largest(x)
        total = b.registers(1, ops.i32, "total")
        b.store(total, 0, ops.const_i32(0))

        def add(first: Expr, count: int) -> None:
            powers = self._powers(largest, x + first, count)
            ops.store_words(b, self.buffers["powers"], first, powers, lanes)
            for power in powers:
                b.store(total, 0, total[0] + power)

        self._blocks(add)
        summed = intrin("int32", f"llvm.vector.reduce.add.v{ops.lanes}i32", total[0])
        inverse = ops.splat(b.let(const(1, "float32") / cast("float32", summed)))
        factor = ops.splat(reinterpret("float32", self.buffers["params"][FACTOR]))

        def finish(first: Expr, count: int) -> None:
            powers = ops.load_words(b, self.buffers["powers"], first, lanes)
            values = [b.let(ops.mul(ops.mul(ops.to_f32(power), inverse), factor)) for power in powers]
            stored = b.let(ops.quantize_interleaved(values, self.epilogue.range()))
            store_part(b, self.buffers["out"], out + first, stored, count=count, lanes=lanes)

        self._blocks(finish)

    def _blocks(self, emit: Callable[[Expr, int], None]) -> None:
        """Whole blocks, and one of what is left."""
        lanes = 4 * self.ops.lanes
        whole, tail = divmod(self.spec.length, lanes)
        if whole:
            with self.b.loop(0, whole) as number:
                emit(self.b.let(number * lanes), lanes)
        if tail:
            emit(i64(whole * lanes), tail)

    def _largest(self, x: Expr) -> Expr:
        """The largest element of the row in every lane; lanes behind its end count as the smallest byte."""
        b, buffer, lanes = self.b, self.buffers["x"], 4 * self.ops.lanes
        kind, least = vector(buffer.dtype, lanes), 0 if buffer.dtype == "uint8" else -128
        many = b.registers(1, kind, "largest")
        b.store(many, 0, const(least, kind))

        def add(first: Expr, count: int) -> None:
            value = self._first(b.let(buffer.load(x + first, lanes)), const(least, kind), count)
            b.store(many, 0, tirx.Max(many[0], value))

        self._blocks(add)
        name = "umax" if buffer.dtype == "uint8" else "smax"
        return broadcast(b.let(intrin(buffer.dtype, f"llvm.vector.reduce.{name}.v{lanes}i8", many[0])), lanes)

    def _first(self, value: Expr, other: Expr, count: int) -> Expr:
        """The first `count` lanes of a vector of bytes, and those of another behind them."""
        lanes = 4 * self.ops.lanes
        picks = [lane if lane < count else lanes + lane for lane in range(lanes)]
        return value if count == lanes else self.b.let(shuffle([value, other], picks))

    def _powers(self, largest: Expr, x: Expr, count: int) -> list[Expr]:
        """The exponentials of a block, in the order that unpacking leaves; 0 behind the end of the row."""
        b, lanes, dtype = self.b, 4 * self.ops.lanes, self.buffers["x"].dtype
        nothing = const(0, vector(dtype, lanes))
        below = b.let(largest - self.buffers["x"].load(x, lanes))
        table = self.buffers["exponentials"]
        found = [self.ops.lookup(b, table, below, lanes, 256 * plane) for plane in range(PLANES)]
        low, middle, high = (self._first(plane, nothing, count) for plane in found)
        words = zip(unpack(low, middle, dtype), unpack(high, nothing, dtype), strict=True)
        halves = [[b.let(reinterpret(vector("int16", lanes // 2), part)) for part in pair] for pair in words]
        powers = [part for pair in halves for part in unpack(pair[0], pair[1], "int16")]
        return [b.let(reinterpret(self.ops.i32, power)) for power in powers]
