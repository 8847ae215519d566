"""Convolution with constant weights on ARMv8.0 by chains of four products in a word, proven from the weights. No tvm.

`conv` multiplies 16 bytes of K at once: smull and smlal2 leave two products in each word of 16 bits, which sadalp adds
to the sums, a third of the work. Four products of activations in [-128, 127] fit a word where the weights' magnitudes
have a sum of `MOST_WEIGHT` at most, which few weights of a network exceed. So chunks of K that fit together share one
sadalp, and the others do as before. Which chunks these are is data, for each block of channels: layers of one shape
share a kernel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from ..isa import Isa
from .base import Array
from .conv import ConvSpec
from .conv_plan import ConvPlan, choose_cut, divide, plan_conv
from .listed import ListedConvSpec, pair_chunks
from .tiling import Dot, joined_dot

#: The largest sum of magnitudes of weights whose products share a word: 128 times it is below 2**15.
MOST_WEIGHT = 255
#: Bytes of K that are multiplied at once.
CHUNK = 16
#: Of fewer pixels a kernel waits for its weights, and looking for pairs takes longer than it is worth.
LEAST_PIXELS = 16
#: What a chained kernel may cost of the plain one to be chosen.
LEAST_SAVED = 0.97
#: Instructions around a pair of chunks, a single one, and one of the plain kernel.
AROUND_PAIR, AROUND_SINGLE, AROUND_PLAIN = 9, 7, 4


@dataclass(frozen=True)
class ChainedConvSpec(ListedConvSpec):
    """The convolution `conv`, of a single group and weights above -128; `pack` takes the same arrays.

    ``weight`` holds chunks of 16 bytes for the channels of each block: number ``starts[2 b]`` to ``starts[2 b + 1]`` of
    block b in pairs, one at least, and up to ``starts[2 b + 2]`` alone. Chunk c meets the bytes from ``taps[c]``
    elements behind a pixel's first on.
    """

    def plan(self, isa: Isa) -> ConvPlan:
        return plan_chained(self, isa)

    def instruction(self, isa: Isa) -> str:
        return self.conv.instruction(isa)

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        conv, plan = self.conv, plan_chained(self, isa)
        chunks = _chunks(conv, plan, isa, arrays["weight"])
        orders = [_order(block) for block in _magnitudes(chunks)]
        assert all(paired for _, paired in orders), "every block needs a pair, which begins its sums"
        weights = np.concatenate([block[order] for block, (order, _) in zip(chunks, orders, strict=True)])
        numbers = np.concatenate([order for order, _ in orders])
        lengths = [length for order, paired in orders for length in (paired, len(order) - paired)]
        return {
            "weight": weights.reshape(-1),
            "starts": np.cumsum([0, *lengths]).astype("int32"),
            "taps": self.taps(plan.runs, numbers, CHUNK),
            **conv.pack_epilogue(plan.blocks * plan.tile.vectors * isa.lanes, isa, arrays),
        }

    def over_read(self, isa: Isa) -> dict[str, int]:
        return self.conv.over_read(isa)


# More would make LLVM copy sums around between the loops over pairs and over single chunks.
_CHAINS = Dot("chains", step=CHUNK, unit=CHUNK, registers=30)


@functools.cache
def plan_chained(spec: ChainedConvSpec, isa: Isa) -> ConvPlan:
    """Cut a chained convolution."""
    dot = _CHAINS
    if plan_conv(spec.conv, isa).dot.joins:
        dot = joined_dot(dot) or dot
    return divide(spec.conv, isa, choose_cut(spec.conv, isa, dot))


def choose(spec: ConvSpec, isa: Isa, weight: Array) -> ChainedConvSpec | None:
    """The chained kernel of `spec`, where it needs fewer instructions for `weight` (int8, as `pack` takes it)."""
    if isa.name != "neon" or spec.groups > 1 or spec.full_range or spec.pixels < LEAST_PIXELS:
        return None
    chained = ChainedConvSpec(spec)
    plan, plain = plan_chained(chained, isa), plan_conv(spec, isa)
    orders = [_order(block) for block in _magnitudes(_chunks(spec, plan, isa, weight))]
    if any(paired == 0 for _, paired in orders):
        return None
    pairs = sum(paired for _, paired in orders) / 2 / len(orders)
    singles = sum(len(order) for order, _ in orders) / len(orders) - 2 * pairs
    cost = pairs * _instructions(plan, 5, 2, AROUND_PAIR) + singles * _instructions(plan, 3, 1, AROUND_SINGLE)
    return chained if cost < LEAST_SAVED * _plain_cost(plain) else None


def _plain_cost(plan: ConvPlan) -> float:
    whole, tail = divmod(plan.runs.padded, CHUNK)
    cost = whole * _instructions(plan, 3, 1, AROUND_PLAIN)
    return plan.runs.count * (cost + (_instructions(plan, 2, 1, AROUND_PLAIN) if tail else 0))


def _instructions(plan: ConvPlan, products: int, chunks: int, around: int) -> float:
    """For each result: those of the products, its share of the loads, and what is `around` the tile."""
    pixels, channels = plan.tile.units * plan.pixel.count, 4 * plan.tile.vectors
    return products + (chunks * (pixels + channels / 2) + around) / (pixels * channels)


def _chunks(conv: ConvSpec, plan: ConvPlan, isa: Isa, weight: Array) -> Array:
    """Weights as int8[blocks, chunks, channels of a block, 16]."""
    (rows,) = conv.weight_rows(weight)
    width, runs = plan.tile.vectors * isa.lanes, plan.runs
    full = np.zeros((plan.blocks * width, runs.count, runs.padded), "int8")
    full[: len(rows), :, : runs.length] = rows.reshape(len(rows), runs.count, runs.length)
    return np.ascontiguousarray(full.reshape(plan.blocks, width, -1, CHUNK).swapaxes(1, 2))


def _magnitudes(chunks: Array) -> Array:
    """Of every chunk the sums of what two weights, eight bytes apart, add to a word: int32[blocks, chunks, words]."""
    halves = np.abs(chunks.astype("int32")).reshape(*chunks.shape[:3], 2, CHUNK // 2)
    sums: Array = halves.sum(axis=3).reshape(*chunks.shape[:2], -1)
    return sums


def _order(magnitudes: Array) -> tuple[Array, int]:
    """The chunks of a block (int32[chunks, words]), first those in pairs, and how many these are."""
    order, pairs, _ = pair_chunks(magnitudes, MOST_WEIGHT)
    return order, pairs
