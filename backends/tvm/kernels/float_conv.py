"""Float32 convolution, linear layers and matrix products: fused multiply-adds in sequential order of K. No tvm."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec, StridedView
from .strided import TASKS

#: A register tile: output pixels by vectors of channels.
TILE_PIXELS, TILE_VECTORS = 6, 2


@dataclass(frozen=True)
class FloatConvSpec(KernelSpec):
    """A float32 convolution over an already padded NHWC image; every count is per image and, for channels, per group.

    Element (n, h, w) of the output reads the image from row ``h * stride_h``, column ``w * stride_w`` on. With k in the
    order kernel row, kernel column, input channel: ``t = fma(x_k, w_k, ... fma(x_0, w_0, bias))``, then
    ``t + residual``, then ``min(max(t, lo), hi)``, where NaN passes. Views are in elements. A single channel in and out
    of each group is a depthwise convolution, with its channels in the lanes of vectors.

    `pack` takes weight float32[groups * out_channels, in_channels, kernel_h, kernel_w], and optionally bias
    float32[groups * out_channels], lo and hi.
    """

    batch: int
    out_h: int
    out_w: int
    in_channels: int
    out_channels: int
    input: StridedView
    output: StridedView
    kernel_h: int = 1
    kernel_w: int = 1
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    groups: int = 1
    residual: StridedView | None = None

    @staticmethod
    def linear(
        rows: int, depth: int, columns: int, *, row_stride: int | None = None, out_stride: int | None = None
    ) -> FloatConvSpec:
        """`rows` x `depth` times constant weights, packed from (columns, depth, 1, 1): a 1x1 convolution."""
        step, out = row_stride or depth, out_stride or columns
        source, target = StridedView(rows * step, rows * step, step), StridedView(rows * out, rows * out, out)
        return FloatConvSpec(1, 1, rows, depth, columns, source, target)

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "float32", "in"),
            Arg("weight", "float32", "const"),
            Arg("bias", "float32", "const"),
            Arg("bounds", "float32", "const"),
            *([Arg("residual", "float32", "in")] if self.residual is not None else []),
            Arg("out", "float32", "out"),
        )

    @property
    def depthwise(self) -> bool:
        return self.groups > 1 and self.in_channels == self.out_channels == 1

    @property
    def macs(self) -> int:
        depth = self.in_channels * self.kernel_h * self.kernel_w
        return self.batch * self.out_h * self.out_w * self.groups * self.out_channels * depth

    def instruction(self, isa: Isa) -> str:
        return "fma"

    def tasks(self, isa: Isa) -> int:
        return plan_float_conv(self, isa).tasks

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        plan = plan_float_conv(self, isa)
        weight = arrays["weight"].reshape(plan.groups, plan.channels, -1, self.kernel_h, self.kernel_w)
        rows = weight.transpose(0, 3, 4, 2, 1).reshape(plan.groups, -1, plan.channels)
        bias = arrays.get("bias", np.zeros(plan.groups * plan.channels)).reshape(plan.groups, plan.channels)
        blocks = [_widened(rows, plan.block_start(number), plan.width) for number in range(plan.blocks)]
        biases = [_widened(bias, plan.block_start(number), plan.width) for number in range(plan.blocks)]
        bounds = np.array([arrays.get("lo", -np.inf), arrays.get("hi", np.inf)], "float32")
        return {
            "weight": np.ascontiguousarray(np.stack(blocks, 1), "float32").reshape(-1),
            "bias": np.ascontiguousarray(np.stack(biases, 1), "float32").reshape(-1),
            "bounds": bounds,
        }

    def over_read(self, isa: Isa) -> dict[str, int]:
        slack = 4 * plan_float_conv(self, isa).width
        return {"x": slack, "residual": slack} if self.residual is not None else {"x": slack}


def _widened(values: Array, start: int, width: int) -> Array:
    """Columns [start, start + width) of the last axis, zero where there are none."""
    part = values[..., start : start + width]
    return np.pad(part, [(0, 0)] * (part.ndim - 1) + [(0, width - part.shape[-1])])


@dataclass(frozen=True)
class FloatConvPlan:
    """How a float convolution is cut: tiles of `pixels` of a row by `width` channels, the last ones moved back.

    A depthwise convolution counts as one group, whose `depth` is that of a single channel.
    """

    batch: int
    rows: int
    columns: int
    groups: int
    channels: int
    depth: int
    pixels: int
    vectors: int
    width: int
    pixel_chunks: int
    block_chunks: int

    @property
    def blocks(self) -> int:
        return -(-self.channels // self.width)

    @property
    def tiles(self) -> int:
        return -(-self.columns // self.pixels)

    @property
    def tasks(self) -> int:
        return self.batch * self.rows * self.groups * self.block_chunks * self.pixel_chunks

    def block_start(self, number: int) -> int:
        """The first channel of a block."""
        return max(0, min(number * self.width, self.channels - self.width))


@functools.cache
def plan_float_conv(spec: FloatConvSpec, isa: Isa) -> FloatConvPlan:
    """Cut a float convolution for one ISA level."""
    groups, channels, depth = spec.groups, spec.out_channels, spec.in_channels
    if spec.depthwise:
        groups, channels = 1, spec.groups
    return cut(isa, spec.batch, spec.out_h, spec.out_w, groups, channels, depth * spec.kernel_h * spec.kernel_w)


def cut(isa: Isa, batch: int, rows: int, columns: int, groups: int, channels: int, depth: int) -> FloatConvPlan:
    """Tiles and tasks for a product of that many rows, columns (pixels) and channels."""
    vectors = min(TILE_VECTORS, -(-channels // isa.lanes))
    pixels = min(TILE_PIXELS, columns)
    width = vectors * isa.lanes
    tiles, blocks = -(-columns // pixels), -(-channels // width)
    pixel_chunks = tiles if batch * rows * groups < TASKS else 1
    block_chunks = blocks if batch * rows * groups * pixel_chunks < TASKS else 1
    return FloatConvPlan(
        batch, rows, columns, groups, channels, depth, pixels, vectors, width, pixel_chunks, block_chunks
    )


@dataclass(frozen=True)
class FloatMatmulSpec(KernelSpec):
    """`batch` products of two float32 matrices known only at run time: (rows, depth) times (depth, columns).

    Strides are in elements; those of x and out are (batch, row), those of y (batch, row of depth); elements of a row
    are contiguous, and a batch stride may be 0. ``t = fma(x_k, y_k, ... fma(x_0, y_0, 0))`` in order of k.
    """

    batch: int
    rows: int
    depth: int
    columns: int
    x_strides: tuple[int, int] | None = None
    y_strides: tuple[int, int] | None = None
    out_strides: tuple[int, int] | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        return (Arg("x", "float32", "in"), Arg("y", "float32", "in"), Arg("out", "float32", "out"))

    @property
    def macs(self) -> int:
        return self.batch * self.rows * self.depth * self.columns

    def instruction(self, isa: Isa) -> str:
        return "fma"

    def tasks(self, isa: Isa) -> int:
        return self.plan(isa).tasks

    def plan(self, isa: Isa) -> FloatConvPlan:
        """Rows of x are the pixels of one line, columns of y the channels."""
        return cut(isa, self.batch, 1, self.rows, 1, self.columns, self.depth)

    def over_read(self, isa: Isa) -> dict[str, int]:
        return {"y": 4 * self.plan(isa).width}
