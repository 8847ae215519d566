"""Functions of one element beyond the common activations: trigonometry, rounding, softplus and its relatives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..op import register_op
from .elementwise import Predicate, Unary


@register_op
@dataclass(frozen=True)
class Sin(Unary):
    """Sine."""

    name: ClassVar[str] = "sin"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x)


@register_op
@dataclass(frozen=True)
class Cos(Unary):
    """Cosine."""

    name: ClassVar[str] = "cos"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cos(x)


@register_op
@dataclass(frozen=True)
class Tan(Unary):
    """Tangent."""

    name: ClassVar[str] = "tan"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tan(x)


@register_op
@dataclass(frozen=True)
class Asin(Unary):
    """Inverse sine."""

    name: ClassVar[str] = "asin"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.asin(x)


@register_op
@dataclass(frozen=True)
class Acos(Unary):
    """Inverse cosine."""

    name: ClassVar[str] = "acos"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.acos(x)


@register_op
@dataclass(frozen=True)
class Atan(Unary):
    """Inverse tangent."""

    name: ClassVar[str] = "atan"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.atan(x)


@register_op
@dataclass(frozen=True)
class Sinh(Unary):
    """Hyperbolic sine."""

    name: ClassVar[str] = "sinh"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sinh(x)


@register_op
@dataclass(frozen=True)
class Cosh(Unary):
    """Hyperbolic cosine."""

    name: ClassVar[str] = "cosh"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cosh(x)


@register_op
@dataclass(frozen=True)
class Asinh(Unary):
    """Inverse hyperbolic sine."""

    name: ClassVar[str] = "asinh"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.asinh(x)


@register_op
@dataclass(frozen=True)
class Acosh(Unary):
    """Inverse hyperbolic cosine."""

    name: ClassVar[str] = "acosh"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.acosh(x)


@register_op
@dataclass(frozen=True)
class Atanh(Unary):
    """Inverse hyperbolic tangent."""

    name: ClassVar[str] = "atanh"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.atanh(x)


@register_op
@dataclass(frozen=True)
class Reciprocal(Unary):
    """1 / x."""

    name: ClassVar[str] = "reciprocal"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.reciprocal(x)


@register_op
@dataclass(frozen=True)
class Floor(Unary):
    """Largest integer not above x."""

    name: ClassVar[str] = "floor"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.floor(x) if x.is_floating_point() else x


@register_op
@dataclass(frozen=True)
class Ceil(Unary):
    """Smallest integer not below x."""

    name: ClassVar[str] = "ceil"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ceil(x) if x.is_floating_point() else x


@register_op
@dataclass(frozen=True)
class Round(Unary):
    """Nearest integer, ties to even."""

    name: ClassVar[str] = "round"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round(x) if x.is_floating_point() else x


@register_op
@dataclass(frozen=True)
class Sign(Unary):
    """-1, 0 or 1."""

    name: ClassVar[str] = "sign"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sign(x)


# Activations -------------------------------------------------------------------------------------------------------


@register_op
@dataclass(frozen=True)
class Softplus(Unary):
    """log(1 + exp(x))."""

    name: ClassVar[str] = "softplus"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return F.softplus(x)


@register_op
@dataclass(frozen=True)
class Softsign(Unary):
    """x / (1 + |x|)."""

    name: ClassVar[str] = "softsign"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return F.softsign(x)


@register_op
@dataclass(frozen=True)
class Selu(Unary):
    """gamma * x if x > 0 else gamma * alpha * (exp(x) - 1) (Klambauer et al., 2017)."""

    alpha: float = 1.6732632423543772
    gamma: float = 1.0507009873554805

    name: ClassVar[str] = "selu"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return self.gamma * F.elu(x, self.alpha)


@register_op
@dataclass(frozen=True)
class Celu(Unary):
    """max(x, 0) + min(0, alpha * (exp(x / alpha) - 1)) (Barron, 2017)."""

    alpha: float = 1.0

    name: ClassVar[str] = "celu"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return F.celu(x, self.alpha)


@register_op
@dataclass(frozen=True)
class Mish(Unary):
    """x * tanh(softplus(x)) (Misra, 2019)."""

    name: ClassVar[str] = "mish"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return F.mish(x)


@register_op
@dataclass(frozen=True)
class ThresholdedRelu(Unary):
    """x if x > alpha else 0."""

    alpha: float = 1.0

    name: ClassVar[str] = "thresholded_relu"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > self.alpha, x, torch.zeros_like(x))


@register_op
@dataclass(frozen=True)
class Shrink(Unary):
    """x + bias below -threshold, x - bias above threshold, else 0."""

    threshold: float = 0.5
    bias: float = 0.0

    name: ClassVar[str] = "shrink"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        outside = torch.where(x > self.threshold, x - self.bias, torch.zeros_like(x, dtype=(x - self.bias).dtype))
        return torch.where(x < -self.threshold, x + self.bias, outside).to(x.dtype)


# Tests -------------------------------------------------------------------------------------------------------------


@register_op
@dataclass(frozen=True)
class IsNan(Predicate):
    """Whether x is no number."""

    name: ClassVar[str] = "isnan"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.isnan(x)


@register_op
@dataclass(frozen=True)
class IsInf(Predicate):
    """Whether x is infinite, with a sign that is asked for."""

    positive: bool = True
    negative: bool = True

    name: ClassVar[str] = "isinf"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        infinite = torch.isinf(x)
        return infinite & (((x > 0) & self.positive) | ((x < 0) & self.negative))
