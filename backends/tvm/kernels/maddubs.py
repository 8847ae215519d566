"""Convolution with constant weights on AVX2 by pmaddubsw, where the weights prove that no word saturates. No tvm.

pmaddubsw multiplies 32 bytes and adds neighbours to words, twice as many at once as pmaddwd, and saturates: products of
activations in [0, 255] fit a word where the positive weights and the negative ones each have a sum of magnitudes of
`MOST_WEIGHT` at most. A chunk, the four bytes of K that a pixel has in 32 bits, fits together with another one (their
words are added before they become sums), or alone, or is multiplied as words like the whole layer in `conv`. Which
chunks these are is data, for each block of channels: layers of one shape share a kernel.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from ..isa import Isa
from .base import Array
from .conv import ConvSpec
from .conv_plan import MOST_GATHERED, ConvPlan, choose_cut, divide, plan_conv
from .listed import ListedConvSpec, pair_chunks
from .tiling import Dot, Tile, best_units

#: The largest sum of weights of one sign whose products share a word: 255 times it is below 2**15.
MOST_WEIGHT = 128
#: Bytes of K that are multiplied at once.
CHUNK = 4
#: Of fewer pixels a kernel waits for its weights, whatever it multiplies by.
LEAST_PIXELS = 16
#: What a chunk of a pair costs, a single one, and one of words, of what the plain kernel spends on it: between a Zen 3,
#: which has two ports that multiply (0.75, 0.87, 1.11 measured), and Skylake (0.74, 0.75, 1.09 by llvm-mca).
PAIR, SINGLE, WORDS = 0.745, 0.82, 1.1
#: What the three loops of a tile cost, in chunks of the plain kernel.
AROUND = 2
#: By how many blocks a layer is judged: sorting all of them takes time.
MOST_JUDGED = 8
#: What a kernel may cost of the plain one to be chosen.
LEAST_SAVED = 0.96


@dataclass(frozen=True)
class MaddubsConvSpec(ListedConvSpec):
    """The convolution `conv`, of a single group and runs of K of whole chunks; `pack` takes the same arrays.

    ``weight`` holds for the channels of each block chunks of four bytes: number ``starts[3 b]`` to ``starts[3 b + 1]``
    of block b in pairs, up to ``starts[3 b + 2]`` alone, and up to ``starts[3 b + 3]`` two bytes of K each, as words.
    The taps of words count elements of the copy that a tile makes of its pixels.
    """

    def plan(self, isa: Isa) -> ConvPlan:
        return plan_maddubs(self, isa)

    def instruction(self, isa: Isa) -> str:
        return self.conv.instruction(isa)

    def pack(self, isa: Isa, **arrays: Array) -> dict[str, Array]:
        conv, plan = self.conv, plan_maddubs(self, isa)
        weights: list[Array] = []
        taps: list[Array] = []
        starts = [0]
        for block in _chunks(conv, plan, isa, arrays["weight"]):
            order, pairs, alone = _order(block)
            chained, words = order[: pairs + alone], order[pairs + alone :]
            weights += [block[chained].reshape(-1), _as_words(block[words])]
            taps += [self.taps(plan.lying, chained, CHUNK), _word_taps(words)]
            starts += [starts[-1] + count for count in (pairs, pairs + alone, pairs + alone + 2 * len(words))]
        return {
            "weight": np.concatenate(weights),
            "starts": np.array(starts, "int32"),
            "taps": np.concatenate(taps),
            **conv.pack_epilogue(plan.blocks * plan.tile.vectors * isa.lanes, isa, arrays),
        }

    def over_read(self, isa: Isa) -> dict[str, int]:
        return self.conv.over_read(isa)


# Blocks of one vector of channels: of twice as many, half as many chunks fit.
_BYTES = Dot("pmaddubsw/words", step=CHUNK, unit=CHUNK, registers=16)


@functools.cache
def plan_maddubs(spec: MaddubsConvSpec, isa: Isa) -> ConvPlan:
    """Cut such a convolution."""
    conv = spec.conv
    depth = conv.kernel_h * conv.kernel_w * conv.in_channels
    return divide(conv, isa, choose_cut(conv, isa, _BYTES, functools.partial(_tile, most=MOST_GATHERED // (2 * depth))))


def _tile(dot: Dot, length: int, pixels: int, outer: int, vectors: int, most: int) -> tuple[Tile, float]:
    """The tile of one vector whose pixels, at most so many, can be copied as words."""
    return best_units(dot, length, pixels, outer, vectors, 1, max(1, most // pixels))


def choose(spec: ConvSpec, isa: Isa, weight: Array) -> MaddubsConvSpec | None:
    """The kernel of `spec` by pmaddubsw, where it is faster for `weight` (int8, as `pack` takes it)."""
    if isa.name != "avx2" or spec.groups > 1 or spec.pixels < LEAST_PIXELS:
        return None
    kernel = MaddubsConvSpec(spec)
    plan = plan_maddubs(kernel, isa)
    if plan.lying.length % CHUNK or plan_conv(spec, isa).dot.kind != "pmaddwd/words":
        return None
    chunks = _chunks(spec, plan, isa, weight)
    chunks = chunks[:: -(-len(chunks) // MOST_JUDGED)]
    total = chunks.shape[0] * chunks.shape[1]
    cost = float(AROUND * len(chunks))
    for block in chunks:
        order, pairs, alone = _order(block)
        cost += PAIR * pairs + SINGLE * alone + WORDS * (len(order) - pairs - alone)
    return kernel if cost < LEAST_SAVED * total else None


def _chunks(conv: ConvSpec, plan: ConvPlan, isa: Isa, weight: Array) -> Array:
    """Weights as int8[blocks, chunks, channels of a block, 4]."""
    (rows,) = conv.weight_rows(weight)
    width = plan.tile.vectors * isa.lanes
    full = np.zeros((plan.blocks * width, rows.shape[1]), "int8")
    full[: len(rows)] = rows
    return np.ascontiguousarray(full.reshape(plan.blocks, width, -1, CHUNK).swapaxes(1, 2))


def _order(chunks: Array) -> tuple[Array, int, int]:
    """`pair_chunks` by the sums of the weights of either sign that share a word."""
    words = chunks.astype("int16").reshape(len(chunks), -1, 2)
    sums = [np.maximum(signed, 0).sum(axis=2, dtype="int16") for signed in (words, -words)]
    return pair_chunks(np.concatenate(sums, axis=1), MOST_WEIGHT)


def _as_words(chunks: Array) -> Array:
    """Chunks of four bytes of each channel as two of two words of each: flat int8."""
    count, width, _ = chunks.shape
    halves = chunks.astype("int16").reshape(count, width, 2, 2).swapaxes(1, 2)
    return np.ascontiguousarray(halves).reshape(-1).view("int8")


def _word_taps(chunks: Array) -> Array:
    """Where the two halves of each chunk lie in a copied pixel."""
    taps: Array = (CHUNK * chunks[:, None] + np.array([0, CHUNK // 2])).reshape(-1).astype("int32")
    return taps
