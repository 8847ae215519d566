"""Comparisons, logic, bit operations, and arithmetic of two operands beyond the four rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..channels import Flow, broadcast
from ..errors import ModelError
from ..op import Op, register_op
from ..types import DType, TensorType, broadcast_shapes
from .elementwise import Binary, Comparison, Unary

# Comparisons -------------------------------------------------------------------------------------------------------


@register_op
@dataclass(frozen=True)
class Equal(Comparison):
    """a == b."""

    name: ClassVar[str] = "equal"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a == b


@register_op
@dataclass(frozen=True)
class Greater(Comparison):
    """a > b."""

    name: ClassVar[str] = "greater"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a > b


@register_op
@dataclass(frozen=True)
class GreaterEqual(Comparison):
    """a >= b."""

    name: ClassVar[str] = "greater_equal"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a >= b


@register_op
@dataclass(frozen=True)
class Less(Comparison):
    """a < b."""

    name: ClassVar[str] = "less"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a < b


@register_op
@dataclass(frozen=True)
class LessEqual(Comparison):
    """a <= b."""

    name: ClassVar[str] = "less_equal"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a <= b


# Logic and bits: on bool they are logical, on integers they work bit by bit -------------------------------------------


@register_op
@dataclass(frozen=True)
class Not(Unary):
    """Every bit of x inverted; the logical complement of a bool."""

    name: ClassVar[str] = "not"

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.bitwise_not(x)


@register_op
@dataclass(frozen=True)
class And(Binary):
    """Bits set in both."""

    name: ClassVar[str] = "and"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a & b


@register_op
@dataclass(frozen=True)
class Or(Binary):
    """Bits set in either."""

    name: ClassVar[str] = "or"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a | b


@register_op
@dataclass(frozen=True)
class Xor(Binary):
    """Bits set in just one."""

    name: ClassVar[str] = "xor"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a ^ b


@register_op
@dataclass(frozen=True)
class ShiftLeft(Binary):
    """a * 2**b within the element type."""

    name: ClassVar[str] = "shift_left"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.bitwise_left_shift(a, b)


@register_op
@dataclass(frozen=True)
class ShiftRight(Binary):
    """floor(a / 2**b)."""

    name: ClassVar[str] = "shift_right"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.bitwise_right_shift(a, b)


# Arithmetic --------------------------------------------------------------------------------------------------------


@register_op
@dataclass(frozen=True)
class Minimum(Binary):
    """The smaller of both; NaN if either is."""

    name: ClassVar[str] = "minimum"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.minimum(a, b)


@register_op
@dataclass(frozen=True)
class Maximum(Binary):
    """The larger of both; NaN if either is."""

    name: ClassVar[str] = "maximum"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.maximum(a, b)


@register_op
@dataclass(frozen=True)
class Mod(Binary):
    """The remainder of a / b, with the sign of b, or of a when ``truncated`` (C's fmod)."""

    truncated: bool = False

    name: ClassVar[str] = "mod"

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.fmod(a, b) if self.truncated else torch.remainder(a, b)


@register_op
@dataclass(frozen=True)
class Pow(Op):
    """a to the power b, in the element type of a; b may have another."""

    name: ClassVar[str] = "pow"
    operands: ClassVar[tuple[str, ...]] = ("a", "b")

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType, ...]:
        if DType.BOOL in (a.dtype, b.dtype):
            raise ModelError(f"pow of {a} and {b}", expected="numbers")
        return (TensorType(a.dtype, broadcast_shapes(a.shape, b.shape)),)

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if not a.is_floating_point() and b.is_floating_point():
            return torch.pow(a.to(torch.float64), b.to(torch.float64)).to(a.dtype)
        return torch.pow(a, b if a.is_floating_point() and not b.is_floating_point() else b.to(a.dtype))

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])


@register_op
@dataclass(frozen=True)
class PRelu(Op):
    """x if x >= 0 else slope * x; the slopes broadcast to x."""

    name: ClassVar[str] = "prelu"
    operands: ClassVar[tuple[str, ...]] = ("x", "slope")

    def infer(self, x: TensorType, slope: TensorType) -> tuple[TensorType, ...]:
        if broadcast_shapes(x.shape, slope.shape) != x.shape or x.dtype is not slope.dtype:
            raise ModelError(f"prelu of {x} with slopes {slope}", expected="slopes that broadcast to x")
        return (x.with_quant(None),)

    def run(self, x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        return torch.where(x < 0, x * slope, x)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])
