"""How a convolution is cut: what multiplies, the register tile, the loops around it, and what one task does. No tvm."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..isa import Isa
from .base import CACHE_LINE, StridedView
from .division import MOST_TASKS, TASKS, best_division, parts, sizes
from .tiling import (
    MOST_VECTORS,
    SMALL,
    STREAMED,
    Dot,
    Runs,
    Tile,
    best_units,
    choose_tile,
    direct_dots,
    dot_for,
    gathered_dot,
    joined_dot,
)

if TYPE_CHECKING:
    from .conv import ConvSpec

#: Packed weights of one task stay below this, so that they live in the first-level cache.
WEIGHT_CACHE = 24 * 1024
#: The same where every task makes its pixels ready first: from the second-level cache weights come fast enough, and
#: processors with smmla have a large one.
GATHERED_CACHE, PAIRED_CACHE = 192 * 1024, 512 * 1024
#: Bytes of pixels that were made ready, which lie on the stack.
MOST_GATHERED = 64 * 1024
#: What it costs to lay pairs of pixels side by side, in instructions for each pixel and step of K.
PAIRING = 3
#: Bytes that are copied, or become words, at once.
COPIED = 16
#: What that costs, in instructions that multiply. x86 copies beside that.
COPY_COST = {"vnni": 1, "sdot": 3, "smlal": 3, "smmla": 3}
#: Weights of a layer of more bytes are not in the second-level cache when it starts.
FAR_WEIGHTS = 256 * 1024
#: Lines of the cache that a step of K waits for without loss.
MOST_AHEAD = 8
#: Where a step of K is two bytes, that many together are one.
AHEAD_PART = 128
#: What it costs to read pixels again, in products of theirs with a vector of channels: another thread wrote some.
READ = 1.0
#: Tiles that may be faster are estimated to take at most that many times as long as the best of their kind.
MOST_ESTIMATED = 1.35


@dataclass(frozen=True)
class Cut:
    """What a convolution multiplies by, its register tile, and how many bytes of weights one task may hold.

    A unit of the tile is a pixel. By rows it is all pixels of a row, or where pixels may come from anywhere (`_bends`)
    it is still one, and a line goes through all rows.
    """

    dot: Dot
    tile: Tile
    by_rows: bool
    cache: int


@dataclass(frozen=True)
class Line:
    """One axis of tiling: `count` units, and the distances between units in input, output and residual.

    A `bent` line goes on in the next of several rows of so many units, of which `rows` has the distances.
    """

    count: int
    x: int
    out: int
    residual: int
    bent: int = 0
    rows: Line | None = None


@dataclass(frozen=True)
class ConvPlan:
    """How a convolution is cut.

    `lying` is K as it lies in the image, `runs` as it is multiplied. Each of `batches` x `outer` lines has `inner`
    units, and a unit is the pixels of `pixel`: a single one, or a whole row of a small image. A tile is `tile.units`
    units by `tile.vectors` channel vectors; a group has `blocks` blocks.

    In each step of K `ahead` cache lines of the weights that the next channels need are asked for. Where groups are
    `inside` of tasks, each does its pixels for all of them.
    """

    dot: Dot
    lying: Runs
    runs: Runs
    batches: Line
    outer: Line
    inner: Line
    pixel: Line
    tile: Tile
    blocks: int
    groups: int
    chunk_blocks: int = 1
    chunk_outer: int = 1
    chunk_tiles: int = 1
    ahead: int = 0
    inside: bool = False

    @property
    def run_weights(self) -> int:
        """Weights of one run for one block, in vectors' lanes."""
        return self.runs.padded * self.tile.vectors

    @property
    def group_chunks(self) -> int:
        """Tasks along the channel blocks of one group."""
        return -(-self.blocks // self.chunk_blocks)

    @property
    def channel_chunks(self) -> int:
        """Tasks along the channels of all groups."""
        return 1 if self.inside else self.group_chunks * self.groups

    @property
    def inner_chunks(self) -> int:
        """Tasks along one line."""
        return -(-self.inner.count // (self.chunk_tiles * self.tile.units))

    @property
    def pixel_chunks(self) -> int:
        """Tasks along all pixels."""
        return -(-(self.outer.count * self.batches.count) // self.chunk_outer) * self.inner_chunks


def _runs(spec: ConvSpec) -> tuple[int, int, int]:
    """Kernel rows, kernel columns and contiguous bytes of K."""
    merged = spec.dilation_w == 1 and spec.input.pixel == spec.in_channels and spec.groups == 1
    columns, length = (1, spec.kernel_w * spec.in_channels) if merged else (spec.kernel_w, spec.in_channels)
    rows = spec.kernel_h
    if merged and spec.dilation_h == 1 and spec.input.row == length:
        rows, length = 1, rows * length
    return rows, columns, length


def _lines(spec: ConvSpec) -> tuple[Line, Line, Line]:
    """Images, rows and columns of the output."""
    source, out, residual = spec.input, spec.output, spec.epilogue.residual or StridedView(0, 0, 0)
    return (
        Line(spec.batch, source.batch, out.batch, residual.batch),
        Line(spec.out_h, spec.stride_h * source.row, out.row, residual.row),
        Line(spec.out_w, spec.stride_w * source.pixel, out.pixel, residual.pixel),
    )


def _continues(outer: Line, inner: Line) -> bool:
    """Whether stepping past the end of `inner` lands on the next `outer`, so that both are one axis."""
    strides = zip((outer.x, outer.out, outer.residual), (inner.x, inner.out, inner.residual), strict=True)
    return outer.count == 1 or all(far == inner.count * near for far, near in strides)


def _join(outer: Line, inner: Line) -> Line:
    return Line(outer.count * inner.count, inner.x, inner.out, inner.residual)


_ONE = Line(1, 0, 0, 0)


def _bends(dot: Dot) -> bool:
    """Whether pixels may come from anywhere, since they are laid side by side first."""
    return dot.paired and dot.gathered


#: The cheapest tile and its cost for (dot, length of a line, pixels of a unit, lines, channel vectors).
TileChoice = Callable[[Dot, int, int, int, int], tuple[Tile, float]]


@functools.cache
def plan_conv(spec: ConvSpec, isa: Isa) -> ConvPlan:
    """Cut a convolution into tasks and register tiles for one ISA level."""
    return divide(spec, isa, spec.cut or _best_cut(spec, isa))


def _best_cut(spec: ConvSpec, isa: Isa) -> Cut:
    dot, ready = _direct_dot(spec, isa), _ready_dot(spec, isa)
    if ready is not None and _can_gather(divide(spec, isa, choose_cut(spec, isa, ready))):
        # Pixels that were made ready once for all channels need no instructions beside the products.
        dot = ready if _worth_gathering(spec, isa, dot, ready) else dot
    cut = choose_cut(spec, isa, dot)
    joined = joined_dot(dot) if spec.shared == 1 else None
    return choose_cut(spec, isa, joined) if joined is not None and _worth_joining(divide(spec, isa, cut)) else cut


def _direct_dot(spec: ConvSpec, isa: Isa) -> Dot:
    if spec.shared > 1:
        return _fitted(direct_dots(isa)[-1], spec, isa)
    height, width, length = _runs(spec)
    vectors = spec.groups * -(-spec.out_channels // isa.lanes)
    return _fitted(dot_for(isa, length, height * width, spec.pixels, vectors), spec, isa)


def _ready_dot(spec: ConvSpec, isa: Isa) -> Dot | None:
    ready = gathered_dot(isa) if spec.shared == 1 else None
    return ready and _fitted(ready, spec, isa)


def _fitted(dot: Dot, spec: ConvSpec, isa: Isa) -> Dot:
    """With what the costs of tiles depend on. Tables are looked up by whole vectors, which large tiles fill."""
    height, width, length = _runs(spec)
    depth = height * width * length
    steps = 0 if spec.epilogue.table else depth / dot.step
    return replace(dot.stored_for(spec.pixels), streamed=depth * isa.lanes > STREAMED, steps=steps)


def _can_gather(plan: ConvPlan) -> bool:
    size = plan.tile.units * plan.pixel.count * plan.runs.count * plan.runs.padded * plan.dot.pixel_bytes
    return size <= MOST_GATHERED


def _worth_gathering(spec: ConvSpec, isa: Isa, dot: Dot, ready: Dot) -> bool:
    if ready.instruction != "smmla":
        return True
    direct, paired = (min(cost for _, cost in _tile_costs(spec, isa, each, choose_tile)) for each in (dot, ready))
    return paired + PAIRING * spec.pixels < direct


def _worth_joining(plan: ConvPlan) -> bool:
    """Whether what runs of K are padded by costs more to multiply than to copy the pixels of a tile without it."""
    runs, tile, dot = plan.runs, plan.tile, plan.dot
    whole = dot.run(runs.count * runs.length)
    pixels = tile.units * plan.pixel.count
    step = plan.blocks * dot.cost(tile.units, plan.pixel.count, tile.vectors) / pixels
    saved = (runs.count * runs.padded - whole.padded) / dot.step * step
    return (
        saved > COPY_COST[dot.instruction] * runs.count * -(-runs.length // COPIED)
        and pixels * whole.padded <= MOST_GATHERED
    )


def choose_cut(spec: ConvSpec, isa: Isa, dot: Dot, choose: TileChoice = choose_tile) -> Cut:
    """The cheaper one of both ways to tile a convolution that multiplies by `dot`, with the tiles of `choose`."""
    (tile, cost), (by_rows, row_cost) = _tile_costs(spec, isa, dot, choose)
    cache = _weight_cache(dot)
    return Cut(dot, by_rows, True, cache) if row_cost < 0.97 * cost else Cut(dot, tile, False, cache)


def _weight_cache(dot: Dot) -> int:
    if dot.loop == "smmla/pairs":
        return PAIRED_CACHE
    return GATHERED_CACHE if dot.gathered else WEIGHT_CACHE


def _tile_costs(spec: ConvSpec, isa: Isa, dot: Dot, choose: TileChoice) -> tuple[tuple[Tile, float], ...]:
    """The tile of pixels that `choose` finds and its cost, and the same for whole rows of pixels."""
    images, rows, columns = _axes(spec)
    vectors = -(-spec.out_channels // isa.lanes)
    pixels = choose(dot, columns.count, 1, images.count * rows.count, vectors)
    if _bends(dot):
        by_rows = choose(dot, rows.count * columns.count, 1, images.count, vectors)
    else:
        by_rows = choose(dot, rows.count, columns.count, images.count, vectors)
    return pixels, by_rows if rows.count > 1 else (by_rows[0], math.inf)


def other_cuts(spec: ConvSpec, isa: Isa) -> Iterator[Cut]:
    """Cuts that measurement may find faster than the chosen one, in turn of every kind, the likeliest first."""
    best, ready = _best_cut(spec, isa), _ready_dot(spec, isa)
    direct = direct_dots(isa)[-1:] if spec.shared > 1 else direct_dots(isa)
    dots = [best.dot, *(_fitted(dot, spec, isa) for dot in direct), *([ready] if ready else [])]
    kinds = [list(_near(spec, isa, dot, choices)) for dot in dict.fromkeys(dots) for choices in _tile_kinds(dot)]
    kinds.append([replace(best, cache=cache) for cache in (4 * best.cache, best.cache // 3)])
    plans = {divide(spec, isa, best)}
    for cut in filter(None, itertools.chain.from_iterable(itertools.zip_longest(*kinds))):
        plan = divide(spec, isa, cut)
        if plan not in plans and (not cut.dot.gathered or _can_gather(plan)):
            plans.add(plan)
            yield cut


def _tile_kinds(dot: Dot) -> list[list[TileChoice]]:
    """Tiles of every size that fill the registers, and small ones, whose epilogue overlaps the next one's products."""
    sizes = range(1, MOST_VECTORS + 1)
    large: list[TileChoice] = [functools.partial(best_units, size=size) for size in sizes]
    small: list[TileChoice] = [functools.partial(best_units, size=size, most=max(1, SMALL // size)) for size in sizes]
    return [large] if dot.kind == "amx" else [large, small]


def _near(spec: ConvSpec, isa: Isa, dot: Dot, choices: Sequence[TileChoice]) -> Iterator[Cut]:
    """Cuts with tiles that are estimated not to be much slower than the best of `choices`, the cheapest first."""
    found = [_tile_costs(spec, isa, dot, choose) for choose in choices]
    options = [(cost, tile, by_rows) for ways in found for by_rows, (tile, cost) in enumerate(ways)]
    options.sort(key=lambda option: option[0])
    for cost, tile, by_rows in options:
        if tile.vectors * isa.lanes < spec.out_channels + isa.lanes and cost < MOST_ESTIMATED * options[0][0]:
            yield Cut(dot, tile, bool(by_rows), _weight_cache(dot))


def divide(spec: ConvSpec, isa: Isa, cut: Cut) -> ConvPlan:
    """Tile a convolution, and choose what one task holds: channel blocks that fit the cache, a share of the pixels."""
    images, rows, columns = _axes(spec)
    outer, inner, pixel = (_ONE, rows, columns) if cut.by_rows else (rows, columns, _ONE)
    if cut.by_rows and _bends(cut.dot):
        inner, pixel = replace(_join(rows, columns), bent=columns.count, rows=rows), _ONE
    height, width, length = _runs(spec)
    lying = cut.dot.run(length, height, width)
    runs = cut.dot.run(length * height * width) if cut.dot.joins else lying
    blocks = -(-spec.out_channels // (cut.tile.vectors * isa.lanes))
    plan = ConvPlan(cut.dot, lying, runs, images, outer, inner, pixel, cut.tile, blocks, spec.groups)
    block_bytes = plan.run_weights * runs.count * cut.dot.weight_bytes * isa.lanes
    fewest = -(-blocks // max(1, cut.cache // block_bytes))
    work = blocks * plan.groups * images.count * outer.count * inner.count
    if spec.groups > 1 and spec.out_channels < CACHE_LINE:
        # Else threads would write neighbouring bytes, and read what the other one wrote.
        within = list(_chunks(replace(plan, inside=True), 1))
        if max(option.pixel_chunks for option in within) >= TASKS:
            return best_division(((option, _task_costs(option)) for option in within), work)
    plan = best_division(((option, _task_costs(option)) for option in _chunks(plan, fewest)), work)
    return replace(plan, ahead=_ahead(isa, plan))


def _chunks(plan: ConvPlan, fewest: int) -> Iterator[ConvPlan]:
    """Ways to divide it: `fewest` chunks of channels or more, and some lines, or some tiles of one line, for each."""
    lines, tiles = plan.batches.count * plan.outer.count, -(-plan.inner.count // plan.tile.units)
    pixels = [(some, tiles) for some in parts(lines)] + [(1, some) for some in parts(tiles)[1:]]
    channels = [plan.blocks] if plan.inside else parts(plan.blocks, fewest)
    for number, ((outer, some), blocks) in enumerate(itertools.product(pixels, channels)):
        option = replace(plan, chunk_outer=outer, chunk_tiles=some, chunk_blocks=blocks)
        if number == 0 or option.pixel_chunks * option.channel_chunks <= MOST_TASKS:
            yield option


def _task_costs(plan: ConvPlan) -> list[float]:
    """What each task costs, in the order of their numbers: of its pixels as many products as there are blocks."""
    blocks = [size + READ / plan.tile.vectors for size in sizes(plan.blocks, plan.chunk_blocks)] * plan.groups
    if plan.inside:
        blocks = [sum(blocks)]
    lines = sizes(plan.batches.count * plan.outer.count, plan.chunk_outer)
    units = sizes(plan.inner.count, plan.chunk_tiles * plan.tile.units)
    return [block * line * unit for block in blocks for line in lines for unit in units]


def _axes(spec: ConvSpec) -> tuple[Line, Line, Line]:
    """Images, rows and columns of the output, joined where they continue each other."""
    images, rows, columns = _lines(spec)
    if _continues(rows, columns):
        rows, columns = _ONE, _join(rows, columns)
        if _continues(images, columns):
            images, columns = _ONE, _join(images, columns)
    return images, rows, columns


def ahead_part(runs: Runs) -> int:
    """Bytes of K that become words between asking for weights and asking again: an even part, or all."""
    depth = runs.count * runs.padded
    return next((size for size in range(AHEAD_PART, AHEAD_PART // 4, -2) if depth % size == 0), depth)


def _ahead(isa: Isa, plan: ConvPlan) -> int:
    """Lines to ask for in a step of K, so that the next chunk of channels has come when this one is done.

    Processors fetch ahead by themselves, but not as far as weights are away that no second-level cache holds.
    """
    steps = {"amx": plan.runs.chunk, "vnni": plan.dot.step, "pmaddwd/words": ahead_part(plan.runs)}
    step = steps.get(plan.dot.loop, 0)
    lines = step * plan.tile.vectors * isa.lanes * plan.dot.weight_bytes / CACHE_LINE
    tiles = plan.batches.count * plan.outer.count * -(-plan.inner.count // plan.tile.units)
    chunk = plan.run_weights * plan.runs.count * isa.lanes * plan.dot.weight_bytes * plan.chunk_blocks
    if not step or chunk < WEIGHT_CACHE or chunk * plan.channel_chunks < FAR_WEIGHTS:
        return 0
    ahead = -(-int(lines) // tiles)
    return ahead if ahead <= MOST_AHEAD else 0
