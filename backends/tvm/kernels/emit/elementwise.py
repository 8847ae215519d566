"""Emitter of `BinarySpec`."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...builder import Buffer, Builder, Expr, Index, cast, reinterpret
from ...isa import Isa, vector_ops
from ...isa.vector import VectorOps
from ..base import emitter
from ..elementwise import A_FACTOR, A_ZERO_POINT, B_FACTOR, B_ZERO_POINT, F32_HI, F32_LO, BinarySpec
from .epilogue import EpilogueEmitter
from .strided import emit_loops


@emitter(BinarySpec)
def emit(spec: BinarySpec, isa: Isa, symbol: str) -> Any:
    """Blocks of four native vectors; an operand that is constant along them is converted once per block."""
    b, ops = Builder(symbol), vector_ops(isa)
    buffers = {arg.name: b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args}
    epilogue = EpilogueEmitter(b, ops, spec.epilogue, buffers)
    strides = spec.loops.inner_strides

    def block(at: list[Expr], count: int) -> None:
        left = _centered(b, ops, buffers, ("a", A_ZERO_POINT), at[0], count, strides[0])
        right = _centered(b, ops, buffers, ("b", B_ZERO_POINT), at[1], count, strides[1])
        values = _combined(ops, buffers["params"], spec, left, right)
        if spec.epilogue.out == "byte":
            epilogue.store_quantized(values, at[2], count)
        else:
            low, high = (ops.splat(reinterpret("float32", buffers["params"][word])) for word in (F32_LO, F32_HI))
            clamped = [b.let(ops.clamp(value, low, high)) for value in values]
            ops.store_words(b, buffers["out"], at[2], clamped, count)

    emit_loops(b, spec.loops, 4 * ops.lanes, block, broadcasts=True, unit=ops.lanes)
    return b.finish(spec.noalias)


def _centered(
    b: Builder, ops: VectorOps, buffers: dict[str, Buffer], operand: tuple[str, int], at: Index, count: int, stride: int
) -> list[Expr]:
    """The operand's bytes minus its zero point, as int32 vectors."""
    name, word = operand
    zero = buffers["params"][word]
    if stride == 0:
        return [b.let(ops.splat(cast("int32", buffers[name][at]) - zero))] * ops.vectors_of(count)
    return ops.load_centred(b, buffers[name], at, count, zero)


def _combined(ops: VectorOps, params: Buffer, spec: BinarySpec, left: list[Expr], right: list[Expr]) -> list[Expr]:
    factors = [ops.splat(reinterpret("float32", params[word])) for word in (A_FACTOR, B_FACTOR)]
    if spec.op == "mul":
        return [ops.mul(ops.to_f32(x * y), factors[0]) for x, y in zip(left, right, strict=True)]
    terms = [[ops.mul(ops.to_f32(x), m) for x in side] for side, m in zip((left, right), factors, strict=True)]
    combine = tirx.Add if spec.op == "add" else tirx.Sub
    return [combine(x, y) for x, y in zip(*terms, strict=True)]
