"""Resampling of the trailing spatial dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch

from ..channels import Flow, Kept, alike, operand, result, sized
from ..errors import ModelError
from ..op import Op, Quantization, register_op
from ..types import Shape, TensorType


@register_op
@dataclass(frozen=True)
class Resize(Op):
    """Resample every axis: output index i of an axis reads input coordinate ``scale * i + offset``.

    ``size`` is the output shape; ``scale`` and ``offset`` map output indices to input coordinates per axis, so that
    every coordinate convention of ONNX and torch is data. ``mode``: ``nearest`` (with ``rounding`` floor, ceil,
    round_prefer_floor or round_prefer_ceil), ``linear`` or ``cubic`` (with ``cubic_a``). Coordinates are clamped to
    the edge. ``antialias`` widens the filter when shrinking; ``exclude_outside`` gives elements beyond the edge no
    weight; ``extrapolation`` is the value of outputs whose coordinate lies outside.
    """

    size: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    mode: str = "nearest"
    rounding: str = "round_prefer_floor"
    cubic_a: float = -0.75
    antialias: bool = False
    exclude_outside: bool = False
    extrapolation: float | None = None

    name: ClassVar[str] = "resize"
    operands: ClassVar[tuple[str, ...]] = ("x",)
    quantization: ClassVar[Quantization] = Quantization.AVERAGE

    @property
    def rule(self) -> Quantization:
        return Quantization.PRESERVING if self.mode == "nearest" else self.quantization

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        if not x.rank == len(self.size) == len(self.scale) == len(self.offset):
            raise ModelError(f"resize of {len(self.size)} axes of a tensor of rank {x.rank}")
        return (TensorType(x.dtype, self.size, x.quant if self.mode == "nearest" else None),)

    def run(self, x: torch.Tensor) -> torch.Tensor:
        sizes = x.shape
        wide = x if x.is_floating_point() or self.mode == "nearest" else x.to(torch.float64)
        for axis in range(x.ndim):
            if not self._identity(axis, x.shape[axis]):
                wide = self._resample(wide, axis)
        y = wide if wide.dtype is x.dtype else wide.round().to(x.dtype)
        return y if self.extrapolation is None else self._extrapolate(y, sizes)

    def _extrapolate(self, y: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
        for axis, size in enumerate(sizes):
            coordinate = self._coordinates(axis)
            outside = torch.from_numpy((coordinate < 0) | (coordinate > size - 1))
            shape = [1] * y.ndim
            shape[axis] = -1
            y = torch.where(outside.reshape(shape), torch.as_tensor(self.extrapolation, dtype=y.dtype), y)
        return y

    def _coordinates(self, axis: int) -> np.ndarray:
        return self.scale[axis] * np.arange(self.size[axis], dtype=np.float64) + self.offset[axis]

    def _identity(self, axis: int, size: int) -> bool:
        return self.size[axis] == size and self.scale[axis] == 1.0 and self.offset[axis] == 0.0

    def taps(self, axis: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Indices (i64) and weights (f64), both (outputs, taps), of the input elements that each output mixes."""
        coordinate = self._coordinates(axis)
        if self.mode == "nearest":
            index = _round(coordinate, self.rounding)[:, None]
            return np.clip(index, 0, size - 1).astype(np.int64), np.ones_like(index, np.float64)
        if self.mode == "linear" and not self.exclude_outside:
            coordinate = np.clip(coordinate, 0, size - 1)
        reach = 1 if self.mode == "linear" else 2
        shrink = min(1.0 / self.scale[axis], 1.0) if self.antialias and self.scale[axis] else 1.0
        first = int(np.floor(-reach / shrink)) + 1
        low = np.ceil(coordinate) - 1 if self.antialias else np.floor(coordinate)
        index = low[:, None] + np.arange(first, 2 - first)
        distance = (coordinate[:, None] - index) * shrink
        weight = np.clip(1 - np.abs(distance), 0, 1) if reach == 1 else _cubic(distance, self.cubic_a)
        if self.exclude_outside:
            weight = np.where((index < 0) | (index >= size), 0.0, weight)
        if self.exclude_outside or self.antialias:
            weight = weight / weight.sum(1, keepdims=True)
        return np.clip(index, 0, size - 1).astype(np.int64), weight

    def _resample(self, x: torch.Tensor, axis: int) -> torch.Tensor:
        index, weight = self.taps(axis, x.shape[axis])
        shape = [1] * x.ndim
        shape[axis] = -1
        total: torch.Tensor | None = None
        for tap in range(index.shape[1]):
            part = x.index_select(axis, torch.from_numpy(index[:, tap].copy()))
            if index.shape[1] > 1:
                part = part * torch.from_numpy(weight[:, tap].copy()).to(x.dtype).reshape(shape)
            total = part if total is None else total + part
        assert total is not None
        return total

    def channels(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Flow:
        free = [axis for axis, size in sized(inputs[0].shape) if self._identity(axis, size)]
        return Flow(alike(operand(0, 0), result(0), outputs[0].shape, free), reason="resize interpolates along it")

    def narrowed(self, inputs: Sequence[Kept], outputs: Sequence[Kept], shapes: Sequence[Shape]) -> Op:
        return replace(self, size=tuple(size for size in shapes[0] if isinstance(size, int)))


def _round(coordinate: np.ndarray, rounding: str) -> np.ndarray:
    match rounding:
        case "floor":
            return np.asarray(np.floor(coordinate))
        case "ceil":
            return np.asarray(np.ceil(coordinate))
        case "round_prefer_floor":
            return np.asarray(np.ceil(coordinate - 0.5))
        case "round_prefer_ceil":
            return np.asarray(np.floor(coordinate + 0.5))
        case _:
            raise ModelError(f"unknown rounding {rounding}")


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys' convolution kernel (1981)."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
