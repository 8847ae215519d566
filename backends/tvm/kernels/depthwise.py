"""Depthwise convolution: every channel has its own filter. No tvm.

Taps are multiplied several at once: the bytes of four taps (two on plain AVX2) of a channel come side by side and
meet one dot-product instruction. The taps taken together lie in one column of the kernel, so that what was brought
together for one output pixel serves its neighbours in the row, and the output rows below in the same tile.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from ..isa import Isa
from .base import CACHE_LINE, Arg, Array, KernelSpec, StridedView
from .division import MOST_TASKS, best_division, parts, sizes
from .epilogue import Epilogue

#: Above this many taps the kernel's columns are a loop, not unrolled.
UNROLLED_TAPS = 64

DotKind = Literal["vnni", "pmaddwd", "sdot", "smlal"]


@dataclass(frozen=True)
class DepthwiseSpec(KernelSpec):
    """A depthwise convolution with one output channel for each input channel, over an already padded image.

    `input` describes the padded image from its first byte, `output` the result. Element (n, h, w, c) of the output
    reads channel c of the image from row ``h * stride_h``, column ``w * stride_w`` on. `full_range` says that weights
    may be -128, which costs the `neon` level some instructions. `tile`, rows and pixels, replaces the one that the cost
    model chooses.

    `pack` takes weight int8[channels, 1, kernel_h, kernel_w], bias int32[channels], x_zero_point (stored domain) and
    what `Epilogue.pack` takes.
    """

    batch: int
    out_h: int
    out_w: int
    channels: int
    input: StridedView
    output: StridedView
    kernel_h: int
    kernel_w: int
    stride_h: int = 1
    stride_w: int = 1
    dilation_h: int = 1
    dilation_w: int = 1
    full_range: bool = False
    epilogue: Epilogue = field(default_factory=Epilogue)
    tile: tuple[int, int] | None = None

    @property
    def args(self) -> tuple[Arg, ...]:
        return (
            Arg("x", "act", "in"),
            Arg("weight", "int8", "const"),
            *self.epilogue.args,
            Arg("out", self.epilogue.out_dtype, "out"),
        )

    def tasks(self, isa: Isa) -> int:
        return plan_depthwise(self, isa).tasks

    @property
    def macs(self) -> int:
        return self.batch * self.out_h * self.out_w * self.channels * self.kernel_h * self.kernel_w

    def instruction(self, isa: Isa) -> str:
        return plan_depthwise(self, isa).kind

    def alternatives(self, isa: Isa) -> tuple[KernelSpec, ...]:
        _, *others = sorted(_tilings(self, isa), key=_cost)
        return tuple(replace(self, tile=(plan.rows, plan.pixels)) for plan in others)

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        plan = plan_depthwise(self, isa)
        weight = arrays["weight"].reshape(self.channels, self.kernel_h, self.kernel_w)
        bias = arrays["bias"].astype("int64") - int(arrays["x_zero_point"]) * weight.astype("int64").sum(axis=(1, 2))
        order = plan.channel_order()
        spread = {**arrays, "multiplier": _picked(arrays["multiplier"], order)} if "multiplier" in arrays else arrays
        wrapped = _picked(bias.astype("uint32").view("int32"), order)
        packed = self.epilogue.pack(isa, order.size, wrapped, spread)
        return {"weight": _pack_weights(plan, weight), **packed}

    def over_read(self, isa: Isa) -> dict[str, int]:
        plan = plan_depthwise(self, isa)
        missing = max(0, plan.width - plan.geometry.channels)
        return {"x": missing, "residual": missing} if self.epilogue.residual is not None else {"x": missing}


@dataclass(frozen=True)
class Axis:
    """One spatial axis: `count` outputs, the kernel along it, and distances between units in x, output and residual."""

    count: int
    kernel: int
    stride: int
    dilation: int
    x: int
    out: int
    residual: int


@dataclass(frozen=True)
class Geometry:
    """The convolution as it is computed: the kernel's columns run along `h`, which is the image's width if it is 1-d.

    `fold` neighbouring pixels count as one pixel of so many times the channels, which may fill blocks better.
    """

    batch: int
    channels: int
    fold: int
    swapped: bool
    h: Axis
    w: Axis


@dataclass(frozen=True)
class DepthwisePlan:
    """How a depthwise convolution is cut: tiles of `rows` x `pixels` outputs x `width` channels.

    The last tile of each axis, and the last channel block, overlap the one before, so that there is one tile size.
    `taps` are the offsets, in rows of the image, that a tile reads in every column, in groups of `group`. A task is
    `chunk_blocks` channel blocks of `chunk_tiles` tiles of a row of them.
    """

    geometry: Geometry
    kind: DotKind
    vectors: int
    lanes: int
    rows: int
    pixels: int
    rolled: bool
    chunk_blocks: int = 1
    chunk_tiles: int = 1

    @property
    def group(self) -> int:
        """Taps of one dot product."""
        return {"vnni": 4, "pmaddwd": 2, "sdot": 4, "smlal": 1}[self.kind]

    @property
    def width(self) -> int:
        """Channels of a block."""
        return self.vectors * self.lanes

    @property
    def blocks(self) -> int:
        return -(-self.geometry.channels // self.width)

    @property
    def row_tiles(self) -> int:
        return -(-self.geometry.h.count // self.rows)

    @property
    def pixel_tiles(self) -> int:
        return -(-self.geometry.w.count // self.pixels)

    @property
    def channel_chunks(self) -> int:
        """Tasks along the channels."""
        return -(-self.blocks // self.chunk_blocks)

    @property
    def stretches(self) -> int:
        """Tasks along a row of tiles."""
        return -(-self.pixel_tiles // self.chunk_tiles)

    @property
    def tasks(self) -> int:
        return self.geometry.batch * self.row_tiles * self.stretches * self.channel_chunks

    @property
    def bytes_read(self) -> int:
        """Bytes of the image that a task reads for one row of tiles: again for each channel block, by whole lines."""
        w = self.geometry.w
        columns = (self.chunk_tiles * self.pixels - 1) * w.stride + (w.kernel - 1) * w.dilation + 1
        return len(self.taps) * columns * min(self.geometry.channels, self.chunk_blocks * self.width)

    @property
    def taps(self) -> list[int]:
        """The image rows that a tile touches, relative to its first."""
        h = self.geometry.h
        return sorted({row * h.stride + k * h.dilation for row in range(self.rows) for k in range(h.kernel)})

    @property
    def columns(self) -> list[int]:
        """The columns that a tile touches, relative to its first."""
        w = self.geometry.w
        return sorted({pixel * w.stride + k * w.dilation for pixel in range(self.pixels) for k in range(w.kernel)})

    @property
    def kept(self) -> list[int]:
        """Those of them that sdot need not bring together, since the tile before did."""
        w, columns = self.geometry.w, self.columns
        if self.kind != "sdot" or self.rolled or w.count % self.pixels or self.pixel_tiles == 1:
            return []
        return [column for column in columns if column + self.pixels * w.stride in columns]

    @property
    def groups(self) -> int:
        """Dot products of one column."""
        return -(-len(self.taps) // self.group)

    def groups_of(self, row: int) -> list[int]:
        """The dot products of one column that a row of the tile has taps in."""
        h, taps = self.geometry.h, self.taps
        return sorted({taps.index(row * h.stride + k * h.dilation) // self.group for k in range(h.kernel)})

    def slots_of(self, row: int, group: int) -> tuple[int | None, ...]:
        """For every tap of a dot product the row of the kernel that a row of the tile has there."""
        h = self.geometry.h
        kernel = {row * h.stride + k * h.dilation: k for k in range(h.kernel)}
        taps = self.taps[group * self.group : (group + 1) * self.group]
        return tuple(kernel.get(tap) for tap in taps) + (None,) * (self.group - len(taps))

    @functools.cached_property
    def slots(self) -> list[tuple[int | None, ...]]:
        """All `slots_of` dot products of a column, once each: rows that are apart by whole groups have the same."""
        found = [self.slots_of(row, group) for row in range(self.rows) for group in self.groups_of(row)]
        return list(dict.fromkeys(found))

    def resident(self, registers: int) -> bool:
        """Whether weights are best loaded before the loop over tiles: they fit the registers, or it is long for some.

        The others are then stored on the stack, which takes as long as a few tiles.
        """
        needed = len(self.slots) * self.geometry.w.kernel * self.vectors
        return needed <= registers // 2 or (registers == 32 and self.chunk_tiles > FEW_TILES)

    @property
    def block_weights(self) -> int:
        """Weights of one channel block."""
        return self.geometry.w.kernel * len(self.slots) * self.group * self.width

    def block_start(self, block: int) -> int:
        """The first channel of a block; the last one ends with the channels, if they fill it."""
        return max(0, min(block * self.width, self.geometry.channels - self.width))

    def channel_order(self) -> Array:
        """For every vector lane of every block its channel in the specification, or -1 for none.

        Unpacking interleaves: lane l of vector v in a block holds channel ``l // 4 * 4 V + 4 v + l % 4``.
        """
        lane, v = np.arange(self.lanes), np.arange(self.vectors)[:, None]
        inside = (lane // 4 * 4 * self.vectors + 4 * v + lane % 4).reshape(-1)
        starts = np.array([self.block_start(block) for block in range(self.blocks)])
        found = starts[:, None] + inside
        own = self.geometry.channels // self.geometry.fold
        return np.where(found < self.geometry.channels, found % own, -1).reshape(-1)


def _picked(values: Array, order: Array) -> Array:
    """Values in that order; zero for -1."""
    return np.append(values.reshape(-1), values.dtype.type(0))[order]


def _pack_weights(plan: DepthwisePlan, weight: Array) -> Array:
    """[block][kernel column][slots][vector][lane][tap of the group]; int16 for pmaddwd."""
    geometry = plan.geometry
    if geometry.swapped:
        weight = weight.transpose(0, 2, 1)
    order = plan.channel_order().reshape(plan.blocks, plan.vectors, plan.lanes)
    columns = np.zeros((geometry.w.kernel, len(plan.slots), plan.group, weight.shape[0] + 1), "int8")
    for at, slots in enumerate(plan.slots):
        for slot, k in enumerate(slots):
            if k is not None:
                columns[:, at, slot, :-1] = weight[:, k, :].T
    packed = columns[..., order].transpose(3, 0, 1, 4, 5, 2)
    dtype = "int16" if plan.kind == "pmaddwd" else "int8"
    return np.ascontiguousarray(packed, dtype).reshape(-1).view("int8")


# Cutting -----------------------------------------------------------------------------------------------------------


_KINDS: dict[str, DotKind] = {
    "avx2": "pmaddwd",
    "avxvnni": "vnni",
    "avx512vnni": "vnni",
    "amx": "vnni",
    "neon": "smlal",
    "dotprod": "sdot",
    "i8mm": "sdot",
}
#: Vectors of weights that stay in registers on ARM.
RESIDENT = 12
#: Instructions around a tile of sdot, and sums of it that leave registers for the weights.
AROUND, SMALL = 6, 8
#: What it costs that one pixel is finished while others hold some of sixteen registers.
SPILLED = 1.1
#: What it costs that two tasks write a line of the cache, in lines that one computes, for cores hand it back and forth;
#: and the share of such lines from which on a division is no use.
SHARED_LINE, MOST_SHARED = 3, 0.1
#: Tiles of a task where it has several channel blocks: to begin one costs as much as a tile.
FEWEST_TILES = 12
#: What a task should read: it stays in the first-level cache while other channels of the same lines are read.
NEAR = 28_000
#: Tiles of a loop for which it is not worth loading weights before, where only some of them stay in registers.
FEW_TILES = 8
#: Pixels that count as one where a block has no room for two. Of four each column would serve one pixel alone.
MOST_FOLDED = 2
#: Channel vectors of a block. On ARM the weights of two stay in registers, on x86 four are brought together at once.
_VECTORS: dict[DotKind, int] = {"vnni": 4, "pmaddwd": 2, "sdot": 2, "smlal": 4}
#: Outputs of a tile at most: columns are brought together for more outputs, but accumulators must share the registers
#: with operands, and on ARM with weights.
_TILE_OUTPUTS = {"avx2": 4, "avxvnni": 2, "avx512vnni": 4, "amx": 4, "neon": 4, "dotprod": 8, "i8mm": 8}


@functools.cache
def plan_depthwise(spec: DepthwiseSpec, isa: Isa) -> DepthwisePlan:
    """Cut a depthwise convolution into tiles and tasks for one ISA level."""
    tilings = _tilings(spec, isa)
    if spec.tile is not None:
        return _divided(next(plan for plan in tilings if (plan.rows, plan.pixels) == spec.tile))
    return _divided(min(tilings, key=_cost))


def _divided(plan: DepthwisePlan) -> DepthwisePlan:
    """The plan with each row of tiles divided into tasks along its pixels or along the channels."""
    whole = replace(plan, chunk_blocks=plan.blocks, chunk_tiles=plan.pixel_tiles)
    fewest = FEWEST_TILES if plan.blocks > 1 else 1
    options = [replace(whole, chunk_tiles=some) for some in parts(plan.pixel_tiles) if some >= fewest]
    channels = [replace(whole, chunk_blocks=some) for some in parts(plan.blocks)]
    options += [option for option in channels if _shared_lines(option) <= MOST_SHARED]
    few = [option for option in options if option.tasks <= MOST_TASKS] or [whole]
    few = [option for option in few if option.bytes_read <= NEAR] or few
    return best_division(((option, _task_costs(option)) for option in few), _block_tiles(whole))


def _block_tiles(plan: DepthwisePlan) -> int:
    return plan.geometry.batch * plan.row_tiles * plan.pixel_tiles * plan.blocks


def _task_costs(plan: DepthwisePlan) -> list[float]:
    tiles, blocks = sizes(plan.pixel_tiles, plan.chunk_tiles), sizes(plan.blocks, plan.chunk_blocks)
    dearer = 1 + SHARED_LINE * _shared_lines(plan)
    return [some * others * dearer for some in tiles for others in blocks] * (plan.geometry.batch * plan.row_tiles)


def _shared_lines(plan: DepthwisePlan) -> float:
    """The share of the output's cache lines that two tasks write, because channels are divided within a line."""
    geometry, chunk = plan.geometry, plan.chunk_blocks * plan.width
    if all(place % CACHE_LINE == 0 for place in (chunk, geometry.channels, geometry.w.out, geometry.h.out)):
        return 0
    return (plan.channel_chunks - 1) / max(1, geometry.channels / CACHE_LINE)


def _tilings(spec: DepthwiseSpec, isa: Isa) -> list[DepthwisePlan]:
    """With every tile that fits the registers, where the cheapest folds as many pixels."""
    options = [
        plan for fold in _folds(spec, _VECTORS[_KINDS[isa.name]] * isa.lanes) for plan in _tiles(spec, isa, fold)
    ]
    fold = min(options, key=_cost).geometry.fold
    return [plan for plan in options if plan.geometry.fold == fold]


def _tiles(spec: DepthwiseSpec, isa: Isa, fold: int) -> list[DepthwisePlan]:
    """Every tile that fits the registers; only single outputs where the taps are a loop."""
    kind = _KINDS[isa.name]
    vectors, limit = _VECTORS[kind], _TILE_OUTPUTS[isa.name]
    geometry = _geometry(spec, fold, kind)
    taps = geometry.h.kernel * geometry.w.kernel
    plan = DepthwisePlan(geometry, kind, vectors, isa.lanes, 1, 1, rolled=taps > UNROLLED_TAPS)
    if plan.rolled:
        return [plan]
    return [
        replace(plan, rows=rows, pixels=pixels)
        for rows in range(1, min(1 if kind == "smlal" else limit, geometry.h.count) + 1)
        for pixels in range(1, min(limit // rows, geometry.w.count) + 1)
    ]


def _cost(plan: DepthwisePlan) -> float:
    """Instructions, roughly: bringing columns together, dot products, epilogue."""
    geometry, v = plan.geometry, plan.vectors
    column = len(plan.taps) + plan.groups * {"vnni": 8, "pmaddwd": 2, "sdot": 4, "smlal": 0}[plan.kind]
    dot = {"vnni": 1, "pmaddwd": 2, "sdot": 1, "smlal": 2}[plan.kind]
    products = sum(len(plan.groups_of(row)) for row in range(plan.rows)) * geometry.w.kernel
    if plan.kind == "sdot" and products * v > RESIDENT:
        dot = 2
    one = (len(plan.columns) - len(plan.kept)) * column + plan.pixels * v * (products * dot + 6 * plan.rows)
    if plan.kind == "sdot":
        one += AROUND + 2 * max(0, plan.rows * plan.pixels * v - SMALL)
    row = plan.pixel_tiles * one + len(plan.kept) * column
    return plan.blocks * plan.row_tiles * row * (SPILLED if plan.kind == "pmaddwd" and plan.pixels > 1 else 1)


def _geometry(spec: DepthwiseSpec, fold: int, kind: DotKind) -> Geometry:
    residual = spec.epilogue.residual or StridedView(0, 0, 0)
    h = Axis(spec.out_h, spec.kernel_h, spec.stride_h, spec.dilation_h, spec.input.row, spec.output.row, residual.row)
    w = Axis(
        spec.out_w, spec.kernel_w, spec.stride_w, spec.dilation_w, spec.input.pixel, spec.output.pixel, residual.pixel
    )
    if fold > 1:
        w = replace(w, count=w.count // fold, stride=fold, out=w.out * fold, residual=w.residual * fold)
    swapped = spec.kernel_h == 1 and spec.kernel_w > 1 and kind != "smlal"
    if swapped:
        h, w = w, h
    return Geometry(spec.batch, spec.channels * fold, fold, swapped, h, w)


def _folds(spec: DepthwiseSpec, width: int) -> list[int]:
    """Numbers of neighbouring pixels to count as one, so that less of the last block of `width` channels is empty.

    Possible where their bytes are contiguous on both sides.
    """
    views = [spec.input, spec.output, *([spec.epilogue.residual] if spec.epilogue.residual is not None else [])]
    if spec.stride_w != 1 or any(view.pixel != spec.channels for view in views):
        return [1]
    found: list[int] = []
    least = float("inf")
    for fold in range(1, max(MOST_FOLDED, width // spec.channels) + 1):
        lanes = -(-spec.channels * fold // width) * width / fold
        if spec.out_w % fold == 0 and lanes < least:
            found.append(fold)
            least = lanes
    return found
