"""Conversions of element type, selection, and identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ..channels import Flow, broadcast
from ..errors import ModelError
from ..op import ExactOp, Op, Quantization, register_op
from ..types import DType, TensorType, broadcast_shapes


@register_op
@dataclass(frozen=True)
class Cast(Op):
    """The same numbers in another element type; floats truncate toward zero into integers."""

    dtype: DType

    name: ClassVar[str] = "cast"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (x.with_dtype(self.dtype),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(self.dtype.torch)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])


@register_op
@dataclass(frozen=True)
class Where(Op):
    """``a`` where ``condition``, else ``b``; all three broadcast."""

    name: ClassVar[str] = "where"
    operands: ClassVar[tuple[str, ...]] = ("condition", "a", "b")

    def infer(self, condition: TensorType, a: TensorType, b: TensorType) -> tuple[TensorType, ...]:
        if condition.dtype is not DType.BOOL or a.dtype is not b.dtype:
            raise ModelError(f"where of {condition}, {a}, {b}", expected="a bool condition and one element type")
        return (TensorType(a.dtype, broadcast_shapes(condition.shape, a.shape, b.shape)),)

    def run(self, condition: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.where(condition, a, b)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])


@register_op
@dataclass(frozen=True)
class Identity(Op):
    """x."""

    name: ClassVar[str] = "identity"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (x,)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])


@register_op
@dataclass(frozen=True)
class BitCast(Op, ExactOp):
    """The same bytes as another element type of the same width."""

    dtype: DType

    name: ClassVar[str] = "bit_cast"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if x.dtype.itemsize != self.dtype.itemsize:
            raise ModelError(f"bit_cast of {x} to {self.dtype.value}", expected="an element type of the same width")
        return (x.with_dtype(self.dtype),)

    def exact(self, types: Sequence[TensorType], x: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(x).view(self.dtype.numpy).reshape(x.shape)
