"""Blocks of weights as sparse kernels know them: 16 outputs by 4 weights along (row, column, input)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from octavo.backends.tvm.kernels.packing import BLOCK_CHANNELS, BLOCK_DEPTH


def draw_blocks(shape: Sequence[int], rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """A number in [0, 1) for each block of a weight (outputs, inputs, taps...)."""
    return rng.random((-(-shape[0] // BLOCK_CHANNELS), -(-math.prod(shape[1:]) // BLOCK_DEPTH)))


def spread_blocks(kept: npt.NDArray[np.bool_], shape: Sequence[int]) -> npt.NDArray[np.int8]:
    """Ones where a weight of the shape (outputs, inputs, taps...) keeps its block, zeros elsewhere."""
    outputs, inputs, *taps = shape
    rows = kept.repeat(BLOCK_CHANNELS, 0).repeat(BLOCK_DEPTH, 1)[:outputs, : math.prod(shape[1:])]
    return np.moveaxis(rows.reshape(outputs, *taps, inputs), -1, 1).astype("int8")
