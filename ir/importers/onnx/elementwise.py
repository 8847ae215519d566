"""Functions of one element, and of several broadcast operands."""

from __future__ import annotations

import functools

import numpy as np

from ...errors import ModelError
from ...op import Op
from ...ops import elementwise as ew
from ...ops import logic, math
from ...ops.cast import BitCast, Cast, Where
from ...types import DType, normalize_axis
from .attributes import element_type
from .context import Context
from .errors import Refusal
from .moves import expand, reshape
from .operand import Operand, ShapeConstant
from .registry import translate

_UNARY: dict[str, type[Op]] = {
    "Abs": ew.Abs, "Acos": math.Acos, "Acosh": math.Acosh, "Asin": math.Asin, "Asinh": math.Asinh, "Atan": math.Atan,
    "Atanh": math.Atanh, "BitwiseNot": logic.Not, "Ceil": math.Ceil, "Cos": math.Cos, "Cosh": math.Cosh, "Erf": ew.Erf,
    "Exp": ew.Exp, "Floor": math.Floor, "HardSwish": ew.HardSwish, "IsNaN": math.IsNan, "Log": ew.Log,
    "Mish": math.Mish, "Neg": ew.Neg, "Not": logic.Not, "Reciprocal": math.Reciprocal, "Relu": ew.Relu,
    "Round": math.Round, "Sigmoid": ew.Sigmoid, "Sign": math.Sign, "Sin": math.Sin, "Sinh": math.Sinh,
    "Softplus": math.Softplus, "Softsign": math.Softsign, "Sqrt": ew.Sqrt, "Tan": math.Tan, "Tanh": ew.Tanh,
}  # fmt: skip
_BINARY: dict[str, type[Op]] = {
    "Add": ew.Add, "And": logic.And, "BitwiseAnd": logic.And, "BitwiseOr": logic.Or, "BitwiseXor": logic.Xor,
    "Div": ew.Div, "Equal": logic.Equal, "Greater": logic.Greater, "GreaterOrEqual": logic.GreaterEqual,
    "Less": logic.Less, "LessOrEqual": logic.LessEqual, "Mul": ew.Mul, "Or": logic.Or, "PRelu": logic.PRelu,
    "Pow": logic.Pow, "Sub": ew.Sub, "Xor": logic.Xor,
}  # fmt: skip


@translate(*_UNARY)
def unary(c: Context) -> Operand:
    """The op of the same meaning, without attributes."""
    return c.emit(_UNARY[c.op_type](), c.value(0))


@translate(*_BINARY)
def binary(c: Context) -> Operand:
    """The op of the same meaning, without attributes."""
    a, b = c.value(0), c.value(1)
    if c.version < 7 and c.integer("broadcast", 0) and c.attr("axis") is not None:
        # Before opset 7 the axis of a where b begins was said explicitly.
        behind = a.type.rank - normalize_axis(c.integer("axis"), a.type.rank) - b.type.rank
        b = reshape(c, b, (*b.type.shape, *[1] * behind))
    if c.op_type == "PRelu" and b.type.rank == 1 and a.type.rank > 2 and c.version < 7:
        b = reshape(c, b, (*b.type.shape, *[1] * (a.type.rank - 2)))
    return c.emit(_BINARY[c.op_type](), a, b)


@translate("Max", "Min", "Sum", "Mean")
def variadic(c: Context) -> Operand:
    """From left to right, two operands at a time."""
    ops: dict[str, Op] = {"Max": logic.Maximum(), "Min": logic.Minimum(), "Sum": ew.Add(), "Mean": ew.Add()}
    total = functools.reduce(lambda a, b: c.emit(ops[c.op_type], a, b), c.values())
    if c.op_type != "Mean" or len(c.operands) == 1:
        return total
    return c.emit(ew.Mul(), total, c.const(1.0 / len(c.operands), total.type.dtype))


@translate("Identity", "Dropout")
def identity(c: Context) -> tuple[Operand, ...]:
    """The operand itself. A dropout is one at inference; its mask is all true."""
    if c.op_type == "Dropout" and c.has(2) and bool(c.constant(2).item()) and _ratio(c) != 0.0:
        raise Refusal("dropout in training mode is random")
    if not c.wants(1):
        return (c.value(0),)
    dtype = DType.BOOL if c.version >= 10 else c.type(0).dtype
    return c.value(0), expand(c, c.const(np.ones((), dtype.numpy)), c.type(0).shape)


def _ratio(c: Context) -> float:
    return float(c.constant(1).item()) if c.has(1) else 0.5


@translate("Cast", "CastLike")
def cast(c: Context) -> Operand:
    """Another element type."""
    dtype = c.type(1).dtype if c.op_type == "CastLike" else element_type(c.integer("to"), c.origin)
    x = c.value(0)
    if isinstance(x, ShapeConstant) and dtype is DType.I64:
        return x
    return x if x.type.dtype is dtype and x.type.quant is None else c.emit(Cast(dtype), x)


@translate("BitCast")
def bit_cast(c: Context) -> Operand:
    """The same bits as another element type."""
    return c.emit(BitCast(element_type(c.integer("to"), c.origin)), c.value(0))


@translate("Where")
def where(c: Context) -> Operand:
    """One of two by a condition."""
    return c.emit(Where(), *c.values())


@translate("Clip", since=11)
def clip_operands(c: Context) -> Operand:
    """Bounds are operands; constant scalars become attributes."""
    x = c.value(0)
    bounds = [c.optional(1), c.optional(2)]
    if all(b is None or not c.is_graph_value(b) for b in bounds):
        low, high = (None if b is None else c.number(b) for b in bounds)
        return clamp(c, x, low, high)
    for bound, op in zip(bounds, (logic.Maximum(), logic.Minimum()), strict=True):
        x = x if bound is None else c.emit(op, x, bound)
    return x


@translate("Clip")
def clip_attributes(c: Context) -> Operand:
    """Bounds are attributes; left out they are the ends of float32."""
    low, high = (None if c.attr(name) is None else c.real(name) for name in ("min", "max"))
    return clamp(c, c.value(0), low, high)


def clamp(c: Context, x: Operand, low: float | None, high: float | None) -> Operand:
    """``x`` between bounds; an absent one is infinite, and bounds that the element type cannot exceed are."""
    dtype = x.type.dtype
    if dtype.is_integer:
        info = np.iinfo(dtype.numpy)  # type: ignore[type-var]
        low = int(info.min) if low is None else low
        high = int(info.max) if high is None else high
        bounds = (c.const(np.asarray(low, dtype.numpy)), c.const(np.asarray(high, dtype.numpy)))
        return c.emit(logic.Minimum(), c.emit(logic.Maximum(), x, bounds[0]), bounds[1])
    low = float("-inf") if low is None or low <= np.finfo(np.float32).min else low
    high = float("inf") if high is None or high >= np.finfo(np.float32).max else high
    if low == 0.0 and high == float("inf"):
        return c.emit(ew.Relu(), x)
    return c.emit(ew.Clamp(low, high), x)


@translate("LeakyRelu")
def leaky_relu(c: Context) -> Operand:
    """Slope for negative elements."""
    return c.emit(ew.LeakyRelu(c.real("alpha", 0.01)), c.value(0))


@translate("Elu", "Celu", "ThresholdedRelu")
def exponential_unit(c: Context) -> Operand:
    """Activations with one parameter alpha."""
    ops: dict[str, type[ew.Elu | math.Celu | math.ThresholdedRelu]] = {
        "Elu": ew.Elu, "Celu": math.Celu, "ThresholdedRelu": math.ThresholdedRelu
    }  # fmt: skip
    return c.emit(ops[c.op_type](alpha=c.real("alpha", 1.0)), c.value(0))


@translate("Selu")
def selu(c: Context) -> Operand:
    """Scaled exponential unit."""
    defaults = math.Selu()
    return c.emit(math.Selu(c.real("alpha", defaults.alpha), c.real("gamma", defaults.gamma)), c.value(0))


@translate("HardSigmoid")
def hard_sigmoid(c: Context) -> Operand:
    """ONNX's default slope is 0.2."""
    return c.emit(ew.HardSigmoid(c.real("alpha", 0.2), c.real("beta", 0.5)), c.value(0))


@translate("Gelu")
@translate("Gelu", domain="com.microsoft")
def gelu(c: Context) -> Operand:
    """Exact, or by tanh."""
    return c.emit(ew.Gelu(c.text("approximate", "none") == "tanh"), c.value(0))


@translate("Swish")
def swish(c: Context) -> Operand:
    """X * sigmoid(alpha * x)."""
    x, alpha = c.value(0), c.real("alpha", 1.0)
    if alpha == 1.0:
        return c.emit(ew.Silu(), x)
    return c.emit(ew.Mul(), x, c.emit(ew.Sigmoid(), c.emit(ew.Mul(), x, c.const(alpha, x.type.dtype))))


@translate("Shrink")
def shrink(c: Context) -> Operand:
    """Toward zero."""
    return c.emit(math.Shrink(c.real("lambd", 0.5), c.real("bias", 0.0)), c.value(0))


@translate("IsInf")
def is_inf(c: Context) -> Operand:
    """Either sign, or one."""
    return c.emit(math.IsInf(bool(c.integer("detect_positive", 1)), bool(c.integer("detect_negative", 1))), c.value(0))


@translate("Mod")
def mod(c: Context) -> Operand:
    """Remainder with the sign of the divisor, or of the dividend."""
    return c.emit(logic.Mod(bool(c.integer("fmod", 0))), c.value(0), c.value(1))


@translate("BitShift")
def bit_shift(c: Context) -> Operand:
    """Left or right."""
    directions: dict[str, Op] = {"LEFT": logic.ShiftLeft(), "RIGHT": logic.ShiftRight()}
    direction = c.text("direction")
    if direction not in directions:
        raise ModelError(f"direction {direction!r}", where=c.origin, expected="LEFT or RIGHT")
    return c.emit(directions[direction], c.value(0), c.value(1))
