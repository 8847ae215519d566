"""Elementary functions of float32 vectors: the same bits for every vector width and processor. Imports tvm.

Every step is one IEEE operation in a fixed order; fused multiply-adds are explicit, since all targets have them.
Polynomials: erf is Juffa's, the others are Moshier's (Cephes); all are within about two units in the last place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import tirx

from ...builder import Builder, Expr, intrin, reinterpret
from ...isa.vector import VectorOps
from . import inverse_math


class VectorMath:
    """Functions by the names of `chain.ARITY`, on native float32 vectors."""

    def __init__(self, b: Builder, ops: VectorOps) -> None:
        self.b, self.ops = b, ops

    def call(self, name: str, operands: Sequence[Expr]) -> Expr:
        """The function `name`; its result is bound to a variable."""
        functions: dict[str, Callable[..., Expr]] = {
            "add": tirx.Add,
            "sub": tirx.Sub,
            "mul": self.ops.mul,
            "div": tirx.Div,
            "min": lambda x, y: self._chosen(y < x, x, y),
            "max": lambda x, y: self._chosen(y > x, x, y),
            "less": lambda x, y: self._truth(x < y),
            "less_equal": lambda x, y: self._truth(x <= y),
            "equal": lambda x, y: self._truth(x.equal(y)),
            "where": lambda c, x, y: tirx.Select(c.equal(self.const(0.0)), y, x),
            "neg": lambda x: self._bits(x, lambda bits: tirx.bitwise_xor(bits, self._word(_SIGN))),
            "abs": self.abs,
            "sqrt": lambda x: self._llvm("sqrt", x),
            "floor": lambda x: self._llvm("floor", x),
            "ceil": lambda x: self._llvm("ceil", x),
            "rint": lambda x: self._llvm("roundeven", x),
            "exp": self.exp,
            "log": self.log,
            "tanh": self.tanh,
            "sigmoid": self.sigmoid,
            "erf": self.erf,
            "sin": lambda x: self._circular(x, 0),
            "cos": lambda x: self._circular(x, 1),
        }
        if name in inverse_math.FUNCTIONS:
            return self.stored(inverse_math.FUNCTIONS[name](self, *operands))
        value = self.b.let(functions[name](*operands))
        return self.stored(value) if name in _LONG else value

    def stored(self, value: Expr) -> Expr:
        """The value, through a register: TVM's analyzer expands what is made of lets alone, in exponential time."""
        register = self.b.registers(1, self.ops.f32)
        self.b.store(register, 0, value)
        return self.b.let(register[0])

    def fma(self, x: Expr, y: Expr, z: Expr) -> Expr:
        """The product plus z, rounded once."""
        return self.b.let(intrin(self.ops.f32, f"llvm.fma.v{self.ops.lanes}f32", x, y, z))

    def exp(self, x: Expr) -> Expr:
        """The exponential; overflows to infinity, underflows through denormal numbers to 0."""
        b, ops = self.b, self.ops
        bounded = b.let(tirx.Max(tirx.Min(x, self.const(89.0)), self.const(-104.0)))
        count = b.let(self._llvm("roundeven", ops.mul(bounded, self.const(1.44269504088896341))))
        rest = self.fma(count, self.const(-0.693359375), bounded)
        rest = self.fma(count, self.const(2.12194440e-4), rest)
        poly = self.poly(rest, _EXP)
        square = b.let(ops.mul(rest, rest))
        value = b.let(self.fma(poly, square, rest) + self.const(1.0))
        whole = b.let(ops.rint(count))
        half = b.let(tirx.shift_right(whole, ops.const_i32(1)))
        scaled = b.let(ops.mul(ops.mul(value, self._power(half)), self._power(whole - half)))
        return tirx.Select(x.equal(x), scaled, x)

    def log(self, x: Expr) -> Expr:
        """The natural logarithm; NaN below 0, minus infinity at 0."""
        b, ops = self.b, self.ops
        tiny = x < self.const(float(np.finfo("float32").tiny))
        normal = b.let(tirx.Select(tiny, ops.mul(x, self.const(2.0**23)), x))
        bits = b.let(reinterpret(ops.i32, normal))
        # Move the mantissa into [sqrt(1/2), sqrt(2)).
        shifted = b.let(bits - self._word(0x3F3504F3))
        exponent = b.let(tirx.shift_right(shifted, ops.const_i32(23)))
        mantissa = b.let(reinterpret(ops.f32, bits - tirx.shift_left(exponent, ops.const_i32(23))))
        power = b.let(ops.to_f32(exponent) - tirx.Select(tiny, self.const(23.0), self.const(0.0)))
        rest = b.let(mantissa - self.const(1.0))
        square = b.let(ops.mul(rest, rest))
        tail = b.let(ops.mul(ops.mul(self.poly(rest, _LOG), rest), square))
        tail = self.fma(power, self.const(-2.12194440e-4), tail)
        tail = self.fma(square, self.const(-0.5), tail)
        value = self.fma(power, self.const(0.693359375), b.let(rest + tail))
        infinite = self.const(float("inf"))
        value = b.let(tirx.Select(x.equal(infinite), infinite, value))
        value = b.let(tirx.Select(x.equal(self.const(0.0)), self.const(float("-inf")), value))
        return tirx.Select(x >= self.const(0.0), value, reinterpret(ops.f32, self._word(0x7FC00000)))

    def tanh(self, x: Expr) -> Expr:
        """The hyperbolic tangent."""
        b, ops = self.b, self.ops
        size, square = b.let(self.abs(x)), b.let(ops.mul(x, x))
        near = self.fma(b.let(ops.mul(self.poly(square, _TANH), square)), x, x)
        power = b.let(self.exp(b.let(size + size)))
        far = b.let(self.const(1.0) - self.const(2.0) / (power + self.const(1.0)))
        return tirx.Select(size < self.const(0.625), near, self.with_sign(far, x))

    def sigmoid(self, x: Expr) -> Expr:
        """1 / (1 + exp(-x)), from the exponential that cannot overflow."""
        b, one = self.b, self.const(1.0)
        power = b.let(self.exp(self.call("neg", [b.let(self.abs(x))])))
        return tirx.Select(x < self.const(0.0), power, one) / (one + power)

    def erf(self, x: Expr) -> Expr:
        """The Gauss error function."""
        b, ops = self.b, self.ops
        size, square = b.let(self.abs(x)), b.let(ops.mul(x, x))
        near = self.fma(self.poly(square, _ERF_NEAR), x, x)
        head = self.fma(self.const(_ERF_FAR[0]), size, self.const(_ERF_FAR[1]))
        middle = self.fma(self.const(_ERF_FAR[2]), size, self.const(_ERF_FAR[3]))
        far = self.fma(head, square, middle)
        for coefficient in _ERF_FAR[4:]:
            far = self.fma(far, size, self.const(coefficient))
        far = self.fma(far, size, self.call("neg", [size]))
        far = b.let(self.const(1.0) - self.b.let(self.exp(far)))
        return tirx.Select(size > self.const(0.927734375), self.with_sign(far, x), near)

    def _circular(self, x: Expr, shift: int) -> Expr:
        """The sine of x plus `shift` right angles; good to 1e5, and the same everywhere beyond."""
        b, ops, one = self.b, self.ops, self.const(1.0)
        turns = b.let(self._llvm("roundeven", ops.mul(x, self.const(2.0 / np.pi))))
        rest = x
        for part in _RIGHT_ANGLE:
            rest = self.fma(turns, self.const(-part), rest)
        square = b.let(ops.mul(rest, rest))
        odd = self.fma(b.let(ops.mul(self.poly(square, _SIN), square)), rest, rest)
        even = self.fma(square, self.const(-0.5), one)
        even = self.fma(b.let(ops.mul(square, square)), self.poly(square, _COS), even)
        # A remainder in float is exact and, unlike the conversion of large numbers, the same everywhere.
        quarter = ops.mul(turns, self.const(0.25))
        inside = ops.mul(b.let(quarter - self._llvm("floor", quarter)), self.const(4.0))
        quadrant = b.let(ops.rint(inside) + ops.const_i32(shift))
        straight = tirx.bitwise_and(quadrant, ops.const_i32(1)).equal(ops.const_i32(0))
        value = b.let(tirx.Select(straight, odd, even))
        sign = tirx.shift_left(tirx.bitwise_and(quadrant, ops.const_i32(2)), ops.const_i32(30))
        return self._bits(value, lambda bits: tirx.bitwise_xor(bits, sign))

    def poly(self, x: Expr, coefficients: Sequence[float]) -> Expr:
        """Horner's scheme, highest power first."""
        value = self.const(coefficients[0])
        for coefficient in coefficients[1:]:
            value = self.fma(value, x, self.const(coefficient))
        return value

    def const(self, value: float) -> Expr:
        return self.ops.const_f32(float(np.float32(value)))

    def _word(self, value: int) -> Expr:
        return self.ops.const_i32(value)

    def _llvm(self, name: str, x: Expr) -> Expr:
        return intrin(self.ops.f32, f"llvm.{name}.v{self.ops.lanes}f32", x)

    def _bits(self, x: Expr, change: Callable[[Expr], Expr]) -> Expr:
        return reinterpret(self.ops.f32, change(reinterpret(self.ops.i32, x)))

    def abs(self, x: Expr) -> Expr:
        return self._bits(x, lambda bits: tirx.bitwise_and(bits, self._word(0x7FFFFFFF)))

    def with_sign(self, size: Expr, x: Expr) -> Expr:
        sign = tirx.bitwise_and(reinterpret(self.ops.i32, x), self._word(_SIGN))
        return self._bits(size, lambda bits: tirx.bitwise_or(bits, sign))

    def _power(self, exponent: Expr) -> Expr:
        """2 to an int32 power inside the range of normal numbers."""
        return reinterpret(self.ops.f32, tirx.shift_left(exponent + self._word(127), self._word(23)))

    def _chosen(self, second: Expr, x: Expr, y: Expr) -> Expr:
        """Return y where `second` holds or y is NaN, else x: no minps or fmin, which treat NaN each in its own way."""
        return tirx.Select(y.equal(y), tirx.Select(second, y, x), y)

    def _truth(self, condition: Expr) -> Expr:
        return tirx.Select(condition, self.const(1.0), self.const(0.0))


_LONG = {"exp", "log", "tanh", "sigmoid", "erf", "sin", "cos"}
_SIGN = -(1 << 31)
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_LOG = (
    7.0376836292e-2,
    -1.1514610310e-1,
    1.1676998740e-1,
    -1.2420140846e-1,
    1.4249322787e-1,
    -1.6668057665e-1,
    2.0000714765e-1,
    -2.4999993993e-1,
    3.3333331174e-1,
)
_RIGHT_ANGLE = (float.fromhex("0x1.921fb0p+00"), float.fromhex("0x1.5110b4p-22"), float.fromhex("0x1.846988p-48"))
_SIN = (-1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1)
_COS = (2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2)
_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
_ERF_NEAR = (-5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
_ERF_FAR = (
    -1.72853470e-5,
    3.83197126e-4,
    -3.88396438e-3,
    2.42546219e-2,
    -1.06777877e-1,
    -6.34846687e-1,
    -1.28717512e-1,
)
