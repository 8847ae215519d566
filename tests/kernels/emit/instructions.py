"""Emitter of `InstructionSpec`."""

from __future__ import annotations

from typing import Any

from kernels.instructions import InstructionSpec, lanes
from octavo.backends.tvm.builder import Builder, const, intrin
from octavo.backends.tvm.isa import Isa
from octavo.backends.tvm.kernels.base import emitter


@emitter(InstructionSpec)
def emit(spec: InstructionSpec, isa: Isa, symbol: str) -> Any:
    """One call of the intrinsic for each row."""
    b = Builder(symbol)
    *inputs, out = (b.arg(arg.name, arg.dtype) for arg in spec.args)
    constants = [const(value, kind) for kind, value in spec.constants]
    with b.tasks() as row:
        loaded = [b.let(x.load(row * lanes(kind), lanes(kind))) for x, kind in zip(inputs, spec.operands, strict=True)]
        value = intrin(spec.result, f"llvm.x86.{spec.name}", *loaded, *constants)
        b.store(out, row * lanes(spec.result), value, lanes(spec.result))
    return b.finish()
