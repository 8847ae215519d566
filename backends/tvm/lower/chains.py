"""Elementwise float ops: each is a short chain of float32 functions with the same bits on every target."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....ir.graph import Node, Value
from ....ir.op import Op
from ....ir.ops import elementwise as ew
from ....ir.ops import logic
from ....ir.ops import math as functions
from ....ir.ops.cast import Cast
from ....ir.ops.constant import Constant
from ....ir.types import DType
from ...plan.builder import PlanBuilder, dtype_of
from ...plan.views import View
from ..kernels.cast import CastSpec
from ..kernels.chain import ChainSpec, Step
from .logic import NUMBERS, computed, leading_order, lower_integers, pointwise
from .registry import lowers

Term = tuple[str, int]
"""A value of a chain: an input, a parameter or the result of a step, by its number among its kind."""


@dataclass
class Chain:
    """Collects the steps of one kernel; equal parameters are one."""

    inputs: int
    parameters: list[float] = field(default_factory=list)
    steps: list[tuple[str, tuple[Term, ...]]] = field(default_factory=list)

    def __call__(self, name: str, *operands: Term | float) -> Term:
        """The result of a function of :data:`~..kernels.chain.ARITY`; numbers become parameters."""
        terms = tuple(o if isinstance(o, tuple) else self._parameter(float(o)) for o in operands)
        self.steps.append((name, terms))
        return ("step", len(self.steps) - 1)

    def clamp(self, x: Term, bounds: tuple[float, float] | None) -> Term:
        """``x`` within bounds; infinite ones cost nothing."""
        if bounds is not None and bounds[0] != -math.inf:
            x = self("max", x, bounds[0])
        if bounds is not None and bounds[1] != math.inf:
            x = self("min", x, bounds[1])
        return x

    def _parameter(self, value: float) -> Term:
        if value not in self.parameters:
            self.parameters.append(value)
        return ("parameter", self.parameters.index(value))

    def number(self, value: float) -> Term:
        """A number as a value."""
        return self._parameter(float(value))

    def numbered(self) -> tuple[Step, ...]:
        """The steps with values numbered as the kernel wants them."""
        base = {"input": 0, "parameter": self.inputs, "step": self.inputs + len(self.parameters)}
        return tuple((name, *(base[kind] + number for kind, number in terms)) for name, terms in self.steps)


def run_chain(site: PlanBuilder, label: str, views: Sequence[View], out: View, build: Callable[..., Term]) -> None:
    """Call ``build(chain, *inputs)`` and run the chain over views broadcast to ``out``."""
    chain = Chain(len(views))
    result = build(chain, *(("input", number) for number in range(len(views))))
    if not chain.steps or result != ("step", len(chain.steps) - 1):
        chain("add", result, 0.0)
    expanded = [site.beside(view, out).expanded(out.shape) for view in views]
    strides = tuple(view.strides for view in expanded)
    spec = ChainSpec(out.shape, strides, chain.numbered(), len(chain.parameters), out.strides)
    inputs = {f"x{number}": view for number, view in enumerate(expanded)}
    site.call(spec, label, {**inputs, "out": out}, {"parameters": np.array(chain.parameters, np.float32)})


def _gelu(c: Chain, op: Any, x: Term) -> Term:
    if op.tanh:
        cube = c("mul", c("mul", c("mul", x, x), x), 0.044715)
        inner = c("tanh", c("mul", c("add", x, cube), math.sqrt(2.0 / math.pi)))
    else:
        inner = c("erf", c("mul", x, math.sqrt(0.5)))
    return c("mul", c("mul", x, 0.5), c("add", inner, 1.0))


def _softplus(c: Chain, x: Term) -> Term:
    """max(x, 0) + log(1 + exp(-|x|)), which cannot overflow."""
    tail = c("log", c("add", c("exp", c("neg", c("abs", x))), 1.0))
    return c("add", c("max", x, 0.0), tail)


def _exponential_unit(c: Chain, x: Term, alpha: float, scale: float = 1.0, divisor: float = 1.0) -> Term:
    inner = c("exp", c("div", x, divisor)) if divisor != 1.0 else c("exp", x)
    low = c("mul", c("sub", inner, 1.0), alpha)
    unit = c("where", c("less", x, 0.0), low, x)
    return unit if scale == 1.0 else c("mul", unit, scale)


def _shrink(c: Chain, op: Any, x: Term) -> Term:
    outside = c("where", c("less", op.threshold, x), c("sub", x, op.bias), 0.0)
    return c("where", c("less", x, -op.threshold), c("add", x, op.bias), outside)


def _gate(c: Chain, x: Term, alpha: float, beta: float) -> Term:
    return c("min", c("max", c("add", c("mul", x, alpha), beta), 0.0), 1.0)


POWERS: dict[float, Callable[[Chain, Term], Term]] = {
    -1.0: lambda c, x: c("div", 1.0, x),
    -0.5: lambda c, x: c("div", 1.0, c("sqrt", x)),
    0.5: lambda c, x: c("sqrt", x),
    1.0: lambda c, x: x,
    2.0: lambda c, x: c("mul", x, x),
    3.0: lambda c, x: c("mul", c("mul", x, x), x),
}
"""Constant exponents of one or two functions."""
LARGEST_PRODUCT = 32
"""Whole exponents up to here are products."""

FUNCTIONS: dict[type[Op], Callable[..., Term]] = {
    ew.Relu: lambda c, op, x: c("max", x, 0.0),
    ew.Clamp: lambda c, op, x: c.clamp(x, (op.low, op.high)),
    ew.LeakyRelu: lambda c, op, x: c("where", c("less", x, 0.0), c("mul", x, op.slope), x),
    ew.Elu: lambda c, op, x: _exponential_unit(c, x, op.alpha),
    ew.Sigmoid: lambda c, op, x: c("sigmoid", x),
    ew.HardSigmoid: lambda c, op, x: _gate(c, x, op.alpha, op.beta),
    ew.HardSwish: lambda c, op, x: c("mul", x, c("min", c("max", c("add", c("div", x, 6.0), 0.5), 0.0), 1.0)),
    ew.Silu: lambda c, op, x: c("mul", x, c("sigmoid", x)),
    ew.Gelu: _gelu,
    ew.Neg: lambda c, op, x: c("neg", x),
    ew.Abs: lambda c, op, x: c("abs", x),
    ew.Exp: lambda c, op, x: c("exp", x),
    ew.Log: lambda c, op, x: c("log", x),
    ew.Sqrt: lambda c, op, x: c("sqrt", x),
    functions.Sin: lambda c, op, x: c("sin", x),
    functions.Cos: lambda c, op, x: c("cos", x),
    ew.Tanh: lambda c, op, x: c("tanh", x),
    ew.Erf: lambda c, op, x: c("erf", x),
    ew.Add: lambda c, op, a, b: c.clamp(c("add", a, b), op.clamp),
    ew.Sub: lambda c, op, a, b: c("sub", a, b),
    ew.Mul: lambda c, op, a, b: c.clamp(c("mul", a, b), op.clamp),
    ew.Div: lambda c, op, a, b: c("div", a, b),
    logic.Minimum: lambda c, op, a, b: c("min", a, b),
    logic.Maximum: lambda c, op, a, b: c("max", a, b),
    logic.PRelu: lambda c, op, x, slope: c("where", c("less", x, 0.0), c("mul", x, slope), x),
    functions.Reciprocal: lambda c, op, x: c("div", 1.0, x),
    functions.Floor: lambda c, op, x: c("floor", x),
    functions.Ceil: lambda c, op, x: c("ceil", x),
    functions.Round: lambda c, op, x: c("rint", x),
    functions.Sign: lambda c, op, x: c("sub", c("less", 0.0, x), c("less", x, 0.0)),
    functions.Softplus: lambda c, op, x: _softplus(c, x),
    functions.Softsign: lambda c, op, x: c("div", x, c("add", c("abs", x), 1.0)),
    functions.Mish: lambda c, op, x: c("mul", x, c("tanh", _softplus(c, x))),
    functions.Selu: lambda c, op, x: _exponential_unit(c, x, op.alpha, op.gamma),
    functions.Tan: lambda c, op, x: c("tan", x),
    functions.Asin: lambda c, op, x: c("asin", x),
    functions.Acos: lambda c, op, x: c("acos", x),
    functions.Atan: lambda c, op, x: c("atan", x),
    functions.Sinh: lambda c, op, x: c("sinh", x),
    functions.Cosh: lambda c, op, x: c("cosh", x),
    functions.Asinh: lambda c, op, x: c("asinh", x),
    functions.Acosh: lambda c, op, x: c("acosh", x),
    functions.Atanh: lambda c, op, x: c("atanh", x),
    functions.ThresholdedRelu: lambda c, op, x: c("where", c("less", op.alpha, x), x, 0.0),
    functions.Shrink: _shrink,
    functions.Celu: lambda c, op, x: _exponential_unit(c, x, op.alpha, divisor=op.alpha),
}


@lowers(*FUNCTIONS)
def lower_chain(site: PlanBuilder, node: Node) -> None:
    """One kernel for the whole function of floats; integers have kernels of their own."""
    if any(v.type.dtype is not DType.F32 for v in (*node.inputs, *node.outputs)):
        if not lower_integers(site, node):
            site.refuse(node, f"no kernel for elements of {node.output.type.dtype.value}")
        return
    views = [site.view(value) for value in node.inputs]
    out = site.allocate(node.output, leading_order(views, node.output.type.rank))
    function = FUNCTIONS[type(node.op)]
    run_chain(site, node.where, views, out, lambda chain, *terms: function(chain, node.op, *terms))


@lowers(logic.Pow)
def lower_power(site: PlanBuilder, node: Node) -> None:
    """Products and roots for the constant exponents that they suffice for, else the exponential of a logarithm."""
    if any(value.type.dtype is not DType.F32 for value in node.inputs):
        if not _integer_power(site, node):
            site.refuse(node, "powers of integers have kernels for the constant exponents 1, 2 and 3 only")
        return
    exponent = _constant_number(node.inputs[1])
    base = site.view(node.inputs[0])
    views = [base] if exponent is not None else [base, site.view(node.inputs[1])]
    out = site.allocate(node.output, leading_order(views, node.output.type.rank))
    if exponent in POWERS:
        run_chain(site, node.where, views, out, POWERS[exponent])
    elif exponent is not None and exponent.is_integer() and 0 < abs(exponent) <= LARGEST_PRODUCT:
        run_chain(site, node.where, views, out, lambda c, x: _product_power(c, x, int(exponent)))
    elif exponent is not None:
        run_chain(site, node.where, views, out, lambda c, x: _power(c, x, c.number(exponent)))
    else:
        run_chain(site, node.where, views, out, _power)


def _constant_number(value: Value) -> float | None:
    """The number of a constant of one element."""
    if not isinstance(value.op, Constant) or value.type.size != 1:
        return None
    return float(value.op.data.numpy().reshape(-1)[0])


def _integer_power(site: PlanBuilder, node: Node) -> bool:
    exponent, base = _constant_number(node.inputs[1]), site.view(node.inputs[0])
    if exponent not in (1.0, 2.0, 3.0) or base.dtype not in ("int32", "int64"):
        return False
    out = site.allocate(node.output, leading_order([base], node.output.type.rank))
    if exponent == 1.0:
        site.copy(base.expanded(out.shape), out, node.where)
        return True
    factors = [base, computed(site, node.where, "mul", base, base) if exponent == 3.0 else base]
    pointwise(site, node.where, "mul", factors, out)
    return True


def _product_power(c: Chain, x: Term, exponent: int) -> Term:
    """A whole power by squares; of a negative one, the reciprocal."""
    bits = f"{abs(exponent):b}"
    result = x
    for bit in bits[1:]:
        result = c("mul", result, result)
        result = c("mul", result, x) if bit == "1" else result
    return c("div", 1.0, result) if exponent < 0 else result


def _power(c: Chain, x: Term, y: Term) -> Term:
    """The exponential of y log |x|, negative for odd powers of negative numbers; NaN for their broken powers."""
    size = c("abs", x)
    power = c("exp", c("mul", y, c("log", size)))
    half = c("mul", y, 0.5)
    odd = c("where", c("equal", c("floor", half), half), 0.0, 1.0)
    signed = c("where", odd, c("neg", power), power)
    broken = c("where", c("equal", c("floor", y), y), signed, math.nan)
    value = c("where", c("less", x, 0.0), broken, power)
    # Where one factor of the exponent is 0 and the other infinite.
    value = c("where", c("equal", size, 1.0), c("where", c("less", x, 0.0), broken, 1.0), value)
    return c("where", c("equal", y, 0.0), 1.0, value)


@lowers(Cast)
def lower_cast(site: PlanBuilder, node: Node) -> None:
    """Between the number types that views hold."""
    x, target = site.view(node.inputs[0]), dtype_of(node.output.type)
    unknown = [dtype for dtype in (x.dtype, target) if dtype not in NUMBERS]
    if unknown:
        kind = "quantized values" if unknown == ["act"] else f"elements of {unknown[0]}"
        site.refuse(node, f"a cast of {kind} has no kernel")
        return
    out = site.allocate(node.output, x.order())
    spec = CastSpec(x.dtype, out.dtype, out.shape, x.strides, out.strides)
    site.call(spec, node.where, {"x": x, "out": out})
