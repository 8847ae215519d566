"""A small structured builder for lowered TIR: loops, registers and vector accesses, no schedules.

Kernels are built directly in the form that TVM's LLVM code generator takes: flat buffers, explicit vectors, no blocks.
All index arithmetic is int64. This module imports tvm: only the code generation process may import it.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

from tvm import tirx
from tvm.ir import PointerType, PrimType
from tvm.tirx.stmt import Return

#: A TIR expression; tvm ships no type information.
Expr = Any
Index = Any

_UNBOUNDED = 1 << 40
# The annotations of tvm are narrower than what it takes.
_untyped: Any = tirx


def i64(value: int) -> Expr:
    """An int64 constant, the type of every index."""
    return tirx.IntImm("int64", value)


def const(value: float, dtype: str) -> Expr:
    """A constant of `dtype`, broadcast when `dtype` is a vector type such as ``int32x16``."""
    scalar, _, lanes = dtype.partition("x")
    if scalar == "float32":
        node: Expr = tirx.FloatImm(scalar, float(value))
    else:
        node = tirx.IntImm(scalar, int(value))
    return broadcast(node, int(lanes)) if lanes else node


def broadcast(value: Expr, lanes: int) -> Expr:
    """A scalar in each of `lanes` lanes."""
    return _untyped.Broadcast(value, lanes)


def vector(dtype: str, lanes: int) -> str:
    """The name of a vector type: ``vector("int32", 16) == "int32x16"``; one lane is the scalar itself."""
    return dtype if lanes == 1 else f"{dtype}x{lanes}"


def intrin(dtype: str, name: str, *args: Expr) -> Expr:
    """Call a pure LLVM intrinsic by name, returning `dtype`."""
    return tirx.call_llvm_pure_intrin(dtype, name, *args)


def reinterpret(dtype: str, value: Expr) -> Expr:
    """The same bits as another type of the same size."""
    return tirx.reinterpret(dtype, value)


def cast(dtype: str, value: Expr) -> Expr:
    """Convert the value (sign or zero extension, truncation, int to float)."""
    return tirx.Cast(dtype, value)


def shuffle(values: Sequence[Expr], lanes: Sequence[int]) -> Expr:
    """Pick `lanes` out of the concatenation of vectors of one type."""
    return tirx.Shuffle(list(values), [tirx.IntImm("int32", lane) for lane in lanes])


class Buffer:
    """A flat typed view of a pointer parameter, or a local array of (vector) registers."""

    def __init__(self, node: Any, dtype: str) -> None:
        self.node = node
        self.dtype = dtype

    def load(self, index: Index, lanes: int = 1) -> Expr:
        """`lanes` consecutive elements from `index` on; no alignment is assumed."""
        return tirx.BufferLoad(self.node, [_ramp(index, lanes)])

    def address(self, index: Index) -> Expr:
        """The address of element `index`, for intrinsics that take a pointer."""
        return tirx.address_of(tirx.BufferLoad(self.node, [_as_index(index)]))

    def __getitem__(self, index: Index) -> Expr:
        return self.load(index)


class Builder:
    """Collects statements of one kernel and wraps them into a PrimFunc with the kernel C ABI.

    The emitted function is ``int32_t symbol(void* arg0, ..., int32_t begin, int32_t end)``.
    """

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.begin = tirx.Var("begin", "int32")
        self.end = tirx.Var("end", "int32")
        self._params: list[Any] = []
        self._declared: list[Any] = []
        self._blocks: list[list[Any]] = [[]]
        self._names = 0

    def arg(self, name: str, dtype: str) -> Buffer:
        """Declare the next pointer parameter as a flat buffer of `dtype` elements."""
        pointer = tirx.Var(name + "_ptr", PointerType(PrimType(dtype)))
        node = _untyped.decl_buffer((i64(_UNBOUNDED),), dtype, name, data=pointer, layout=None)
        self._params.append(pointer)
        self._declared.append(tirx.DeclBuffer(node, data=pointer))
        return Buffer(node, dtype)

    def registers(self, count: int, dtype: str, name: str = "reg") -> Buffer:
        """`count` mutable registers of a (vector) type, in scope until the enclosing block ends."""
        node = _untyped.decl_buffer((count,), dtype, self._name(name), scope="local", layout=None)
        self._emit(tirx.AllocBuffer(node))
        return Buffer(node, dtype)

    def let(self, value: Expr, name: str = "v") -> Expr:
        """Bind a value to a fresh variable: computed here, once, however often it is used."""
        var = tirx.Var(self._name(name), value.ty)
        self._emit(tirx.Bind(var, value))
        return var

    def store(self, buffer: Buffer, index: Index, value: Expr, lanes: int = 1) -> None:
        """Store `lanes` consecutive elements (of the buffer's own element type)."""
        self._emit(tirx.BufferStore(buffer.node, value, [_ramp(index, lanes)]))

    def call(self, name: str, *args: Expr) -> None:
        """Call an LLVM intrinsic for its effect."""
        self._emit(tirx.Evaluate(tirx.call_llvm_intrin("void", name, *args)))

    def prefetch(self, buffer: Buffer, index: Index) -> None:
        """Ask the second-level cache for the line of an element, which need not exist."""
        read, second_level, data = (tirx.IntImm("int32", value) for value in (0, 2, 1))
        self.call("llvm.prefetch.p0", buffer.address(index), read, second_level, data)

    @contextmanager
    def loop(self, begin: Index, end: Index, name: str = "i") -> Generator[Expr]:
        """A real (not unrolled) loop over [begin, end)."""
        var = tirx.Var(self._name(name), "int64")
        low, high = _as_index(begin), _as_index(end)
        self._blocks.append([])
        yield var
        body = _sequence(self._blocks.pop())
        self._emit(tirx.For(var, low, high - low, tirx.ForKind.SERIAL, body))

    def split(self, index: Expr, by: int) -> tuple[Expr, Expr]:
        """Quotient and remainder of an index that is not negative."""
        if by == 1:
            return index, i64(0)
        return self.let(tirx.truncdiv(index, i64(by))), self.let(tirx.truncmod(index, i64(by)))

    def opaque(self, value: int) -> Expr:
        """`value`, hidden from LLVM: a loop that ends there is not unrolled whole, which costs registers.

        The first task of a call is never negative; LLVM does not know that.
        """
        sign = tirx.shift_right(reinterpret("uint32", self.begin), tirx.IntImm("uint32", 31))
        return i64(value) + cast("int64", sign)

    def anew(self, value: Expr, index: Expr) -> Expr:
        """`value`, which LLVM takes to depend on `index`: nothing that is made of it leaves a loop over `index`.

        Many vectors that are kept from one pass to the next leave no registers.
        """
        never = cast("int64", tirx.shift_right(self.begin, tirx.IntImm("int32", 31)))
        return value + tirx.bitwise_and(index, never)

    def tasks(self) -> Any:
        """The outermost loop of a kernel, over its own share of the tasks."""
        return self.loop(cast("int64", self.begin), cast("int64", self.end), "task")

    @contextmanager
    def when(self, condition: Expr) -> Generator[None]:
        """Statements executed only where `condition` holds."""
        self._blocks.append([])
        yield
        body = _sequence(self._blocks.pop())
        self._emit(tirx.IfThenElse(condition, body, None))

    def finish(self, noalias: bool = True) -> Any:
        """The PrimFunc: returns 0, restrict-qualified pointers when `noalias`."""
        body = _sequence([*self._declared, *self._blocks[0], Return(tirx.IntImm("int32", 0))])
        func = tirx.PrimFunc([*self._params, self.begin, self.end], body, ret_type=PrimType("int32"))
        return func.with_attr("global_symbol", self.symbol).with_attr("tirx.noalias", noalias)

    def _emit(self, stmt: Any) -> None:
        self._blocks[-1].append(stmt)

    def _name(self, stem: str) -> str:
        self._names += 1
        return f"{stem}{self._names}"


def _as_index(index: Index) -> Expr:
    return i64(index) if isinstance(index, int) else index


def _ramp(index: Index, lanes: int) -> Expr:
    base = _as_index(index)
    return base if lanes == 1 else _untyped.Ramp(base, i64(1), lanes)


def _sequence(stmts: list[Any]) -> Any:
    return stmts[0] if len(stmts) == 1 else tirx.SeqStmt(stmts)
