"""Fully connected layers and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..channels import Flow, Tie, alike, operand, result, same, sized
from ..errors import ModelError
from ..op import Cost, Op, Quantization, register_op
from ..types import TensorType, broadcast_shapes
from .conv import check_bias
from .elementwise import apply_clamp


@register_op
@dataclass(frozen=True)
class Linear(Op):
    """``x`` (..., K) times ``weight`` (O, K) transposed, plus ``bias`` (O,), plus ``residual`` like the output."""

    clamp: tuple[float, float] | None = None

    name: ClassVar[str] = "linear"
    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "bias?", "residual?")
    quantization: ClassVar[Quantization] = Quantization.WEIGHTED

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        bias: TensorType | None = None,
        residual: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        if not x.rank or weight.rank != 2 or x.shape[-1] != weight.shape[1]:
            raise ModelError(f"linear of {x} with weight {weight}", expected="x (..., K), weight (O, K)")
        shape = (*x.shape[:-1], weight.shape[0])
        check_bias(self.name, bias, weight.shape[0])
        if residual is not None and residual.shape != shape:
            raise ModelError("the residual of a linear has another shape than its output")
        return (TensorType(x.dtype, shape),)

    def run(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        residual: torch.Tensor | None = None,
    ) -> torch.Tensor:
        y = F.linear(x, weight, bias)
        return apply_clamp(y if residual is None else y + residual, self.clamp)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(macs=outputs[0].size * inputs[1].static_shape[1], elementwise=outputs[0].size)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        """The last axes follow the weight's."""
        made, read = inputs[1].static_shape
        last = outputs[0].rank - 1
        ties = [same(result(last), operand(1, 0), made), same(operand(0, last), operand(1, 1), read)]
        ties += alike(operand(0, 0), result(0), outputs[0].shape, range(last))
        ties += [same(operand(2, 0), operand(1, 0), made)] if len(inputs) > 2 else []
        ties += alike(operand(3, 0), result(0), outputs[0].shape) if len(inputs) > 3 else ()
        return Flow(tuple(ties))


@register_op
@dataclass(frozen=True)
class MatMul(Op):
    """The matrix product of numpy.matmul: ``a`` (..., M, K) times ``b`` (..., K, N), batch dimensions broadcast."""

    name: ClassVar[str] = "matmul"
    operands: ClassVar[tuple[str, ...]] = ("a", "b")
    quantization: ClassVar[Quantization] = Quantization.MATMUL

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType, ...]:
        if a.rank < 2 or b.rank < 2 or a.shape[-1] != b.shape[-2]:
            raise ModelError(f"matmul of {a} and {b}", expected="a (..., M, K), b (..., K, N)")
        batch = broadcast_shapes(a.shape[:-2], b.shape[:-2]) if a.rank > 2 or b.rank > 2 else ()
        return (TensorType(a.dtype, (*batch, a.shape[-2], b.shape[-1])),)

    def run(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.matmul(a, b)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(macs=outputs[0].size * inputs[0].static_shape[-1], elementwise=outputs[0].size)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        """What is summed over belongs together; rows and columns follow the result."""
        (a, b), last = inputs, outputs[0].rank - 1
        ties = [*self._kept(a, 0, a.rank - 2, last - 1), *self._kept(b, 1, b.rank - 1, last)]
        if isinstance(a.shape[-1], int):
            ties.append(same(operand(0, a.rank - 1), operand(1, b.rank - 2), a.shape[-1]))
        for side, type in enumerate(inputs):
            lead = outputs[0].rank - type.rank
            ties += [same(operand(side, i), result(i + lead), n) for i, n in sized(type.shape) if i < type.rank - 2]
        return Flow(tuple(ties))

    @staticmethod
    def _kept(type: TensorType, position: int, axis: int, into: int) -> tuple[Tie, ...]:
        size = type.shape[axis]
        return (same(operand(position, axis), result(into), size),) if isinstance(size, int) else ()
