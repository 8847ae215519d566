"""Emitter of `FaultySpec`."""

from __future__ import annotations

from typing import Any

from kernels.faulty import FaultySpec
from octavo.backends.tvm.builder import Builder, const, intrin
from octavo.backends.tvm.isa import Isa
from octavo.backends.tvm.kernels.base import emitter


@emitter(FaultySpec)
def emit(spec: FaultySpec, isa: Isa, symbol: str) -> Any:
    """An AVX-512 instruction on a level without it, what LLVM leaves to the C library, or an exception."""
    if spec.fault == "raise":
        raise ArithmeticError("no such tile")
    b = Builder(symbol)
    if spec.fault == "foreign":
        values = b.arg("out", "float32")
        b.store(values, 0, intrin("float32", "llvm.exp.f32", values[0]))
        return b.finish()
    out = b.arg("out", "int32")
    zero = const(0, "int32x16")
    value = intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", zero, const(1, "uint8x64"), const(1, "int8x64"))
    b.store(out, 0, value, 16)
    return b.finish()
