"""Elementwise ops: functions of one element, and of several broadcast operands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..channels import Flow, broadcast
from ..errors import ModelError
from ..op import Op, Quantization, register_op
from ..types import DType, TensorType, broadcast_shapes


@dataclass(frozen=True)
class Unary(Op):
    """A function of one element; same shape and dtype out."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.TABLE

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (x.with_quant(None),)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])


@dataclass(frozen=True)
class Predicate(Op):
    """A test of one element; bool out."""

    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (x.with_dtype(DType.BOOL),)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])


@dataclass(frozen=True)
class Binary(Op):
    """Two operands of one dtype, broadcast as numpy does."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType, ...]:
        _require_same_dtype(self.name, a, b)
        return (TensorType(a.dtype, broadcast_shapes(a.shape, b.shape)),)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])


@dataclass(frozen=True)
class Comparison(Op):
    """A test of two operands of one dtype, broadcast; bool out."""

    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType, ...]:
        _require_same_dtype(self.name, a, b)
        return (TensorType(DType.BOOL, broadcast_shapes(a.shape, b.shape)),)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])


def _require_same_dtype(name: str, a: TensorType, b: TensorType) -> None:
    if a.dtype is not b.dtype:
        raise ModelError(f"{name} of {a.dtype.value} and {b.dtype.value}", expected="one element type")


# Piecewise linear: these commute with quantization on one grid, so a kernel clamps instead of looking up ------------


@register_op
@dataclass(frozen=True)
class Relu(Unary):
    """max(x, 0)."""

    name: ClassVar[str] = "relu"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x)


@register_op
@dataclass(frozen=True)
class Clamp(Unary):
    """min(max(x, low), high); a bound may be infinite."""

    low: float
    high: float

    name: ClassVar[str] = "clamp"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_floating_point():
            return apply_clamp(x, (self.low, self.high))
        low, high = (None if math.isinf(bound) else int(bound) for bound in (self.low, self.high))
        return x if low is None and high is None else torch.clamp(x, low, high)


# Activations -------------------------------------------------------------------------------------------------------


@register_op
@dataclass(frozen=True)
class LeakyRelu(Unary):
    """x if x >= 0 else slope * x."""

    slope: float = 0.01

    name: ClassVar[str] = "leaky_relu"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(x, self.slope)


@register_op
@dataclass(frozen=True)
class Elu(Unary):
    """x if x > 0 else alpha * (exp(x) - 1)."""

    alpha: float = 1.0

    name: ClassVar[str] = "elu"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return F.elu(x, self.alpha)


@register_op
@dataclass(frozen=True)
class Sigmoid(Unary):
    """1 / (1 + exp(-x))."""

    name: ClassVar[str] = "sigmoid"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x)


@register_op
@dataclass(frozen=True)
class HardSigmoid(Unary):
    """clamp(alpha * x + beta, 0, 1)."""

    alpha: float = 1.0 / 6.0
    beta: float = 0.5

    name: ClassVar[str] = "hard_sigmoid"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.clamp(self.alpha * x + self.beta, 0.0, 1.0)


@register_op
@dataclass(frozen=True)
class HardSwish(Unary):
    """x * clamp(x / 6 + 1/2, 0, 1) (Howard et al., MobileNetV3, 2019)."""

    name: ClassVar[str] = "hard_swish"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.clamp(x / 6.0 + 0.5, 0.0, 1.0)


@register_op
@dataclass(frozen=True)
class Silu(Unary):
    """x * sigmoid(x)."""

    name: ClassVar[str] = "silu"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return F.silu(x)


@register_op
@dataclass(frozen=True)
class Gelu(Unary):
    """x * Phi(x); ``tanh`` selects the approximation of Hendrycks and Gimpel (2016)."""

    tanh: bool = False

    name: ClassVar[str] = "gelu"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(x, approximate="tanh" if self.tanh else "none")


# Arithmetic functions ----------------------------------------------------------------------------------------------


@register_op
@dataclass(frozen=True)
class Neg(Unary):
    """-x."""

    name: ClassVar[str] = "neg"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.neg(x)


@register_op
@dataclass(frozen=True)
class Abs(Unary):
    """|x|."""

    name: ClassVar[str] = "abs"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.abs(x)


@register_op
@dataclass(frozen=True)
class Exp(Unary):
    """e to the x."""

    name: ClassVar[str] = "exp"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x)


@register_op
@dataclass(frozen=True)
class Log(Unary):
    """Natural logarithm."""

    name: ClassVar[str] = "log"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)


@register_op
@dataclass(frozen=True)
class Sqrt(Unary):
    """Square root."""

    name: ClassVar[str] = "sqrt"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sqrt(x)


@register_op
@dataclass(frozen=True)
class Tanh(Unary):
    """Hyperbolic tangent."""

    name: ClassVar[str] = "tanh"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)


@register_op
@dataclass(frozen=True)
class Erf(Unary):
    """Gauss error function."""

    name: ClassVar[str] = "erf"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.erf(x)


# Several operands --------------------------------------------------------------------------------------------------


@register_op
@dataclass(frozen=True)
class Add(Binary):
    """a + b, then clamped when ``clamp`` (low, high) is set: an activation fused into it."""

    clamp: tuple[float, float] | None = None

    name: ClassVar[str] = "add"
    quantization: ClassVar[Quantization] = Quantization.ARITHMETIC

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return apply_clamp(a + b if a.dtype is not torch.bool else a | b, self.clamp)


@register_op
@dataclass(frozen=True)
class Sub(Binary):
    """a - b."""

    name: ClassVar[str] = "sub"
    quantization: ClassVar[Quantization] = Quantization.ARITHMETIC

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a - b


@register_op
@dataclass(frozen=True)
class Mul(Binary):
    """a * b, then clamped when ``clamp`` (low, high) is set."""

    clamp: tuple[float, float] | None = None

    name: ClassVar[str] = "mul"
    quantization: ClassVar[Quantization] = Quantization.ARITHMETIC

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return apply_clamp(a * b, self.clamp)


@register_op
@dataclass(frozen=True)
class Div(Binary):
    """a / b; integers truncate toward zero as in C."""

    name: ClassVar[str] = "div"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def apply_clamp(x: torch.Tensor, clamp: tuple[float, float] | None) -> torch.Tensor:
    """``x`` within bounds, which may be infinite; where they cross the upper one holds, as in torch and ONNX."""
    if clamp is None:
        return x
    low, high = clamp
    # The gradient of clamp takes ten times as long, but hardtanh refuses bounds that cross.
    return F.hardtanh(x, low, high) if x.is_floating_point() and low <= high else torch.clamp(x, low, high)
