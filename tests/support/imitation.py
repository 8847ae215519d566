"""Kernels of x86 levels for machines that have AVX2 alone: emitted for their level, compiled for AVX2.

What such a machine lacks are the instructions that emitters ask for by name. Here each becomes an expression of the
same meaning; all other operations on wide vectors LLVM takes apart by itself. Tile instructions of AMX stay: they trap,
and ``amx_emulator.c`` executes them. Only code generation processes import this module: it imports tvm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from typing import Any

import tvm_ffi
from octavo.backends.tvm.builder import Expr, cast, const, i64, intrin, reinterpret, shuffle, vector
from octavo.backends.tvm.codegen import object_bytes
from octavo.backends.tvm.isa import AVX2, Isa
from octavo.backends.tvm.kernels.base import KernelSpec, emit
from tvm import tirx
from tvm.ir import Call, Op
from tvm.target.codegen import llvm_lookup_intrinsic_id

# The annotations of tvm are narrower than what it takes.
_untyped: Any = tirx
_INTRINSIC: Any = Op.get("tirx.call_llvm_pure_intrin")
_MADD = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd"}
#: The operands of cvtps2dq behind its vector: no lane is masked out, and rounding is what MXCSR says.
_ALL_LANES, _CURRENT_ROUNDING = -1, 4

Imitation = Callable[..., Expr]
Imitations = Mapping[int, Imitation]


def compile_kernels(kernels: Sequence[tuple[str, KernelSpec]], isa: Isa) -> bytes:
    """What `codegen.compile_kernels` does, with an object that runs on AVX2."""
    tiles = tuple(feature for feature in isa.mattr if feature.startswith("+amx"))
    here = replace(isa, mattr=(*AVX2.mattr, *tiles), mcpu=AVX2.mcpu)
    imitations = _imitations(isa)
    return object_bytes([_imitated(emit(spec, isa, symbol), imitations) for symbol, spec in kernels], here)


def _imitations(isa: Isa) -> Imitations:
    """By intrinsic. What the level itself lacks is not imitated: it aborts as it does in the product."""
    names = [name for name in _BY_NAME if isa != AVX2 and int(name.rpartition(".")[2]) <= 32 * isa.lanes]
    return {llvm_lookup_intrinsic_id(f"llvm.x86.avx512.{name}"): _BY_NAME[name] for name in names}


def _imitated(func: Any, imitations: Imitations) -> Any:
    """Operands that are used twice go through registers: TVM's analyzer expands anything else, in exponential time."""
    operands: list[Any] = []

    def once(value: Expr) -> Expr:
        if isinstance(value, tirx.Var | tirx.IntImm):
            return value
        register = _untyped.decl_buffer((1,), str(value.ty.dtype), "operand", scope="local", layout=None)
        operands.extend((tirx.AllocBuffer(register), tirx.BufferStore(register, value, [i64(0)])))
        return tirx.BufferLoad(register, [i64(0)])

    def replaced(call: Any) -> Any:
        imitation = imitations.get(int(call.args[0])) if call.op.same_as(_INTRINSIC) else None
        return imitation(*map(once, call.args[1:])) if imitation else call

    def behind_operands(statement: Any) -> Any:
        if not operands:
            return statement
        found = tirx.SeqStmt([*operands, statement])
        operands.clear()
        return found

    leaves = (tirx.Bind, tirx.BufferStore, tirx.Evaluate)
    callbacks = [(Call, replaced), (leaves, behind_operands), (tirx.SeqStmt, _flat)]
    body = tvm_ffi.structural_map(func.body, callbacks, order="post")
    assert not operands, "an instruction outside of the statements that may hold one"
    return func.with_body(body)


def _flat(sequence: Any) -> Any:
    """What is bound within an inner sequence is seen by the statements of the outer one."""
    return tirx.SeqStmt([part for each in sequence for part in (each if isinstance(each, tirx.SeqStmt) else [each])])


# What instructions do ----------------------------------------------------------------------------------------------


def _dot_bytes(total: Expr, x: Expr, y: Expr) -> Expr:
    """vpdpbusd: unsigned bytes times signed ones. Sums of four products fit 32 bits, and the total wraps."""
    return _wrapping_sum(total, _by_halves(_byte_products, x, y))


def _dot_words(total: Expr, x: Expr, y: Expr) -> Expr:
    """vpdpwssd: pmaddwd wraps as it does, where all four words are -32768, and so does the total."""
    return _wrapping_sum(total, _by_halves(_madd, x, y))


def _byte_products(x: Expr, y: Expr) -> Expr:
    signed, unsigned = (vector(dtype, _lanes(x) // 2) for dtype in ("int16", "uint16"))
    left, right = reinterpret(unsigned, x), reinterpret(signed, y)
    low_left, low_right = tirx.bitwise_and(left, const(0xFF, unsigned)), tirx.shift_left(right, const(8, signed))
    even = _madd(reinterpret(signed, low_left), tirx.shift_right(low_right, const(8, signed)))
    high_left, high_right = tirx.shift_right(left, const(8, unsigned)), tirx.shift_right(right, const(8, signed))
    return even + _madd(reinterpret(signed, high_left), high_right)


def _madd(x: Expr, y: Expr) -> Expr:
    lanes = _lanes(x) // 2
    return intrin(vector("int32", lanes), _MADD[lanes], x, y)


def _wrapping_sum(left: Expr, right: Expr) -> Expr:
    """TVM tells LLVM that sums of 32 bits never overflow; those of 64 bits do not."""
    lanes = _lanes(left)
    wide = vector("int64", lanes)
    return cast(vector("int32", lanes), cast(wide, left) + cast(wide, right))


def _half(dtype: str, name: str) -> Imitation:
    """An instruction that works within 128 bits, by that for half of its operands."""
    return partial(_by_halves, partial(intrin, dtype, name))


def _rounded(value: Expr, _: Expr, mask: Expr, rounding: Expr) -> Expr:
    """cvtps2dq; what lanes that are masked out would be does not matter where there are none."""
    if (int(mask), int(rounding)) != (_ALL_LANES, _CURRENT_ROUNDING):
        raise NotImplementedError(f"cvtps2dq with mask {mask} and rounding {rounding}")
    return _half("int32x8", "llvm.x86.avx.cvt.ps2dq.256")(value)


def _permuted_bytes(left: Expr, places: Expr, right: Expr) -> Expr:
    """vpermi2b: bytes of two vectors. A saturating sum sets bit 7 of all places outside of a row of sixteen."""
    rows = [_quarter(side, number) for side in (left, right) for number in range(4)]

    def found(index: Expr) -> Expr:
        kind = "uint8x32"
        parts = []
        for number, row in enumerate(rows):
            relative = tirx.bitwise_xor(tirx.bitwise_and(index, const(127, kind)), const(16 * number, kind))
            near = intrin(kind, "llvm.uadd.sat.v32i8", relative, const(0x70, kind))
            parts.append(intrin(kind, "llvm.x86.avx2.pshuf.b", row, near))
        return reduce(tirx.bitwise_or, parts)

    return _by_halves(found, places)


def _permuted_words(left: Expr, places: Expr, right: Expr) -> Expr:
    """vpermi2w: both bytes of words of two vectors."""
    kind = "uint16x32"
    low = tirx.shift_left(tirx.bitwise_and(places, const(63, kind)), const(1, kind))
    both = tirx.bitwise_or(low, tirx.shift_left(low + const(1, kind), const(8, kind)))
    sides = (reinterpret("uint8x64", side) for side in (left, right))
    return reinterpret(kind, _permuted_bytes(next(sides), reinterpret("uint8x64", both), next(sides)))


def _quarter(value: Expr, number: int) -> Expr:
    """128 of 512 bits, twice."""
    lanes = [4 * number + lane for lane in range(4)]
    return reinterpret("uint8x32", shuffle([reinterpret("int32x16", value)], [*lanes, *lanes]))


def _by_halves(compute: Imitation, *operands: Expr) -> Expr:
    """Operands of 512 bits in two parts. Shuffles are of 32-bit lanes, because TVM takes long for many numbers."""
    if _bits(operands[0]) <= 256:
        return compute(*operands)
    low, high = (compute(*(_part(value, half) for value in operands)) for half in (range(8), range(8, 16)))
    dtype = low.ty.dtype
    whole = shuffle([reinterpret("int32x8", part) for part in (low, high)], range(16))
    return reinterpret(vector(str(dtype.with_lanes(1)), 2 * _lanes(low)), whole)


def _part(value: Expr, half: range) -> Expr:
    dtype = value.ty.dtype
    return reinterpret(str(dtype.with_lanes(_lanes(value) // 2)), shuffle([reinterpret("int32x16", value)], half))


def _lanes(value: Expr) -> int:
    return int(value.ty.dtype.lanes)


def _bits(value: Expr) -> int:
    return _lanes(value) * int(value.ty.dtype.bits)


#: Names end in the bits of a vector; without AVX-512 a level has those of up to 256.
_BY_NAME: dict[str, Imitation] = {
    **{f"vpdpbusd.{bits}": _dot_bytes for bits in (128, 256, 512)},
    **{f"vpdpwssd.{bits}": _dot_words for bits in (128, 256, 512)},
    "pmaddubs.w.512": _half("int16x16", "llvm.x86.avx2.pmadd.ub.sw"),
    "packssdw.512": _half("int16x16", "llvm.x86.avx2.packssdw"),
    "packuswb.512": _half("uint8x32", "llvm.x86.avx2.packuswb"),
    "vpermi2var.qi.512": _permuted_bytes,
    "vpermi2var.hi.512": _permuted_words,
    "mask.cvtps2dq.512": _rounded,
}
