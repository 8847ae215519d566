"""Kernels of x86 levels for machines that have AVX2 alone: emitted for their level, compiled for AVX2.

What such a machine lacks are the instructions that emitters ask for by name. Here each becomes an expression of the
same meaning; all other operations on wide vectors LLVM takes apart by itself. Tile instructions of AMX stay: they trap,
and ``amx_emulator.c`` executes them. Only code generation processes import this module: it imports tvm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tvm_ffi
from octavo.backends.tvm.builder import Expr, cast, const, intrin, reinterpret, shuffle, vector
from octavo.backends.tvm.codegen import object_bytes
from octavo.backends.tvm.isa import AVX2, Isa
from octavo.backends.tvm.kernels.base import KernelSpec, emit
from tvm import tirx
from tvm.ir import Call, Op
from tvm.target.codegen import llvm_lookup_intrinsic_id

_INTRINSIC: Any = Op.get("tirx.call_llvm_pure_intrin")
_MADD = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd"}
Imitations = Mapping[int, Callable[..., Expr]]
#: The operands of cvtps2dq behind its vector: no lane is masked out, and rounding is what MXCSR says.
_ALL_LANES, _CURRENT_ROUNDING = -1, 4


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
    def replaced(call: Any) -> Any:
        if not call.op.same_as(_INTRINSIC):
            return call
        imitation = imitations.get(int(call.args[0]))
        return imitation(*call.args[1:]) if imitation else call

    return func.with_body(tvm_ffi.structural_map(func.body, (Call, replaced), order="post"))


# What instructions do ----------------------------------------------------------------------------------------------


def _dot_bytes(total: Expr, x: Expr, y: Expr) -> Expr:
    """vpdpbusd: unsigned bytes times signed ones. Sums of four products fit 32 bits, and the total wraps."""
    signed, unsigned = (vector(dtype, 2 * _lanes(total)) for dtype in ("int16", "uint16"))
    left, right = reinterpret(unsigned, x), reinterpret(signed, y)
    even = _madd(
        reinterpret(signed, tirx.bitwise_and(left, const(0xFF, unsigned))),
        tirx.shift_right(tirx.shift_left(right, const(8, signed)), const(8, signed)),
    )
    odd = _madd(
        reinterpret(signed, tirx.shift_right(left, const(8, unsigned))), tirx.shift_right(right, const(8, signed))
    )
    return _wrapping_sum(total, even + odd)


def _dot_words(total: Expr, x: Expr, y: Expr) -> Expr:
    """vpdpwssd: pmaddwd wraps as it does, where all four words are -32768, and so does the total."""
    return _wrapping_sum(total, _madd(x, y))


def _wrapping_sum(left: Expr, right: Expr) -> Expr:
    """TVM tells LLVM that sums of 32 bits never overflow; those of 64 bits do not."""
    lanes = _lanes(left)
    wide = vector("int64", lanes)
    return cast(vector("int32", lanes), cast(wide, left) + cast(wide, right))


def _madd(x: Expr, y: Expr) -> Expr:
    lanes = _lanes(x) // 2
    if lanes in _MADD:
        return intrin(vector("int32", lanes), _MADD[lanes], x, y)
    return _joined([_madd(*parts) for parts in zip(_halves(x), _halves(y), strict=True)])


def _by_halves(dtype: str, lanes: int, name: str) -> Callable[..., Expr]:
    """An instruction that works within 128 bits, by that for half of its operands, which returns `lanes` lanes."""

    def imitation(*operands: Expr) -> Expr:
        parts = zip(*map(_halves, operands), strict=True)
        return _joined([intrin(vector(dtype, lanes), name, *part) for part in parts])

    return imitation


def _rounded(value: Expr, _: Expr, mask: Expr, rounding: Expr) -> Expr:
    """cvtps2dq; what lanes that are masked out would be does not matter where there are none."""
    if (int(mask), int(rounding)) != (_ALL_LANES, _CURRENT_ROUNDING):
        raise NotImplementedError(f"cvtps2dq with mask {mask} and rounding {rounding}")
    return _by_halves("int32", 8, "llvm.x86.avx.cvt.ps2dq.256")(value)


def _halves(value: Expr) -> tuple[Expr, Expr]:
    lanes = _lanes(value)
    return shuffle([value], range(lanes // 2)), shuffle([value], range(lanes // 2, lanes))


def _joined(halves: Sequence[Expr]) -> Expr:
    return shuffle(halves, range(2 * _lanes(halves[0])))


def _lanes(value: Expr) -> int:
    return int(value.ty.dtype.lanes)


#: Names end in the bits of a vector; without AVX-512 a level has those of up to 256.
_BY_NAME: dict[str, Callable[..., Expr]] = {
    **{f"vpdpbusd.{bits}": _dot_bytes for bits in (128, 256, 512)},
    **{f"vpdpwssd.{bits}": _dot_words for bits in (128, 256, 512)},
    "packssdw.512": _by_halves("int16", 16, "llvm.x86.avx2.packssdw"),
    "packuswb.512": _by_halves("uint8", 32, "llvm.x86.avx2.packuswb"),
    "pshuf.b.512": _by_halves("uint8", 32, "llvm.x86.avx2.pshuf.b"),
    "mask.cvtps2dq.512": _rounded,
}
