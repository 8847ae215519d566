"""3x3 convolutions by Winograd's minimal filtering, in integers and exact. No tvm.

Tiles of `size` x `size` results are computed from ``size + 2`` squared input pixels with as many multiplications, 2.25
or 4 times fewer than direct convolution takes (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
2015). The fractions of the filter transform become integers by one factor for each of its rows, which the transform of
the results evens out: these are then `Transform.total` times the convolution. Every step but the first is arithmetic
modulo 2**32, so only the final result has to fit, and `exact` proves from the weights that it does. What is multiplied
has 16 bits: where an instruction multiplies bytes much faster than words there is little to gain.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from ..isa import ISAS, Isa
from .base import Arg, Array, KernelSpec, round_up
from .conv import ConvSpec
from .conv_plan import plan_conv
from .tiling import Dot, Tile, choose_tile, word_dot

Matrix = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Transform:
    """Integer transforms of one tile size.

    ``input`` d ``input``^T of a patch, ``filter`` g ``filter``^T of a filter, and ``output`` m ``output``^T of their
    products by element, which is `total` times the convolution.
    """

    size: int
    total: int
    input: Matrix
    filter: Matrix
    output: Matrix

    @property
    def patch(self) -> int:
        """Rows of the input that a tile reads."""
        return self.size + 2

    @property
    def points(self) -> int:
        """Products by element of one tile."""
        return self.patch**2

    @property
    def shift(self) -> int:
        """The power of two in `total`."""
        return (self.total & -self.total).bit_length() - 1

    @property
    def inverse(self) -> int:
        """What undoes the odd factor of `total`, modulo 2**32."""
        return pow(self.total >> self.shift, -1, 2**32)


#: Interpolation at 0, 1, -1 and infinity; and with 2 and -2. Factors of the filters' rows: 1, 2, 2, 1; and
#: 4, -6, -6, 24, 24, 1.
TRANSFORMS = {
    2: Transform(
        size=2,
        total=4,
        input=((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1)),
        filter=((1, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 1)),
        output=((2, 1, 1, 0), (0, 1, -1, 2)),
    ),
    4: Transform(
        size=4,
        total=576,
        input=(
            (4, 0, -5, 0, 1, 0),
            (0, -4, -4, 1, 1, 0),
            (0, 4, -4, -1, 1, 0),
            (0, -2, -1, 2, 1, 0),
            (0, 2, -1, -2, 1, 0),
            (0, 4, 0, -5, 0, 1),
        ),
        filter=((1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (1, -2, 4), (0, 0, 1)),
        output=((6, -4, -4, 1, 1, 0), (0, -4, 4, 2, -2, 0), (0, -4, -4, 4, 4, 0), (0, -4, 4, 8, -8, 24)),
    ),
}


@dataclass(frozen=True)
class WinogradSpec(KernelSpec):
    """The 3x3 convolution `conv`, of stride 1 and a single group, by tiles of `size` x `size` results.

    `pack` takes the same arrays; ``weight`` holds the transformed filters as int16.
    """

    conv: ConvSpec
    size: int

    @property
    def transform(self) -> Transform:
        return TRANSFORMS[self.size]

    @property
    def args(self) -> tuple[Arg, ...]:
        x, weight, *rest = self.conv.args
        plans = [plan_winograd(self, isa) for isa in ISAS.values() if word_dot(isa)]
        return (
            x,
            weight,
            Arg("patches", "int16", "scratch", max(plan.patch_bytes for plan in plans)),
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
        return (self.conv, *smaller, *self.conv.alternatives(isa)[:1])

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return -(-self.conv.out_w // self.size)

    @property
    def rows(self) -> int:
        """Rows of tiles of an image."""
        return -(-self.conv.out_h // self.size)

    @property
    def tiles(self) -> int:
        """Tiles of all images."""
        return self.conv.batch * self.rows * self.columns

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        plan = plan_winograd(self, isa)
        weight, filters = arrays["weight"].astype("int32"), np.array(self.transform.filter, "int32")
        points = np.einsum("ia,ocab,jb->ijco", filters, weight, filters).reshape(
            self.transform.points, *weight.shape[1::-1]
        )
        full = np.zeros((self.transform.points, plan.depth, plan.blocks * plan.width), "int16")
        full[:, : points.shape[1], : points.shape[2]] = points
        blocks = full.reshape(
            self.transform.points, plan.depth // plan.dot.step, plan.dot.step, plan.blocks, plan.width
        )
        packed = blocks.transpose(3, 0, 1, 4, 2) if plan.dot.unit == 2 else blocks.transpose(3, 0, 1, 2, 4)
        return {
            "weight": np.ascontiguousarray(packed).reshape(-1).view("int8"),
            **self.conv.pack_epilogue(plan.blocks * plan.width, isa, arrays),
        }

    def over_read(self, isa: Isa) -> dict[str, int]:
        return dict.fromkeys(self.conv.over_read(isa), 64)


@dataclass(frozen=True)
class WinogradPlan:
    """How it is cut: `groups` of `units` register tiles each, by `chunks` of `chunk_blocks` channel blocks.

    A register tile is ``tile.units`` tiles of results by ``tile.vectors`` channel vectors, at one point.
    """

    dot: Dot
    tile: Tile
    lanes: int
    points: int
    depth: int
    blocks: int
    chunk_blocks: int
    units: int
    groups: int

    @property
    def width(self) -> int:
        """Channels of a block."""
        return self.tile.vectors * self.lanes

    @property
    def chunks(self) -> int:
        return -(-self.blocks // self.chunk_blocks)

    @property
    def group_tiles(self) -> int:
        """Tiles of results that one task computes."""
        return self.units * self.tile.units

    @property
    def patch_bytes(self) -> int:
        """Transformed patches of one task."""
        return 2 * self.points * self.group_tiles * self.depth

    @property
    def filter_bytes(self) -> int:
        """Transformed filters of all channels."""
        return 2 * self.points * self.depth * self.blocks * self.width

    @property
    def product_bytes(self) -> int:
        """Products of one task and channel block."""
        return 4 * self.points * self.group_tiles * self.width


@functools.cache
def plan_winograd(spec: WinogradSpec, isa: Isa) -> WinogradPlan:
    """Cut a convolution for one ISA level.

    Filters are read once for each group of tiles, and patches are transformed once for each chunk of channels.
    """
    conv, dot = spec.conv, word_dot(isa)
    assert dot is not None, f"{isa.name} multiplies bytes much faster than words"
    vectors = -(-conv.out_channels // isa.lanes)
    tile, _ = choose_tile(dot, spec.tiles, 1, 1, vectors)
    rows, blocks = -(-spec.tiles // tile.units), -(-vectors // tile.vectors)
    depth = round_up(conv.in_channels, 2 * isa.lanes)

    def plan(groups: int, chunks: int) -> WinogradPlan:
        units, chunk_blocks = -(-rows // groups), -(-blocks // chunks)
        return WinogradPlan(
            dot, tile, isa.lanes, spec.transform.points, depth, blocks, chunk_blocks, units, -(-rows // units)
        )

    options = [plan(groups, chunks) for groups in range(1, rows + 1) for chunks in range(1, blocks + 1)]
    most = max(option.groups * option.chunks for option in options)
    enough = [option for option in options if option.groups * option.chunks >= min(most, LEAST_TASKS)]
    near = [option for option in enough if option.patch_bytes <= PATCH_CACHE] or enough
    return min(near, key=lambda option: _moved(spec, isa, option))


# Costs ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rates:
    """What an ISA level does in a cycle, and ARM with an instruction.

    Multiply-accumulates of bytes, as direct convolutions reach them, and of words; `transforms` is how much longer than
    x86 it takes for the transforms of a vector.
    """

    direct: float
    words: float
    transforms: float = 1.0


_RATES = {
    "avx2": _Rates(21, 21),
    "avxvnni": _Rates(58, 30),
    "avx512vnni": _Rates(110, 60),
    "neon": _Rates(4.4, 3.4, 2.0),
}
#: Cycles of x86 for the transform of a vector of patches, and of results, by the size of tiles.
PATCH = {2: 60, 4: 150}
RESULT = {2: 60, 4: 190}
#: Filters of more bytes come from further away than the second-level cache, and how many bytes then come in a cycle.
CACHE, NEAR, FAR = 1_500_000, 32, 8
#: What patches of one task may take of that cache.
PATCH_CACHE = 400_000
#: Tasks that a kernel has at least, so that threads share it.
LEAST_TASKS = 8


def _reading(size: int, times: int) -> float:
    """Cycles for reading `size` bytes of filters, which the layers before have displaced."""
    return size / FAR + (times - 1) * size / (NEAR if size <= CACHE else FAR)


def _moved(spec: WinogradSpec, isa: Isa, plan: WinogradPlan) -> float:
    """Cycles for reading filters and transforming patches."""
    patches = plan.chunks * spec.tiles * plan.depth / (2 * isa.lanes)
    return _reading(plan.filter_bytes, plan.groups) + patches * PATCH[spec.size] * _RATES[isa.name].transforms


def gain(spec: WinogradSpec, isa: Isa) -> float:
    """How many times faster than the direct kernel."""
    conv, plan, rates = spec.conv, plan_winograd(spec, isa), _RATES[isa.name]
    products = plan.points * plan.depth * plan.blocks * plan.width * plan.groups * plan.group_tiles
    results = spec.tiles * -(-conv.out_channels // isa.lanes) * RESULT[spec.size] * rates.transforms
    filtered = products / rates.words + results + _moved(spec, isa, plan)
    direct = plan_conv(conv, isa)
    filters = 9 * conv.in_channels * conv.out_channels * direct.dot.weight_bytes
    return (conv.macs / rates.direct + _reading(filters, 1)) / filtered


# Choosing ------------------------------------------------------------------------------------------------------------

#: Bytes of filters of one layer above which the memory they take is not worth the time.
MOST_BYTES = 2_400_000
#: Below this it is not worth the memory either. Processors that multiply half as fast gain 1.6 where 1.09 is estimated.
LEAST_GAIN = 1.08


def choose(conv: ConvSpec, isa: Isa, weight: Array) -> tuple[WinogradSpec | None, float]:
    """The fastest kernel of Winograd's for int8 `weight`, if one is faster than the direct one, and how much (or 1)."""
    kernel = (conv.kernel_h, conv.kernel_w, conv.stride_h, conv.stride_w, conv.dilation_h, conv.dilation_w, conv.groups)
    if word_dot(isa) is None or kernel != (3, 3, 1, 1, 1, 1, 1):
        return None, 1.0
    options = [WinogradSpec(conv, size) for size, transform in TRANSFORMS.items() if exact(transform, isa, weight)]
    gains = {option: gain(option, isa) for option in options if plan_winograd(option, isa).filter_bytes <= MOST_BYTES}
    best = max(gains, key=lambda option: gains[option], default=None)
    return (best, gains[best]) if best is not None and gains[best] >= LEAST_GAIN else (None, 1.0)


def exact(transform: Transform, isa: Isa, weight: Array) -> bool:
    """Whether every result, a sum of products of `weight` and any activations, survives the arithmetic modulo 2**32."""
    rows = weight.reshape(len(weight), -1).astype("int64")
    above, below = np.maximum(rows, 0).sum(axis=1), np.maximum(-rows, 0).sum(axis=1)
    largest = np.maximum(isa.act_max * above - isa.act_min * below, isa.act_max * below - isa.act_min * above)
    return bool(largest.max() < 2 ** (31 - transform.shift))
