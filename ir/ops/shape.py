"""Ops that move elements without computing: reshape, transpose, slice, concat, pad, expand, gather."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from ..channels import Flow, Kept, Tie, alike, broadcast, operand, part, reshaped, result, same, sized
from ..errors import ModelError
from ..op import Cost, Op, Quantization, register_op
from ..types import Dim, Shape, TensorType, broadcast_shapes, format_shape, normalize_axis


@dataclass(frozen=True)
class Movement(Op):
    """One input; every output element is an input element (or a fill), with the input's quantization."""

    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost(elementwise=outputs[0].size)


def reject_channel_quant(op: Op, x: TensorType) -> None:
    """Per-channel parameters cannot follow their axis through every movement."""
    if x.quant is not None and x.quant.axis is not None:
        raise ModelError(f"{op.name} of a per-channel quantized tensor", expected="per-tensor quantization")


@register_op
@dataclass(frozen=True)
class Reshape(Movement):
    """The same elements in row-major order under another shape. A symbolic dimension may move, or take in others."""

    shape: Shape

    name: ClassVar[str] = "reshape"

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        reject_channel_quant(self, x)
        if _count(x.shape) != _count(self.shape):
            raise ModelError(f"cannot reshape {format_shape(x.shape)} to {format_shape(self.shape)}")
        return (x.with_shape(self.shape),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        sizes = [-1 if isinstance(d, Dim) else d for d in self.shape]
        return x.reshape(sizes)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return reshaped(inputs[0].shape, outputs[0].shape)

    def narrowed(self, inputs: Sequence[Kept], outputs: Sequence[Kept], shapes: Sequence[Shape]) -> Op:
        return replace(self, shape=shapes[0])


def _count(shape: Shape) -> tuple[int, tuple[str, ...]]:
    known = math.prod(d.factor if isinstance(d, Dim) else d for d in shape)
    return known, tuple(sorted(d.name for d in shape if isinstance(d, Dim)))


@register_op
@dataclass(frozen=True)
class Transpose(Movement):
    """Output axis i is input axis ``permutation[i]``."""

    permutation: tuple[int, ...]

    name: ClassVar[str] = "transpose"

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        reject_channel_quant(self, x)
        if sorted(self.permutation) != list(range(x.rank)):
            raise ModelError(f"permutation {self.permutation} of a tensor of rank {x.rank}")
        return (x.with_shape([x.shape[axis] for axis in self.permutation]),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        return x.permute(self.permutation).contiguous()

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        pairs = enumerate(self.permutation)
        sizes = dict(sized(outputs[0].shape))
        return Flow(tuple(same(operand(0, was), result(now), sizes[now]) for now, was in pairs if now in sizes))


@register_op
@dataclass(frozen=True)
class Slice(Movement):
    """``x[starts[i] : stops[i] : steps[i]]`` on each axis; normalized: 0 <= start, steps may be negative.

    A negative step runs from ``start`` down to, but not including, ``stop`` (-1 stands for before the first element).
    An axis left whole is (0, size, 1), or (0, -1, 1) whatever its size, which alone is allowed on a symbolic dimension.
    """

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]

    name: ClassVar[str] = "slice"

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        reject_channel_quant(self, x)
        if not len(self.starts) == len(self.stops) == len(self.steps) == x.rank:
            raise ModelError(f"slice of {len(self.starts)} axes of a tensor of rank {x.rank}")
        return (x.with_shape([self._extent(axis, size) for axis, size in enumerate(x.shape)]),)

    def _extent(self, axis: int, size: int | Dim) -> int | Dim:
        start, stop, step = self.starts[axis], self.stops[axis], self.steps[axis]
        if (start, stop, step) == (0, -1, 1):
            return size
        if isinstance(size, Dim):
            raise ModelError(f"slice of the unknown dimension {size}", hint="give --shape for every input")
        return len(range(start, stop, step))

    def run(self, x: torch.Tensor) -> torch.Tensor:
        for axis, (start, stop, step) in enumerate(zip(self.starts, self.stops, self.steps, strict=True)):
            if (start, stop, step) == (0, -1, 1):
                continue
            if step > 0:
                x = x.narrow(axis, start, max(stop - start, 0)) if step == 1 else _strided(x, axis, start, stop, step)
            else:
                x = x.index_select(axis, torch.tensor(list(range(start, stop, step)), dtype=torch.int64))
        return x.contiguous()

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        """A stretch of an axis follows it; a stride makes no regular pattern of what remains."""
        ties = [
            part(operand(0, axis), result(axis), self.starts[axis], size)
            for axis, size in sized(outputs[0].shape)
            if self.steps[axis] == 1
        ]
        return Flow(tuple(ties), reason="slice takes every so manieth of it")

    def narrowed(self, inputs: Sequence[Kept], outputs: Sequence[Kept], shapes: Sequence[Shape]) -> Op:
        starts, stops = list(self.starts), list(self.stops)
        for axis, kept in inputs[0].items():
            if (starts[axis], stops[axis]) != (0, -1):
                starts[axis], stops[axis] = (int(np.searchsorted(kept, end)) for end in (starts[axis], stops[axis]))
        return replace(self, starts=tuple(starts), stops=tuple(stops))


def _strided(x: torch.Tensor, axis: int, start: int, stop: int, step: int) -> torch.Tensor:
    index: list[slice] = [slice(None)] * x.ndim
    index[axis] = slice(start, stop, step)
    return x[tuple(index)]


@register_op
@dataclass(frozen=True)
class Pad(Movement):
    """(before, after) elements of ``value`` around each axis; negative amounts crop.

    ``mode``: constant, reflect, edge or wrap.
    """

    padding: tuple[tuple[int, int], ...]
    value: float = 0.0
    mode: str = "constant"

    name: ClassVar[str] = "pad"

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        reject_channel_quant(self, x)
        if len(self.padding) != x.rank:
            raise ModelError(f"padding of {len(self.padding)} axes of a tensor of rank {x.rank}")
        return (x.with_shape([_padded(size, pair) for size, pair in zip(x.shape, self.padding, strict=True)]),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "constant":
            flat = [amount for pair in reversed(self.padding) for amount in pair]
            return F.pad(x, flat, value=self.value if x.is_floating_point() else int(self.value))
        for axis, (before, after) in enumerate(self.padding):
            if before or after:
                x = x.index_select(axis, self.sources(x.shape[axis], before, after))
        return x

    def sources(self, size: int, before: int, after: int) -> torch.Tensor:
        """Where along an axis of ``size`` each element of the result comes from, when the mode is not constant."""
        position = torch.arange(-before, size + after)
        if self.mode == "edge":
            return position.clamp(0, size - 1)
        if self.mode == "wrap":
            return position % size
        period = max(2 * (size - 1), 1)
        position = position.abs() % period
        return torch.where(position >= size, period - position, position)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        free = [axis for axis, pair in enumerate(self.padding) if pair == (0, 0)]
        return Flow(alike(operand(0, 0), result(0), outputs[0].shape, free), reason="pad adds to it")


def _padded(size: int | Dim, pair: tuple[int, int]) -> int | Dim:
    if isinstance(size, Dim):
        if pair != (0, 0):
            raise ModelError(f"padding of the unknown dimension {size}", hint="give --shape for every input")
        return size
    return size + sum(pair)


@register_op
@dataclass(frozen=True)
class Expand(Movement):
    """``x`` broadcast to ``shape`` by the rules of numpy."""

    shape: Shape

    name: ClassVar[str] = "expand"

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        reject_channel_quant(self, x)
        if broadcast_shapes(x.shape, self.shape) != self.shape:
            raise ModelError(f"{format_shape(x.shape)} does not expand to {format_shape(self.shape)}")
        return (x.with_shape(self.shape),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        lead = len(self.shape) - x.ndim
        sizes = [(x.shape[i - lead] if i >= lead else 1) if isinstance(d, Dim) else d for i, d in enumerate(self.shape)]
        return x.expand(sizes).contiguous()

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        return broadcast(inputs, outputs[0])

    def narrowed(self, inputs: Sequence[Kept], outputs: Sequence[Kept], shapes: Sequence[Shape]) -> Op:
        return replace(self, shape=shapes[0])


@register_op
@dataclass(frozen=True)
class Concat(Op):
    """Inputs one after another along ``axis``."""

    axis: int

    name: ClassVar[str] = "concat"
    operands: ClassVar[tuple[str, ...]] = ("parts*",)
    quantization: ClassVar[Quantization] = Quantization.JOINING

    def infer(self, *parts: TensorType) -> tuple[TensorType, ...]:
        first = parts[0]
        axis = normalize_axis(self.axis, first.rank)
        for other in parts[1:]:
            if other.rank != first.rank or any(
                a != b for i, (a, b) in enumerate(zip(other.shape, first.shape, strict=True)) if i != axis
            ):
                raise ModelError(f"cannot concatenate {first} and {other} along axis {axis}")
            if other.dtype is not first.dtype or other.quant != first.quant:
                raise ModelError(f"concat of {first} and {other}", expected="one element type and quantization")
        extents = [each.shape[axis] for each in parts]
        sizes = [e for e in extents if isinstance(e, int)]
        if len(sizes) != len(extents) and len(parts) > 1:
            raise ModelError("concat along an unknown dimension", hint="give --shape for every input")
        extent = sum(sizes) if len(sizes) == len(extents) else extents[0]
        return (first.with_shape((*first.shape[:axis], extent, *first.shape[axis + 1 :])),)

    def run(self, *parts: torch.Tensor) -> torch.Tensor:
        return torch.cat(parts, self.axis)

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        along = self.axis % outputs[0].rank
        others = [axis for axis in range(outputs[0].rank) if axis != along]
        ties: list[Tie] = []
        start = 0
        for position, type in enumerate(inputs):
            size = type.shape[along]
            if isinstance(size, int):
                ties.append(part(result(along), operand(position, along), start, size))
                start += size
            ties += alike(operand(position, 0), result(0), outputs[0].shape, others)
        return Flow(tuple(ties))


@register_op
@dataclass(frozen=True)
class Gather(Op):
    """``x`` at integer ``indices`` along ``axis`` (numpy.take); negative indices count from the end."""

    axis: int = 0

    name: ClassVar[str] = "gather"
    operands: ClassVar[tuple[str, ...]] = ("x", "indices")
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def infer(self, x: TensorType, indices: TensorType) -> tuple[TensorType, ...]:
        reject_channel_quant(self, x)
        if not indices.dtype.is_integer:
            raise ModelError(f"gather indices of {indices.dtype.value}", expected="integers")
        axis = normalize_axis(self.axis, x.rank)
        return (x.with_shape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])),)

    def run(self, x: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        axis = self.axis % x.ndim
        flat = indices.long().reshape(-1)
        flat = torch.where(flat < 0, flat + x.shape[axis], flat)
        picked = x.index_select(axis, flat)
        return picked.reshape((*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        """Axes that are not looked up in follow the result."""
        axis, wide = self.axis % inputs[0].rank, inputs[1].rank - 1
        ties = [
            same(operand(0, i), result(i if i < axis else i + wide), n) for i, n in sized(inputs[0].shape) if i != axis
        ]
        ties += [same(operand(1, i), result(axis + i), n) for i, n in sized(inputs[1].shape)]
        return Flow(tuple(ties), reason="gather looks up in it")
