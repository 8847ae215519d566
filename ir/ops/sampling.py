"""Reading images at computed coordinates, and windows back into images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..errors import ModelError
from ..op import Op, register_op
from ..types import TensorType
from .conv import Padding


@register_op
@dataclass(frozen=True)
class GridSample(Op):
    """``x`` (N, C, *spatial) at the coordinates of ``grid`` (N, *outputs, spatial), which run from -1 to 1, x first.

    ``mode``: nearest, linear or cubic (images only); ``padding``: zeros, border or reflection; ``align_corners`` puts
    -1 and 1 on the centers of the corner elements instead of their outer edges.
    """

    mode: str = "linear"
    padding: str = "zeros"
    align_corners: bool = False

    name: ClassVar[str] = "grid_sample"
    operands: ClassVar[tuple[str, ...]] = ("x", "grid")

    def infer(self, x: TensorType, grid: TensorType) -> tuple[TensorType, ...]:
        spatial = x.rank - 2
        if spatial not in (2, 3) or grid.rank != x.rank or grid.shape[-1] != spatial:
            raise ModelError(f"grid_sample of {x} at {grid}")
        if self.mode == "cubic" and spatial == 3:
            raise ModelError("cubic grid_sample of a volume", expected="an image (4 axes)")
        return (TensorType(x.dtype, (x.shape[0], x.shape[1], *grid.shape[1:-1])),)

    def run(self, x: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        modes = {"linear": "bilinear", "cubic": "bicubic"}
        mode = modes.get(self.mode, self.mode)
        return F.grid_sample(x, grid.to(x.dtype), mode, self.padding, self.align_corners)


@register_op
@dataclass(frozen=True)
class RoiAlign(Op):
    """Each region (x1, y1, x2, y2) of the image ``batch`` resampled to ``size`` bins (He et al., 2017).

    A bin is the mean (or maximum) of ``ratio`` x ``ratio`` bilinear samples; 0 takes as many as cover the bin.
    ``shift`` is taken from coordinates after scaling: 0.5 lets pixels be areas.
    """

    size: tuple[int, int]
    scale: float = 1.0
    ratio: int = 0
    maximum: bool = False
    shift: float = 0.5

    name: ClassVar[str] = "roi_align"
    operands: ClassVar[tuple[str, ...]] = ("x", "regions", "batch")

    def infer(self, x: TensorType, regions: TensorType, batch: TensorType) -> tuple[TensorType, ...]:
        if x.rank != 4 or regions.rank != 2 or regions.shape[1] != 4 or batch.shape != regions.shape[:1]:
            raise ModelError(f"roi_align of {x} with regions {regions} and batch {batch}")
        return (TensorType(x.dtype, (regions.shape[0], x.shape[1], *self.size)),)

    def run(self, x: torch.Tensor, regions: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        pairs = zip(regions * self.scale - self.shift, batch.tolist(), strict=True)
        bins = [self._region(x[int(image)], region.tolist()) for region, image in pairs]
        return torch.stack(bins) if bins else x.new_zeros(0, x.shape[1], *self.size)

    def _region(self, image: torch.Tensor, region: Sequence[float]) -> torch.Tensor:
        x1, y1, x2, y2 = region
        height, width = y2 - y1, x2 - x1
        if not self.shift:
            height, width = max(height, 1.0), max(width, 1.0)
        ys, rows = self._samples(y1, height, self.size[0])
        xs, columns = self._samples(x1, width, self.size[1])
        sampled = self._bilinear(image, ys, xs)
        bins = sampled.reshape(image.shape[0], self.size[0], rows, self.size[1], columns)
        return bins.amax((2, 4)) if self.maximum else bins.mean((2, 4))

    def _samples(self, start: float, extent: float, count: int) -> tuple[torch.Tensor, int]:
        """Coordinates along one axis, and how many belong to a bin."""
        ratio = self.ratio or max(math.ceil(extent / count), 1)
        return start + (torch.arange(count * ratio) + 0.5) * (extent / count / ratio), ratio

    def _bilinear(self, image: torch.Tensor, ys: torch.Tensor, xs: torch.Tensor) -> torch.Tensor:
        """Samples (C, len(ys), len(xs)): weights of the four neighbours, or their largest product for a maximum."""
        parts: list[torch.Tensor] = []
        for (y, wy), (x, wx) in itertools.product(_taps(ys, image.shape[1]), _taps(xs, image.shape[2])):
            parts.append(image[:, y][:, :, x] * (wy[:, None] * wx).to(image.dtype))
        return torch.stack(parts).amax(0) if self.maximum else torch.stack(parts).sum(0)


def _taps(positions: torch.Tensor, size: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Two neighbours of each position and their weights; more than one element outside weighs nothing."""
    inside = (positions >= -1.0) & (positions <= size)
    clipped = positions.clamp(0, size - 1)
    low = clipped.floor()
    high_weight = clipped - low
    high = (low + 1).clamp(max=size - 1)
    return [(low.long(), (1 - high_weight) * inside), (high.long(), high_weight * inside)]


@register_op
@dataclass(frozen=True)
class Col2Im(Op):
    """Windows (N, C * product of kernel, windows) summed into an image (N, C, *size), then freed of its padding."""

    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: Padding
    dilation: tuple[int, ...]

    name: ClassVar[str] = "col2im"
    operands: ClassVar[tuple[str, ...]] = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        batch, rows, windows = x.static_shape
        if rows % math.prod(self.kernel) or windows != math.prod(self._extents()):
            raise ModelError(f"col2im of {x} into {list(self.size)} by windows of {list(self.kernel)}")
        return (TensorType(x.dtype, (batch, rows // math.prod(self.kernel), *self.size)),)

    def _extents(self) -> list[int]:
        """Windows along each axis."""
        axes = zip(self.size, self.kernel, self.stride, self.padding, self.dilation, strict=True)
        return [(n + sum(p) - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]

    def run(self, x: torch.Tensor) -> torch.Tensor:
        padded = [n + sum(p) for n, p in zip(self.size, self.padding, strict=True)]
        place = torch.zeros((1, 1), dtype=torch.int64)
        axes = zip(padded, self._extents(), self.kernel, self.stride, self.dilation, strict=True)
        for size, extent, kernel, stride, dilation in axes:
            along = torch.arange(kernel)[:, None] * dilation + torch.arange(extent) * stride
            place = place[:, None, :, None] * size + along[None, :, None, :]
            place = place.reshape(place.shape[0] * kernel, -1)
        columns = x.reshape(x.shape[0], -1, place.numel())
        flat = columns.new_zeros(*columns.shape[:2], math.prod(padded))
        flat.index_add_(2, place.reshape(-1), columns)
        image = flat.reshape(*columns.shape[:2], *padded)
        for axis, (size, (before, _)) in enumerate(zip(self.size, self.padding, strict=True)):
            image = image.narrow(2 + axis, before, size)
        return image.contiguous()


@register_op
@dataclass(frozen=True)
class DeformConv(Op):
    """Convolution whose taps are moved by ``offset`` and weighed by ``mask`` (Dai et al., 2017; Zhu et al., 2019).

    ``offset`` (N, offset_groups * taps * 2, *outputs) holds (y, x) for each tap; ``mask`` (N, offset_groups * taps,
    *outputs). Elements outside the image are 0.
    """

    stride: tuple[int, int]
    padding: Padding
    dilation: tuple[int, int]
    groups: int = 1
    offset_groups: int = 1

    name: ClassVar[str] = "deform_conv"
    operands: ClassVar[tuple[str, ...]] = ("x", "weight", "offset", "bias", "mask?")

    def infer(
        self, x: TensorType, weight: TensorType, offset: TensorType, bias: TensorType, mask: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        outputs, inputs, *kernel = weight.static_shape
        taps = math.prod(kernel)
        if x.rank != 4 or x.shape[1] != inputs * self.groups or offset.shape[1] != 2 * taps * self.offset_groups:
            raise ModelError(f"deform_conv of {x} with weight {weight} and offset {offset}")
        if mask is not None and mask.shape[1] != taps * self.offset_groups:
            raise ModelError(f"deform_conv with mask {mask}")
        return (TensorType(x.dtype, (x.shape[0], outputs, *offset.shape[2:])),)

    def run(
        self,
        x: torch.Tensor,
        weight: torch.Tensor,
        offset: torch.Tensor,
        bias: torch.Tensor,
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        batch, channels = x.shape[:2]
        rows, columns = weight.shape[2:]
        high, wide = offset.shape[2:]
        taps, groups = rows * columns, self.offset_groups
        moved = offset.reshape(batch, groups, taps, 2, high, wide)
        base_y = torch.arange(high) * self.stride[0] - self.padding[0][0]
        base_x = torch.arange(wide) * self.stride[1] - self.padding[1][0]
        tap_y = torch.arange(rows).repeat_interleave(columns) * self.dilation[0]
        tap_x = torch.arange(columns).repeat(rows) * self.dilation[1]
        y = moved[:, :, :, 0] + (tap_y[:, None, None] + base_y[None, :, None])
        z = moved[:, :, :, 1] + (tap_x[:, None, None] + base_x[None, None, :])
        # grid_sample counts from -1 to 1 between the corner elements.
        grid = torch.stack([z * 2 / max(x.shape[3] - 1, 1) - 1, y * 2 / max(x.shape[2] - 1, 1) - 1], -1)
        images = x.reshape(batch * groups, channels // groups, *x.shape[2:])
        flat = grid.reshape(batch * groups, taps * high, wide, 2).to(x.dtype)
        sampled = F.grid_sample(images, flat, "bilinear", "zeros", align_corners=True)
        sampled = sampled.reshape(batch, groups, channels // groups, taps, high, wide)
        if mask is not None:
            sampled = sampled * mask.reshape(batch, groups, 1, taps, high, wide)
        patches = sampled.reshape(batch, self.groups, channels // self.groups * taps, high * wide)
        kernels = weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        return torch.matmul(kernels, patches).reshape(batch, -1, high, wide) + bias.reshape(-1, 1, 1)
