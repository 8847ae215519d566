"""Weight layouts of the register tiles: numpy only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..isa import Isa
from .base import Array
from .tiling import Dot, Runs


def pack_weights(isa: Isa, dot: Dot, runs: Runs, weight: Array, shape: tuple[int, int]) -> Array:
    """Lay out weights for the inner loop of `dot`; `shape` is the blocks of a group and the vectors of a block.

    `weight` is int8[groups, channels, rows * columns * length] with K in the order the kernel walks it. The result is
    flat int8: for every group, block of `vectors` native vectors of channels, and run, ``runs.padded`` x channels in
    the order of the loads. Padding is zero.
    """
    (groups, channels, _), (blocks, vectors) = weight.shape, shape
    width = vectors * isa.lanes
    full = np.zeros((groups, blocks * width, runs.rows * runs.columns, runs.padded), "int8")
    full[:, :channels, :, : runs.length] = weight.reshape(groups, channels, -1, runs.length)
    tiles = full.reshape(groups * blocks, width, -1, runs.padded).transpose(0, 2, 1, 3)
    return _laid_out(dot, np.ascontiguousarray(tiles), runs, isa.lanes)


def _laid_out(dot: Dot, tiles: Array, runs: Runs, lanes: int) -> Array:
    """Tiles int8[blocks, runs, channels, K] in the order and the type that the inner loop reads, as flat int8."""
    packed = _LAYOUTS[dot.loop](tiles, runs, lanes)
    return np.ascontiguousarray(packed, f"int{8 * dot.weight_bytes}").reshape(-1).view("int8")


def _quads(tiles: Array, runs: Runs, lanes: int) -> Array:
    """[k / 4][channel][4]: a dot product of four bytes in each 32-bit lane."""
    count, number, width, depth = tiles.shape
    return tiles.reshape(count, number, width, depth // 4, 4).transpose(0, 1, 3, 2, 4)


def _word_pairs(tiles: Array, runs: Runs, lanes: int) -> Array:
    """[k / 4][vector][even, odd][channel][2]: products of bytes 0 and 2, then of bytes 1 and 3."""
    count, number, width, depth = tiles.shape
    split = tiles.reshape(count, number, width // lanes, lanes, depth // 4, 2, 2)
    return split.transpose(0, 1, 4, 2, 6, 3, 5)


def _pairs(tiles: Array, runs: Runs, lanes: int) -> Array:
    """[k / 2][channel][2]: a dot product of two words in each 32-bit lane."""
    count, number, width, depth = tiles.shape
    return tiles.reshape(count, number, width, depth // 2, 2).transpose(0, 1, 3, 2, 4)


def _rows_of_16(tiles: Array, runs: Runs, lanes: int) -> Array:
    """[k / 16][channel][16], then [channel][8] for what is left of K."""
    count, number, width, depth = tiles.shape
    whole = depth // 16 * 16
    head = tiles[..., :whole].reshape(count, number, width, -1, 16).transpose(0, 1, 3, 2, 4)
    parts = [head.reshape(count, number, -1), tiles[..., whole:].reshape(count, number, -1)]
    return np.concatenate(parts, axis=2)


def _eights(tiles: Array, runs: Runs, lanes: int) -> Array:
    """[k / 8][channel][8]: two channels make one operand of smmla."""
    count, number, width, depth = tiles.shape
    return tiles.reshape(count, number, width, depth // 8, 8).transpose(0, 1, 3, 2, 4)


def _amx_tiles(tiles: Array, runs: Runs, lanes: int) -> Array:
    """[k / chunk][vector][chunk / 4][channel][4]: the right operand of tdpbusd."""
    count, number, width, depth = tiles.shape
    split = tiles.reshape(count, number, width // lanes, lanes, depth // runs.chunk, runs.chunk // 4, 4)
    return split.transpose(0, 1, 4, 2, 5, 3, 6)


_LAYOUTS: dict[str, Callable[[Array, Runs, int], Array]] = {
    "vnni": _quads,
    "sdot": _quads,
    "smull": _quads,
    "pmaddwd": _word_pairs,
    "pmaddwd/words": _pairs,
    "smlal": _rows_of_16,
    "smmla": _eights,
    "smmla/pairs": _eights,
    "amx": _amx_tiles,
}


#: A block of sparse weights: output channels, and bytes of K.
BLOCK_CHANNELS, BLOCK_DEPTH = 16, 4


@dataclass(frozen=True)
class Blocks:
    """The blocks of a weight that are not zero, by channel tile and within it by K.

    ``weights`` (flat int8) holds them one after the other; ``starts`` has the number of each tile's first block, and of
    all. ``places`` says where along K a block lies, in blocks of one tile.
    """

    weights: Array
    starts: Array
    places: Array


def pack_blocks(isa: Isa, dot: Dot, runs: Runs, weight: Array) -> Blocks:
    """Lay out the blocks for the inner loop of `dot`; `weight` is int8[channels, K], K in the order of `runs`.

    A tile gets blocks of zeros at its end until their number suits the step of `dot`.
    """
    blocks, kept = _split_blocks(runs, weight)
    group = dot.step // BLOCK_DEPTH
    found = [np.flatnonzero(row) for row in kept]
    places = [np.pad(row, (0, -len(row) % group), mode="edge") if len(row) else row for row in found]
    starts = np.cumsum([0, *map(len, places)])
    values = [
        np.pad(tile[row], ((0, len(place) - len(row)), (0, 0), (0, 0)))
        for tile, row, place in zip(blocks, found, places, strict=True)
    ]
    steps = np.concatenate(values).reshape(-1, group, BLOCK_CHANNELS, BLOCK_DEPTH).swapaxes(1, 2)
    tiles = steps.reshape(-1, 1, BLOCK_CHANNELS, dot.step)
    return Blocks(_laid_out(dot, tiles, runs, isa.lanes), starts, np.concatenate(places))


def _split_blocks(runs: Runs, weight: Array) -> tuple[Array, Array]:
    """Blocks int8[channel tiles, blocks along K, 16, 4], and which of them are not zero."""
    channels = len(weight)
    full = np.zeros((channels + -channels % BLOCK_CHANNELS, runs.count, runs.padded), "int8")
    full[:channels, :, : runs.length] = weight.reshape(channels, runs.count, runs.length)
    blocks = full.reshape(-1, BLOCK_CHANNELS, full[0].size // BLOCK_DEPTH, BLOCK_DEPTH).swapaxes(1, 2)
    return blocks, np.asarray(blocks.any(axis=(2, 3)))


def block_density(runs: Runs, weight: Array) -> float:
    """The share of blocks that are not zero, for the weight that `pack_blocks` takes."""
    return float(_split_blocks(runs, weight)[1].mean())
