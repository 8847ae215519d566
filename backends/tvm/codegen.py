"""From PrimFuncs to relocatable objects with a plain C ABI. Imports tvm: only the code generation process uses it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from .builder import i64
from .isa import Isa
from .kernels.base import KernelSpec, emit

#: What the ABIs of all targets promise of the stack of a function that is called.
STACK_ALIGNMENT = 16

_untyped: Any = tirx


def target_of(isa: Isa) -> Any:
    """The TVM target of an ISA level.

    Type-based alias analysis is off: TVM makes each buffer its own TBAA node, which loses stores when an arena is
    reused.
    Code is position independent, so that the objects link into a shared library.
    """
    options: dict[str, Any] = {
        "kind": "llvm",
        "mtriple": isa.triple,
        "mattr": [*isa.mattr, *isa.tuning],
        "opt-level": 3,
        "cl-opt": ["-enable-tbaa=0"],
    }
    if isa.mcpu:
        options["mcpu"] = isa.mcpu
    return tvm.target.Target(options)


@tirx.transform.prim_func_pass(opt_level=0)
def _on_host(func: Any, mod: Any, ctx: Any) -> Any:
    """Say that the function runs on the CPU, which the code generator insists on."""
    body = tirx.AttrStmt("default", "device_id", tirx.IntImm("int32", 0), func.body)
    body = tirx.AttrStmt("default", "device_type", tirx.IntImm("int32", 1), body)
    return func.with_body(body)


def _aligned_stack(isa: Isa) -> Any:
    """Make functions align their stack for the vectors of a level, so that spilled ones do not straddle cache lines.

    LLVM sees that vectors are spilled when the frame pointer it needs to align the stack may be in use already. A local
    vector whose address is taken tells it before; asking a cache for it is the least to do with an address.
    """

    @tirx.transform.prim_func_pass(opt_level=0)
    def align(func: Any, mod: Any, ctx: Any) -> Any:
        node = _untyped.decl_buffer((1,), f"int32x{isa.lanes}", "spilled", scope="local", layout=None)
        address = tirx.address_of(tirx.BufferLoad(node, [i64(0)]))
        read, data = tirx.IntImm("int32", 0), tirx.IntImm("int32", 1)
        touch = tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", address, read, read, data))
        return func.with_body(tirx.SeqStmt([tirx.AllocBuffer(node), touch, func.body]))

    return align


def lower(module: Any, isa: Isa) -> Any:
    """Lower a module of flat PrimFuncs without MakePackedAPI, so that functions keep their C parameters.

    LowerTVMBuiltin is left out too: it would turn local arrays into calls to a TVM workspace allocator.
    """
    target = target_of(isa)
    passes = [tirx.transform.BindTarget(target.with_host(target)), _on_host, tirx.transform.LowerIntrin()]
    if 4 * isa.lanes > STACK_ALIGNMENT:
        passes.insert(0, _aligned_stack(isa))
    return tvm.ir.transform.Sequential(passes)(module)


def build_module(funcs: Sequence[Any], isa: Isa) -> Any:
    """Compile PrimFuncs into one runtime module (``inspect_source("asm")`` shows its assembly)."""
    module = tvm.IRModule({func.attrs["global_symbol"]: func for func in funcs})
    return tvm.get_global_func("target.build.llvm")(lower(module, isa), target_of(isa))


def object_bytes(funcs: Sequence[Any], isa: Isa) -> bytes:
    """Compile PrimFuncs into one relocatable ELF object for `isa`."""
    built = build_module(funcs, isa)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        built.write_to_file(str(path))
        return path.read_bytes()


def compile_kernels(kernels: Sequence[tuple[str, KernelSpec]], isa: Isa) -> bytes:
    """Emit and compile (symbol, spec) pairs into one object."""
    return object_bytes([emit(spec, isa, symbol) for symbol, spec in kernels], isa)
