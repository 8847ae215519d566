"""3x3 convolutions by Winograd's minimal filtering, in integers and exact. No tvm.

Tiles of `size` x `size` results are computed from ``size + 2`` squared input pixels with as many multiplications, 2.25
or 4 times fewer than direct convolution takes (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
2015). The fractions of the filter transform become integers by one factor for each of its rows, which the transform of
the results evens out: these are then `Region.total` times the convolution. Every step but the first is arithmetic
modulo 2**32, so only the final result has to fit, and `exact` proves from the weights that it does. What is multiplied
has 16 bits: where an instruction multiplies bytes much faster than words there is little to gain.

Tiles are numbered, and cut into groups. A task transforms the patches of a group and, for a block of channels at a
time, multiplies them by transformed filters and transforms the products. Tiles of two shapes have some points in
common, and are multiplied together there (`Band`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..isa import ISAS, Isa
from .base import CACHE_LINE, Arg, Array, KernelSpec, round_up
from .conv import ConvSpec
from .conv_plan import plan_conv
from .division import MOST_TASKS, THREADS, parts
from .tiling import MOST_UNITS, MOST_VECTORS, STREAMED, Dot, word_dot
from .winograd_tiles import TRANSFORMS, Band, Region, Transform, bands, cover, power_of_two

#: Who transforms filters: `pack`, which stores them as words; or the kernel, from bytes. That stages the filters of a
#: block of channels for a pair of rows of points in memory, or fuses transforms and products: the filters of a row of
#: points stay in registers, for a few tiles, and are transformed anew for the next ones.
Filters = Literal["stored", "staged", "fused"]


@dataclass(frozen=True)
class WinogradSpec(KernelSpec):
    """The 3x3 convolution `conv`, of stride 1 and a single group, by tiles of `size` x `size` results.

    Where one or two rows or columns of results are left, tiles there have two. `pack` takes the same arrays; ``weight``
    holds words where `filters` are stored, and bytes otherwise.
    """

    conv: ConvSpec
    size: int
    filters: Filters = "stored"

    @property
    def transform(self) -> Transform:
        """That of the largest tiles."""
        return TRANSFORMS[self.size]

    @property
    def points(self) -> int:
        """Points of the largest tiles."""
        return self.transform.patch**2

    @property
    def args(self) -> tuple[Arg, ...]:
        x, weight, *rest = self.conv.args
        plans = [plan_winograd(self, isa) for isa in ISAS.values() if self.filters in filters_of(isa)]
        stage = Arg("filters", "int16", "scratch", max(plan.stage_bytes for plan in plans))
        return (
            x,
            weight,
            Arg("patches", "int16", "scratch", max(plan.patch_bytes for plan in plans)),
            *([stage] if self.filters == "staged" else []),
            Arg("products", "int32", "scratch", max(plan.product_bytes for plan in plans)),
            *rest,
        )

    def tasks(self, isa: Isa) -> int:
        plan = plan_winograd(self, isa)
        return plan.groups * plan.chunks

    @property
    def macs(self) -> int:
        return self.conv.macs

    def instruction(self, isa: Isa) -> str:
        return self.conv.instruction(isa)

    def alternatives(self, isa: Isa) -> tuple[KernelSpec, ...]:
        # What is exact for large tiles is so for small ones: their results are smaller multiples of the convolution's.
        smaller = [replace(self, size=size) for size in TRANSFORMS if size < self.size]
        others = [replace(self, filters=form) for form in filters_of(isa) if form != self.filters]
        return (self.conv, *others, *smaller, *self.conv.alternatives(isa)[:1])

    @functools.cached_property
    def regions(self) -> tuple[Region, ...]:
        """All tiles."""
        return cover(self.conv.batch, self.conv.out_h, self.conv.out_w, self.size)

    @property
    def tiles(self) -> int:
        """Tiles of all images."""
        return self.regions[-1].end

    @functools.cached_property
    def bands(self) -> tuple[Band, ...]:
        """All points, by the tiles that have them and by the rows whose filters are ready at once."""
        match self.filters:
            case "stored":
                return bands(self.regions)
            case "staged":
                return bands(self.regions, rows=2)
            case "fused":
                return bands(self.regions, rows=1, whole=True)

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        plan = plan_winograd(self, isa)
        taps = arrays["weight"].transpose(2, 3, 1, 0)
        if self.filters == "stored":
            factors = np.array(self.transform.filter, "int32")
            taps = np.einsum("ia,abco,jb->ijco", factors, taps.astype("int32"), factors).astype("int16")
        full = np.zeros((taps.shape[0] * taps.shape[1], plan.depth, plan.blocks * plan.width), taps.dtype)
        full[:, : taps.shape[2], : taps.shape[3]] = taps.reshape(-1, *taps.shape[2:])
        steps = full.reshape(len(full), plan.depth // plan.dot.step, plan.dot.step, plan.blocks, plan.width)
        blocks = steps.transpose(3, 0, 1, 4, 2) if plan.dot.unit == 2 else steps.transpose(3, 0, 1, 2, 4)
        packed = blocks.reshape(plan.blocks, len(full), -1)
        match self.filters:
            case "stored":
                weight: Array = np.pad(packed, ((0, 0), (0, 0), (0, plan.filter_step - packed.shape[2])))
            case "staged":
                weight = packed.reshape(plan.blocks, len(full), -1, 2 * isa.lanes).transpose(0, 2, 1, 3)
            case "fused":
                weight = _interleaved(packed.reshape(plan.blocks, 3, 3, -1, 2 * isa.lanes))
        return {
            "weight": np.ascontiguousarray(weight).reshape(-1).view("int8"),
            **self.conv.pack_epilogue(plan.blocks * plan.width, isa, arrays),
        }

    def over_read(self, isa: Isa) -> dict[str, int]:
        return dict.fromkeys(self.conv.over_read(isa), 64)


def _interleaved(taps: Array) -> Array:
    """Filters int8[blocks, 3, 3, steps, lanes] as the fused kernel reads them: int8[blocks, steps, 9 lanes].

    Of each column the first and the last tap, which all rows of points take with factors of one sign, byte by byte;
    then the middle taps, those of the first two columns byte by byte.
    """
    top, middle, bottom = (taps[:, row].swapaxes(1, 2) for row in range(3))
    outer = np.stack([top, bottom], axis=-1)
    inner = np.stack([middle[:, :, 0], middle[:, :, 1]], axis=-1)
    parts = [outer.reshape(*top.shape[:2], -1), inner.reshape(*top.shape[:2], -1), middle[:, :, 2]]
    return np.concatenate(parts, axis=-1)


@dataclass(frozen=True)
class WinogradPlan:
    """How it is cut: `groups` of `group_tiles` tiles, by `chunks` of `chunk_blocks` blocks of channels.

    A block is `vectors` channel vectors. In band number b a register tile is ``units[b]`` tiles of results by the
    channels of a block, at one point or, where filters are fused, at a row of points. A step of K takes `step_cost` for
    a block and all tiles. There is `room` for more tiles than a group has: those beside the last one that has a point
    are multiplied too, and not used.
    """

    dot: Dot
    vectors: int
    units: tuple[int, ...]
    step_cost: float
    lanes: int
    points: int
    depth: int
    blocks: int
    chunk_blocks: int
    group_tiles: int
    groups: int
    room: int

    @property
    def width(self) -> int:
        """Channels of a block."""
        return self.vectors * self.lanes

    @property
    def chunks(self) -> int:
        return -(-self.blocks // self.chunk_blocks)

    @property
    def patch_step(self) -> int:
        """Words from the patches at one point to those at the next."""
        return _apart(self.room * self.depth, 2)

    @property
    def filter_step(self) -> int:
        """Words from the transformed filters of a block at one point to those at the next."""
        return _apart(self.depth * self.width, 2)

    @property
    def product_step(self) -> int:
        """Products of a block from one point to the next."""
        return _apart(self.room * self.width, 4)

    @property
    def patch_bytes(self) -> int:
        """Transformed patches of one task."""
        return 2 * self.points * self.patch_step

    @property
    def filter_bytes(self) -> int:
        """Transformed filters of all channels."""
        return 2 * self.points * self.blocks * self.filter_step

    @property
    def stage_bytes(self) -> int:
        """Transformed filters of one channel block and one pair of rows."""
        return 2 * 2 * math.isqrt(self.points) * self.filter_step

    @property
    def product_bytes(self) -> int:
        """Products of one task and channel block."""
        return 4 * self.points * self.product_step


def _apart(count: int, size: int) -> int:
    """At least `count` elements of `size` bytes, an odd number of cache lines.

    What is computed at once belongs to all points, and lines of an even distance share few places of a cache.
    """
    return (-(-count * size // CACHE_LINE) | 1) * CACHE_LINE // size


@functools.cache
def plan_winograd(spec: WinogradSpec, isa: Isa) -> WinogradPlan:
    """Cut a convolution for one ISA level: what takes least on few threads, with enough tasks for more.

    Patches are transformed once for each group and thread, filters that are not stored once for each group.
    """
    options = list(_plans(spec, isa))
    enough = min(LEAST_TASKS, max(option.groups * option.chunks for option in options))
    near = [option for option in options if option.patch_bytes <= PATCH_CACHE] or options
    shared = [option for option in near if option.groups * option.chunks >= enough] or near
    return min(shared, key=lambda option: _cycles(spec, isa, option))


def filters_of(isa: Isa) -> tuple[Filters, ...]:
    """The forms of filters that an ISA level has kernels for."""
    dot = word_dot(isa)
    if dot is None:
        return ()
    # A row of points takes 24 accumulators.
    return ("stored", "staged", "fused") if dot.instruction == "vnni" and dot.registers == 32 else ("stored", "staged")


def _plans(spec: WinogradSpec, isa: Isa) -> Iterator[WinogradPlan]:
    dot = word_dot(isa)
    assert dot is not None, f"{isa.name} multiplies bytes much faster than words"
    all_vectors = -(-spec.conv.out_channels // isa.lanes)
    depth = round_up(spec.conv.in_channels, 2 * isa.lanes)
    dot = replace(dot, streamed=dot.weight_bytes * depth * isa.lanes > STREAMED)
    most = 1 if spec.filters == "fused" else min(all_vectors, MOST_VECTORS)
    for share, vectors in itertools.product(parts(spec.tiles), range(1, most + 1)):
        costs = [_tile_costs(band, dot, vectors, spec.filters) for band in spec.bands]
        if not all(costs):
            continue
        blocks = -(-all_vectors // vectors)
        units = tuple(_best_units(spec, band, share, cost) for band, cost in zip(spec.bands, costs, strict=True))
        tiles = min(spec.tiles, round_up(share, max(units)))
        counts, room = _multiplied(spec, tiles, units)
        step_cost = sum(count * cost[unit] for count, cost, unit in zip(counts, costs, units, strict=True))
        for chunk_blocks in parts(blocks):
            plan = WinogradPlan(
                dot=dot,
                vectors=vectors,
                units=units,
                step_cost=step_cost,
                lanes=isa.lanes,
                points=spec.points,
                depth=depth,
                blocks=blocks,
                chunk_blocks=chunk_blocks,
                group_tiles=tiles,
                groups=-(-spec.tiles // tiles),
                room=room,
            )
            if plan.groups * plan.chunks <= MOST_TASKS or share == 1:
                yield plan


@functools.cache
def _tile_costs(band: Band, dot: Dot, vectors: int, filters: Filters) -> dict[int, float]:
    """What a step of K costs at all points of a band, by the tiles in a register tile: all that fit the registers."""
    if filters == "fused":
        columns = len(band.columns)
        return {units: columns * (units + TRANSFORMED) for units in range(1, FUSED // columns + 1)}
    sizes = [units for units in range(1, MOST_UNITS + 1) if dot.fits(units, 1, vectors)]
    return {units: band.points * dot.cost(units, 1, vectors) for units in sizes}


def _best_units(spec: WinogradSpec, band: Band, tiles: int, costs: dict[int, float]) -> int:
    """How many tiles of a band a register tile best takes, in groups of `tiles`."""
    share = -(-(band.end - band.first) * tiles // spec.tiles)
    return min(costs, key=lambda units: -(-share // units) * costs[units])


def _multiplied(spec: WinogradSpec, group_tiles: int, units: Sequence[int]) -> tuple[list[int], int]:
    """Register tiles of each band, of all groups, and how many tiles of a group they reach."""
    begins = np.arange(0, spec.tiles, group_tiles)
    counts, reach = [], group_tiles
    for band, unit in zip(spec.bands, units, strict=True):
        low = np.clip(band.first - begins, 0, group_tiles)
        used = -(-np.maximum(np.minimum(band.end - begins, group_tiles) - low, 0) // unit)
        counts.append(int(used.sum()))
        reach = max(reach, int((low + used * unit).max()))
    return counts, reach


# Costs ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rates:
    """What an ISA level does in a cycle, and ARM with an instruction.

    Multiply-accumulates of bytes, as direct convolutions reach them, and instructions by the count of `Dot.cost`;
    `transforms` is how much longer than x86 it takes for the transforms of a vector.
    """

    direct: float
    words: float
    transforms: float = 1.0


_RATES = {
    "avx2": _Rates(21, 3.0),
    "avxvnni": _Rates(58, 2.3),
    "avx512vnni": _Rates(110, 2.15),
    "neon": _Rates(4.4, 0.96, 2.0),
}
#: Cycles of x86 for the transform of a vector of patches, of filters, and of results, by the points of a tile.
PATCH, FILTER, RESULT = 4.1, 3.3, 5.0
#: Accumulators of a register tile where filters are fused, and what transforming them takes for each column of points.
FUSED, TRANSFORMED = 24, 2.5
#: Filters of more bytes come from further away than the second-level cache, and how many bytes then come in a cycle.
CACHE, NEAR, FAR = 1_500_000, 32, 8
#: What patches of one task may take: they stream from a cache, while filters stay in one.
PATCH_CACHE = 800_000
#: Tasks that a kernel has at least, so that threads share it.
LEAST_TASKS = 8


def _reading(size: int, times: int) -> float:
    """Cycles for reading `size` bytes of filters, which the layers before have displaced."""
    return size / FAR + (times - 1) * size / (NEAR if size <= CACHE else FAR)


def _filters(spec: WinogradSpec, isa: Isa, plan: WinogradPlan) -> float:
    """Cycles for the filters of all groups."""
    if spec.filters == "stored":
        return _reading(plan.filter_bytes, plan.groups)
    words = plan.depth * plan.blocks * plan.width
    if spec.filters == "fused":
        return _reading(9 * words, plan.groups)
    transforms = plan.groups * words / (2 * isa.lanes) * spec.points * FILTER * _RATES[isa.name].transforms
    return _reading(9 * words, plan.groups) + transforms


def _cycles(spec: WinogradSpec, isa: Isa, plan: WinogradPlan) -> float:
    """Processor cycles of a call, on average over some numbers of threads that end together."""
    rates, vectors = _RATES[isa.name], -(-spec.conv.out_channels // isa.lanes)
    points = sum(region.points * region.count for region in spec.regions) * rates.transforms
    work = plan.step_cost * plan.blocks * plan.depth / plan.dot.step / rates.words + points * vectors * RESULT
    work += _filters(spec, isa, plan)
    if spec.filters != "fused":
        work += plan.groups * plan.blocks * plan.patch_bytes / NEAR
    block = work / (plan.groups * plan.blocks)
    patches = points * plan.depth / (2 * isa.lanes) * PATCH / plan.groups
    chunks = [min(plan.chunk_blocks, plan.blocks - first) for first in range(0, plan.blocks, plan.chunk_blocks)]
    tasks = plan.groups * [count * block + patches for count in chunks]
    ends = list(itertools.accumulate(tasks, initial=0.0))
    slowest = 0.0
    for threads in (number for number in THREADS if number > 1):
        edges = [ends[len(tasks) * part // threads] for part in range(threads + 1)]
        slowest += threads * max(end - begin for begin, end in itertools.pairwise(edges))
    alone = plan.groups * (plan.blocks * block + patches)
    return (alone + slowest) / len(THREADS)


@functools.cache
def gain(spec: WinogradSpec, isa: Isa) -> float:
    """How many times faster than the direct kernel."""
    conv, direct = spec.conv, plan_conv(spec.conv, isa)
    filters = 9 * conv.in_channels * conv.out_channels * direct.dot.weight_bytes
    cycles = conv.macs / _RATES[isa.name].direct + _reading(filters, 1)
    return cycles / _cycles(spec, isa, plan_winograd(spec, isa))


# Choosing ------------------------------------------------------------------------------------------------------------

#: Bytes of stored filters of one layer above which the memory they take is not worth the time, and how many times as
#: fast as with filters that are not stored.
MOST_BYTES, LEAST_SAVED = 2_400_000, 1.03
#: What is worth it. Processors that multiply half as fast gain 1.18 where 0.92 is estimated, and 1.4 where it is 1.1.
LEAST_GAIN = 0.9


def choose(conv: ConvSpec, isa: Isa, weight: Array) -> tuple[WinogradSpec | None, float]:
    """The fastest kernel of Winograd's for int8 `weight`, if it is worth it, and how much faster than the direct one.

    That is never below 1, which stands for the direct kernel.
    """
    kernel = (conv.kernel_h, conv.kernel_w, conv.stride_h, conv.stride_w, conv.dilation_h, conv.dilation_w, conv.groups)
    if word_dot(isa) is None or kernel != (3, 3, 1, 1, 1, 1, 1):
        return None, 1.0
    sizes = [size for size, transform in TRANSFORMS.items() if exact(transform, isa, weight)]
    gains: dict[WinogradSpec, float] = {}
    for option in (WinogradSpec(conv, size, form) for size, form in itertools.product(sizes, filters_of(isa))):
        if option.filters != "stored":
            gains[option] = gain(option, isa)
        elif plan_winograd(option, isa).filter_bytes <= MOST_BYTES:
            gains[option] = gain(option, isa) / LEAST_SAVED
    best = max(gains, key=lambda option: gains[option], default=None)
    if best is None or gains[best] < LEAST_GAIN:
        return None, 1.0
    return best, max(1.0, gains[best])


def exact(transform: Transform, isa: Isa, weight: Array) -> bool:
    """Whether every result, a sum of products of `weight` and any activations, survives the arithmetic modulo 2**32.

    The odd factor of `Transform.total` is divided by exactly; the power of two takes the upper bits.
    """
    rows = weight.reshape(len(weight), -1).astype("int64")
    above, below = np.maximum(rows, 0).sum(axis=1), np.maximum(-rows, 0).sum(axis=1)
    largest = np.maximum(isa.act_max * above - isa.act_min * below, isa.act_max * below - isa.act_min * above)
    return bool(largest.max() < 2 ** (31 - power_of_two(transform.total**2)))
