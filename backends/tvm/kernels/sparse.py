"""Convolution and matrix multiplication with constant weights of which whole blocks are zero. No tvm.

A block is 16 output channels by 4 consecutive bytes of K: what one instruction multiplies on x86, four on ARM. Only
blocks with a weight that is not zero are stored, channel tile by channel tile (block compressed rows, as in Gray,
Radford and Kingma, "GPU Kernels for Block-Sparse Weights", 2017), each with the distance of its bytes from a pixel's
first byte.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from ..isa import Isa
from .base import Array, KernelSpec, round_up
from .conv import ConvSpec
from .conv_plan import ConvPlan, choose_cut, divide, plan_conv
from .depthwise import DepthwiseSpec
from .listed import ListedConvSpec
from .packing import BLOCK_CHANNELS, BLOCK_DEPTH, block_density, pack_blocks
from .tiling import Dot, amx_share, best_units


@dataclass(frozen=True)
class SparseConvSpec(ListedConvSpec):
    """The convolution `conv`, of a single group; `pack` takes the same arrays and leaves the zero blocks out.

    ``weight`` holds the blocks that are left. Those of channel tile t are number ``starts[t]`` to ``starts[t + 1]``,
    and block b meets the bytes from ``taps[b]`` elements behind a pixel's first on.
    """

    def plan(self, isa: Isa) -> ConvPlan:
        return plan_sparse(self, isa)

    def instruction(self, isa: Isa) -> str:
        return sparse_dot(isa).kind

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        conv, plan = self.conv, plan_sparse(self, isa)
        (rows,) = conv.weight_rows(arrays["weight"])
        blocks = pack_blocks(isa, plan.dot, plan.runs, rows)
        return {
            "weight": blocks.weights,
            "starts": blocks.starts.astype("int32"),
            "taps": self.taps(plan.runs, blocks.places, BLOCK_DEPTH),
            **conv.pack_epilogue(plan.blocks * BLOCK_CHANNELS, isa, arrays, paired=plan.dot.paired),
        }

    def over_read(self, isa: Isa) -> dict[str, int]:
        return dict.fromkeys(self.conv.over_read(isa), 64)


_VNNI = Dot("vnni", step=4, unit=4, registers=32)
_DOTS = {
    "avx2": Dot("pmaddwd", step=4, unit=4, registers=16, weight_bytes=2),
    "avxvnni": Dot("vnni", step=4, unit=4, registers=16),
    "avx512vnni": _VNNI,
    "amx": _VNNI,
    "neon": Dot("smull", step=8, unit=4, registers=32),
    "dotprod": Dot("sdot", step=4, unit=4, registers=32),
    "i8mm": Dot("smmla", step=8, unit=4, registers=28),
}


def sparse_dot(isa: Isa) -> Dot:
    """How an ISA level multiplies blocks: AMX tiles want runs of K; smull and smmla take two blocks at a time."""
    return _DOTS[isa.name]


@functools.cache
def plan_sparse(spec: SparseConvSpec, isa: Isa) -> ConvPlan:
    """Cut a sparse convolution for one ISA level; a block of the plan is one channel tile."""
    choose = functools.partial(best_units, size=BLOCK_CHANNELS // isa.lanes)
    return divide(spec.conv, isa, choose_cut(spec.conv, isa, sparse_dot(isa).stored_for(spec.conv.pixels), choose))


#: The share of blocks from which on the dense kernel is the faster one: the least that was measured over layers of
#: several shapes (docs/sparsity.md). On amx that is true of layers whose dense kernel has no use for tiles.
BREAK_EVEN = {
    "avx2": 0.84,
    "avxvnni": 0.87,
    "avx512vnni": 0.76,
    "amx": 0.76,
    "neon": 0.7,
    "dotprod": 0.62,
    "i8mm": 0.56,
}
#: Weights of which less is zero are dense without a word.
FEW_ZEROS = 0.2


def choose(spec: ConvSpec | DepthwiseSpec, isa: Isa, weight: Array, gain: float = 1.0) -> tuple[KernelSpec, str]:
    """The faster kernel for `weight` (int8, as `pack` takes it), and why; where zeros are few that needs no words.

    `gain` says how much faster than `spec` another kernel computes the same, zeros or not.
    """
    if not has_zeros(weight):
        return spec, ""
    if isinstance(spec, DepthwiseSpec) or spec.groups > 1:
        return spec, "dense: grouped convolutions have no sparse kernel"
    sparse = SparseConvSpec(spec)
    (rows,) = spec.weight_rows(weight)
    density, limit = block_density(plan_sparse(sparse, isa).runs, rows), break_even(spec, isa) / gain
    blocks = f"{density:.0%} of {BLOCK_CHANNELS}x{BLOCK_DEPTH} blocks"
    if density < limit:
        return sparse, f"sparse kernel: {blocks}"
    return spec, f"dense: {blocks} is above the break-even of {limit:.0%}"


def has_zeros(weight: Array) -> bool:
    """Whether so many weights are zero that somebody meant them to be."""
    return bool(np.count_nonzero(weight) <= (1 - FEW_ZEROS) * weight.size)


def break_even(spec: ConvSpec, isa: Isa) -> float:
    """The density of blocks below which the sparse kernel is faster than the dense one.

    AMX tiles are as much faster than its vpdpbusd as their tiling assumes. Of few channels the dense kernel computes
    fewer vectors than a block has.
    """
    plan = plan_conv(spec, isa)
    limit = BREAK_EVEN[isa.name]
    if plan.dot.kind == "amx":
        limit = min(limit, amx_share(plan.runs.length, plan.runs.count))
    return limit * round_up(spec.out_channels, isa.lanes) / round_up(spec.out_channels, BLOCK_CHANNELS)
