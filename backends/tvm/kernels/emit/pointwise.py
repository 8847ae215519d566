"""Emitter of `PointwiseSpec`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...builder import Builder, Expr, cast, i64, reinterpret
from ...isa import Isa
from ..base import emitter
from ..pointwise import COMPARISONS, PREDICATES, PointwiseSpec
from .strided import emit_loops


@emitter(PointwiseSpec)
def emit(spec: PointwiseSpec, isa: Isa, symbol: str) -> Any:
    """One element at a time; LLVM forms vectors where it can."""
    b = Builder(symbol)
    *inputs, out = (b.arg(arg.name, arg.dtype_on(isa)) for arg in spec.args)
    scalars = Scalars(b, spec.dtype)

    def one(at: list[Expr], _: int) -> None:
        operands = [b.let(x[index]) for x, index in zip(inputs, at, strict=False)]
        b.store(out, at[-1], scalars.call(spec.op, operands))

    emit_loops(b, spec.loops, 1, one)
    return b.finish(spec.noalias)


class Scalars:
    """The functions of `pointwise.OPERANDS` on scalars of one type."""

    def __init__(self, b: Builder, dtype: str) -> None:
        self.b, self.dtype = b, dtype
        self.is_float = dtype.startswith("float")
        self.bits = {"int64": 64, "uint8": 8, "int8": 8, "bool": 8}.get(dtype, 32)

    def call(self, name: str, operands: list[Expr]) -> Expr:
        functions: dict[str, Callable[..., Expr]] = {
            # TIR's != is false where an operand is NaN.
            "isnan": lambda x: tirx.Not(x.equal(x)),
            "isinf": lambda x: tirx.Or(_infinite(x, 1), _infinite(x, -1)),
            "positive_inf": lambda x: _infinite(x, 1),
            "negative_inf": lambda x: _infinite(x, -1),
            "equal": tirx.EQ,
            "greater": tirx.GT,
            "greater_equal": tirx.GE,
            "less": tirx.LT,
            "less_equal": tirx.LE,
            "where": lambda c, x, y: tirx.Select(tirx.NE(c, tirx.const(0, "uint8")), x, y),
            "not": lambda x: tirx.bitwise_xor(x, self.const(1)) if self.dtype == "bool" else tirx.bitwise_not(x),
            "and": tirx.bitwise_and,
            "or": tirx.bitwise_or,
            "xor": tirx.bitwise_xor,
            "shift_left": lambda x, y: tirx.Select(self.shifts(y), x << self.amount(y), self.const(0)),
            "shift_right": lambda x, y: x >> tirx.Select(self.shifts(y), self.amount(y), self.const(self.bits - 1)),
            "add": tirx.Add,
            "sub": tirx.Sub,
            "mul": tirx.Mul,
            "div": self.div,
            "mod": self.mod,
            "fmod": self.fmod,
            "min": tirx.Min,
            "max": tirx.Max,
            "neg": lambda x: self.const(0) - x,
            "abs": lambda x: tirx.Select(x < self.const(0), self.const(0) - x, x),
            "sign": lambda x: cast(self.dtype, x > self.const(0)) - cast(self.dtype, x < self.const(0)),
        }
        result = functions[name](*operands)
        return cast("uint8", result) if name in PREDICATES or name in COMPARISONS else result

    def const(self, value: int) -> Expr:
        return tirx.const(value, "uint8" if self.dtype == "bool" else self.dtype)

    def shifts(self, amount: Expr) -> Expr:
        """Whether an amount leaves some bit of a number in place."""
        return tirx.And(amount >= self.const(0), amount < self.const(self.bits))

    def amount(self, amount: Expr) -> Expr:
        return tirx.bitwise_and(amount, self.const(self.bits - 1))

    def div(self, x: Expr, y: Expr) -> Expr:
        """The quotient toward zero: instructions trap at 0 and where it leaves the type, at the least number by -1."""
        zero = y.equal(self.const(0))
        if self.dtype.startswith("u"):
            return tirx.Select(zero, self.const(0), tirx.truncdiv(x, tirx.Select(zero, self.const(1), y)))
        negative = y.equal(self.const(-1))
        plain = tirx.truncdiv(x, tirx.Select(tirx.Or(zero, negative), self.const(1), y))
        return tirx.Select(zero, self.const(0), tirx.Select(negative, self.const(0) - x, plain))

    def fmod(self, x: Expr, y: Expr) -> Expr:
        """The remainder with the sign of x."""
        if self.is_float:
            return float_remainder(self.b, x, y)
        trivial = y.equal(self.const(0))
        if not self.dtype.startswith("u"):
            trivial = tirx.Or(trivial, y.equal(self.const(-1)))
        rest = tirx.truncmod(x, tirx.Select(trivial, self.const(1), y))
        return tirx.Select(trivial, self.const(0), rest)

    def mod(self, x: Expr, y: Expr) -> Expr:
        """The remainder with the sign of y."""
        rest = self.b.let(self.fmod(x, y))
        if self.dtype.startswith("u"):
            return rest
        signs = (reinterpret("int32", value) if self.is_float else value for value in (rest, y))
        differ = tirx.bitwise_xor(*signs)
        wrong = tirx.And(tirx.NE(rest, self.const(0)), differ < tirx.const(0, differ.ty.dtype))
        return tirx.Select(wrong, rest + y, rest)


def _infinite(x: Expr, sign: int) -> Expr:
    return x.equal(tirx.const(sign * float("inf"), "float32"))


def float_remainder(b: Builder, x: Expr, y: Expr) -> Expr:
    """C's fmodf, exactly: the long division of the mantissas, up to 32 bits of quotient at a time."""

    def parts(value: Expr) -> tuple[Expr, Expr, Expr]:
        bits = b.let(tirx.bitwise_and(reinterpret("int32", value), tirx.const(0x7FFFFFFF, "int32")))
        exponent = b.let(bits >> 23)
        fraction = tirx.bitwise_and(bits, tirx.const(0x7FFFFF, "int32"))
        leading = tirx.Select(exponent > 0, tirx.const(1 << 23, "int32"), tirx.const(0, "int32"))
        return bits, tirx.Max(exponent, tirx.const(1, "int32")), cast("uint64", fraction + leading)

    x_bits, x_exponent, x_mantissa = parts(x)
    y_bits, y_exponent, y_mantissa = parts(y)
    divisor = b.let(tirx.Max(y_mantissa, tirx.const(1, "uint64")))
    distance = b.let(tirx.Max(x_exponent - y_exponent, tirx.const(0, "int32")))
    rest = b.registers(1, "uint64", "rest")
    b.store(rest, 0, tirx.truncmod(x_mantissa, divisor))
    with b.loop(i64(0), b.let(cast("int64", distance >> 5))):
        b.store(rest, 0, tirx.truncmod(rest[0] << tirx.const(32, "uint64"), divisor))
    final = cast("uint64", tirx.bitwise_and(distance, tirx.const(31, "int32")))
    b.store(rest, 0, tirx.truncmod(rest[0] << final, divisor))
    # Exact: the rest has at most 24 bits, and is a multiple of the last place of y.
    power = reinterpret("float64", cast("int64", y_exponent + tirx.const(1023 - 150, "int32")) << i64(52))
    size = reinterpret("int32", cast("float32", cast("float64", rest[0]) * power))
    sign = tirx.bitwise_and(reinterpret("int32", x), tirx.const(-(1 << 31), "int32"))
    value = reinterpret("float32", tirx.bitwise_or(size, sign))
    infinity = tirx.const(0x7F800000, "int32")
    none = tirx.Or(x_bits >= infinity, tirx.Or(y_bits > infinity, y_bits.equal(tirx.const(0, "int32"))))
    value = tirx.Select(x_bits < y_bits, x, value)
    return tirx.Select(none, reinterpret("float32", tirx.const(0x7FC00000, "int32")), value)
