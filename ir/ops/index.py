"""Reading and writing elements at computed places."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import ModelError
from ..op import Op, Quantization, register_op
from ..types import DType, TensorType, normalize_axis


def _require_indices(name: str, indices: TensorType) -> None:
    if not indices.dtype.is_integer:
        raise ModelError(f"{name} indices of {indices.dtype.value}", expected="integers")


def from_front(indices: torch.Tensor, size: int) -> torch.Tensor:
    """Indices as i64, negative ones counted from the end."""
    indices = indices.long()
    return torch.where(indices < 0, indices + size, indices)


@register_op
@dataclass(frozen=True)
class GatherElements(Op):
    """``y[i, j, k] = x[indices[i, j, k], j, k]`` for axis 0, and so on; the shape of ``indices``."""

    axis: int = 0

    name: ClassVar[str] = "gather_elements"
    operands: ClassVar[tuple[str, ...]] = ("x", "indices")
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def infer(self, x: TensorType, indices: TensorType) -> tuple[TensorType, ...]:
        _require_indices(self.name, indices)
        normalize_axis(self.axis, x.rank)
        if indices.rank != x.rank:
            raise ModelError(f"gather_elements of {x} at {indices}", expected="equal ranks")
        return (x.with_shape(indices.shape),)

    def run(self, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        return torch.gather(x, self.axis, from_front(indices, x.shape[self.axis]))


@register_op
@dataclass(frozen=True)
class GatherND(Op):
    """Slices of x at the tuples in the last axis of ``indices``; the first ``batch_dims`` axes go along."""

    batch_dims: int = 0

    name: ClassVar[str] = "gather_nd"
    operands: ClassVar[tuple[str, ...]] = ("x", "indices")
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def infer(self, x: TensorType, indices: TensorType) -> tuple[TensorType, ...]:
        _require_indices(self.name, indices)
        depth = indices.shape[-1] if indices.rank else 0
        if not isinstance(depth, int) or self.batch_dims + depth > x.rank or not depth:
            raise ModelError(f"gather_nd of {x} at {indices}")
        return (x.with_shape((*indices.shape[:-1], *x.shape[self.batch_dims + depth :])),)

    def run(self, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        batch, depth = x.shape[: self.batch_dims], indices.shape[-1]
        flat_x = x.reshape(math.prod(batch), *x.shape[self.batch_dims :])
        flat = indices.reshape(math.prod(batch), -1, depth)
        rows = torch.arange(flat.shape[0]).reshape(-1, 1).expand(-1, flat.shape[1])
        places = [from_front(flat[..., i], x.shape[self.batch_dims + i]) for i in range(depth)]
        picked = flat_x[(rows, *places)]
        return picked.reshape((*indices.shape[:-1], *x.shape[self.batch_dims + depth :]))


_TORCH_REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


@dataclass(frozen=True)
class Scatter(Op):
    """A copy of ``x`` with ``updates`` written to places of ``indices``; ``reduction``: none, add, mul, max or min."""

    operands: ClassVar[tuple[str, ...]] = ("x", "indices", "updates")

    def check(self, reduction: str, x: TensorType, indices: TensorType, updates: TensorType) -> None:
        _require_indices(self.name, indices)
        if reduction not in ("none", *_TORCH_REDUCTIONS) or x.dtype is not updates.dtype:
            raise ModelError(f"{self.name} of {updates} into {x} with reduction {reduction}")


@register_op
@dataclass(frozen=True)
class ScatterElements(Scatter):
    """``y[indices[i, j, k], j, k] = updates[i, j, k]`` for axis 0, and so on."""

    axis: int = 0
    reduction: str = "none"

    name: ClassVar[str] = "scatter_elements"

    def infer(self, x: TensorType, indices: TensorType, updates: TensorType) -> tuple[TensorType, ...]:
        self.check(self.reduction, x, indices, updates)
        normalize_axis(self.axis, x.rank)
        if indices.shape != updates.shape or indices.rank != x.rank:
            raise ModelError(f"scatter_elements of {updates} at {indices} into {x}", expected="equal shapes")
        return (x.with_quant(None),)

    def run(self, x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        places = from_front(indices, x.shape[self.axis])
        if self.reduction == "none":
            return x.scatter(self.axis, places, updates)
        return x.scatter_reduce(self.axis, places, updates, _TORCH_REDUCTIONS[self.reduction])


@register_op
@dataclass(frozen=True)
class ScatterND(Scatter):
    """Slices of ``updates`` written to the tuples in the last axis of ``indices``."""

    reduction: str = "none"

    name: ClassVar[str] = "scatter_nd"

    def infer(self, x: TensorType, indices: TensorType, updates: TensorType) -> tuple[TensorType, ...]:
        self.check(self.reduction, x, indices, updates)
        depth = indices.shape[-1] if indices.rank else 0
        if not isinstance(depth, int) or updates.shape != (*indices.shape[:-1], *x.shape[depth:]):
            raise ModelError(f"scatter_nd of {updates} at {indices} into {x}")
        return (x.with_quant(None),)

    def run(self, x: torch.Tensor, indices: torch.Tensor, updates: torch.Tensor) -> torch.Tensor:
        depth = indices.shape[-1]
        strides = [math.prod(x.shape[i + 1 : depth]) for i in range(depth)]
        row = sum(from_front(indices[..., i], x.shape[i]) * stride for i, stride in enumerate(strides))
        flat = torch.as_tensor(row).reshape(-1)
        rows = x.reshape(math.prod(x.shape[:depth]), -1).clone()
        new = updates.reshape(flat.shape[0], rows.shape[1])
        if self.reduction == "none":
            rows[flat] = new
        else:
            places = flat.reshape(-1, 1).expand_as(new)
            rows = rows.scatter_reduce(0, places, new, _TORCH_REDUCTIONS[self.reduction])
        return rows.reshape(x.shape)


@register_op
@dataclass(frozen=True)
class OneHot(Op):
    """Bool: true where the new ``axis`` of size ``depth`` equals the index; an index outside gives false everywhere."""

    depth: int
    axis: int = -1

    name: ClassVar[str] = "one_hot"
    operands: ClassVar[tuple[str, ...]] = ("indices",)

    def infer(self, indices: TensorType) -> tuple[TensorType, ...]:
        axis = normalize_axis(self.axis, indices.rank + 1)
        return (TensorType(DType.BOOL, (*indices.shape[:axis], self.depth, *indices.shape[axis:])),)

    def run(self, indices: torch.Tensor) -> torch.Tensor:
        axis = self.axis % (indices.ndim + 1)
        shape = [1] * (indices.ndim + 1)
        shape[axis] = -1
        return torch.arange(self.depth).reshape(shape) == indices.unsqueeze(axis)


@register_op
@dataclass(frozen=True)
class Trilu(Op):
    """The triangle of each matrix that lies on and above (or below) diagonal ``k``, zero elsewhere."""

    upper: bool = True
    k: int = 0

    name: ClassVar[str] = "trilu"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if x.rank < 2:
            raise ModelError(f"trilu of {x}", expected="matrices")
        return (x.with_quant(None),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return torch.triu(x, self.k) if self.upper else torch.tril(x, self.k)


@register_op
@dataclass(frozen=True)
class ReverseSequence(Op):
    """The first ``lengths[b]`` elements along ``time_axis`` reversed, for each b along ``batch_axis``."""

    batch_axis: int = 1
    time_axis: int = 0

    name: ClassVar[str] = "reverse_sequence"
    operands: ClassVar[tuple[str, ...]] = ("x", "lengths")
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def infer(self, x: TensorType, lengths: TensorType) -> tuple[TensorType, ...]:
        if {self.batch_axis, self.time_axis} != {0, 1} or lengths.shape != (x.shape[self.batch_axis],):
            raise ModelError(f"reverse_sequence of {x} with lengths {lengths}")
        return (x,)

    def run(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(x.shape[self.time_axis]).reshape(-1, 1)
        source = torch.where(steps < lengths, lengths - 1 - steps, steps)
        if self.batch_axis == 0:
            source = source.T
        shape = (*source.shape, *[1] * (x.ndim - 2))
        return torch.gather(x, self.time_axis, source.reshape(shape).expand(x.shape))
