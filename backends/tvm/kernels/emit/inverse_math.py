"""Hyperbolic and inverse functions on float32 vectors, after Moshier (Cephes). Imports tvm.

As in `vector_math`, every step is one IEEE operation in a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from tvm import tirx

from ...builder import Expr

if TYPE_CHECKING:
    from .vector_math import VectorMath

_HALF_PI = float(np.pi / 2)
_LOG2 = float(np.log(2.0))


def tan(m: VectorMath, x: Expr) -> Expr:
    """The tangent."""
    return m.call("sin", [x]) / m.call("cos", [x])


def sinh(m: VectorMath, x: Expr) -> Expr:
    """The hyperbolic sine; two factors of half the exponent, so that it overflows no earlier than its value."""
    size, square = m.call("abs", [x]), m.call("mul", [x, x])
    half = _half_exponential(m, size)
    far = m.with_sign(m.b.let(half - m.const(0.25) / half), x)
    return tirx.Select(size > m.const(1.0), far, _odd(m, x, square, _SINH))


def cosh(m: VectorMath, x: Expr) -> Expr:
    """The hyperbolic cosine."""
    half = _half_exponential(m, m.call("abs", [x]))
    return half + m.const(0.25) / half


def asinh(m: VectorMath, x: Expr) -> Expr:
    """The inverse hyperbolic sine."""
    size, square = m.call("abs", [x]), m.call("mul", [x, x])
    middle = m.b.let(size + m.call("sqrt", [m.b.let(square + m.const(1.0))]))
    far = m.with_sign(_logarithm(m, size, middle), x)
    return tirx.Select(size < m.const(0.5), _odd(m, x, square, _ASINH), far)


def acosh(m: VectorMath, x: Expr) -> Expr:
    """The inverse hyperbolic cosine; NaN below 1."""
    above = m.b.let(x - m.const(1.0))
    near = m.call("mul", [m.poly(above, _ACOSH), m.call("sqrt", [above])])
    root = m.call("sqrt", [m.call("mul", [above, m.b.let(x + m.const(1.0))])])
    far = _logarithm(m, x, m.b.let(x + root))
    return tirx.Select(above < m.const(0.5), near, far)


def atanh(m: VectorMath, x: Expr) -> Expr:
    """The inverse hyperbolic tangent; infinite at 1, NaN beyond."""
    size, square = m.call("abs", [x]), m.call("mul", [x, x])
    ratio = m.b.let((m.const(1.0) + size) / (m.const(1.0) - size))
    far = m.with_sign(m.call("mul", [m.call("log", [ratio]), m.const(0.5)]), x)
    return tirx.Select(size < m.const(0.5), _odd(m, x, square, _ATANH), far)


def atan(m: VectorMath, x: Expr) -> Expr:
    """The inverse tangent."""
    size, one = m.call("abs", [x]), m.const(1.0)
    large, middle = size > m.const(2.414213562373095), size > m.const(0.4142135623730950)
    over = tirx.Select(middle, (size - one) / (size + one), size)
    reduced = m.b.let(tirx.Select(large, m.const(-1.0) / size, over))
    base = tirx.Select(large, m.const(_HALF_PI), tirx.Select(middle, m.const(_HALF_PI / 2), m.const(0.0)))
    rest = m.b.let(_odd(m, reduced, m.call("mul", [reduced, reduced]), _ATAN))
    return m.with_sign(m.b.let(base + rest), x)


def asin(m: VectorMath, x: Expr) -> Expr:
    """The inverse sine; NaN beyond 1."""
    size = m.call("abs", [x])
    far = size > m.const(0.5)
    value = m.b.let(_arc(m, size, far))
    folded = m.b.let(m.const(_HALF_PI) - (value + value))
    return m.with_sign(m.b.let(tirx.Select(far, folded, value)), x)


def acos(m: VectorMath, x: Expr) -> Expr:
    """The inverse cosine; NaN beyond 1."""
    size = m.call("abs", [x])
    far = size > m.const(0.5)
    value = m.b.let(_arc(m, size, far))
    near = m.b.let(m.const(_HALF_PI) - m.with_sign(value, x))
    double = m.b.let(value + value)
    outer = m.b.let(tirx.Select(x < m.const(0.0), m.const(2 * _HALF_PI) - double, double))
    return tirx.Select(far, outer, near)


def _arc(m: VectorMath, size: Expr, far: Expr) -> Expr:
    """The inverse sine of a number up to a half, or of the root of half its distance from 1."""
    distance = m.call("mul", [m.b.let(m.const(1.0) - size), m.const(0.5)])
    square = m.b.let(tirx.Select(far, distance, m.call("mul", [size, size])))
    start = m.b.let(tirx.Select(far, m.call("sqrt", [distance]), size))
    return _odd(m, start, square, _ASIN)


def _odd(m: VectorMath, x: Expr, square: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Return x plus x times the square times a polynomial of the square."""
    return m.fma(m.call("mul", [m.poly(square, coefficients), square]), x, x)


def _half_exponential(m: VectorMath, size: Expr) -> Expr:
    """Half of the exponential."""
    root = m.call("exp", [m.call("mul", [size, m.const(0.5)])])
    return m.call("mul", [m.call("mul", [root, m.const(0.5)]), root])


def _logarithm(m: VectorMath, x: Expr, middle: Expr) -> Expr:
    """The logarithm of `middle`, or of twice x where x is so large that its square means nothing, or overflows."""
    large = x > m.const(1500.0)
    value = m.call("log", [m.b.let(tirx.Select(large, x, middle))])
    return m.b.let(tirx.Select(large, value + m.const(_LOG2), value))


FUNCTIONS: dict[str, Callable[[VectorMath, Expr], Expr]] = {
    "tan": tan,
    "sinh": sinh,
    "cosh": cosh,
    "asinh": asinh,
    "acosh": acosh,
    "atanh": atanh,
    "atan": atan,
    "asin": asin,
    "acos": acos,
}
_SINH = (2.03721912945e-4, 8.33028376239e-3, 1.66667160211e-1)
_ASINH = (2.0122003309e-2, -4.2699340972e-2, 7.4847586088e-2, -1.6666288134e-1)
_ACOSH = (1.7596881071e-3, -7.5272886713e-3, 2.6454905019e-2, -1.1784741703e-1, 1.4142135263)
_ATANH = (1.81740078349e-1, 8.24370301058e-2, 1.46691431730e-1, 1.99782164500e-1, 3.33337300303e-1)
_ATAN = (8.05374449538e-2, -1.38776856032e-1, 1.99777106478e-1, -3.33329491539e-1)
_ASIN = (4.2163199048e-2, 2.4181311049e-2, 4.5470025998e-2, 7.4953002686e-2, 1.6666752422e-1)
