"""Convolutions by lists: what a block of channels multiplies, and which bytes of a pixel that meets, are data. No tvm.

So a kernel of any size is walked like a 1x1, and layers of one shape share a kernel whatever their weights are.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ..isa import Isa
from .base import Arg, Array, KernelSpec
from .conv import ConvSpec
from .conv_plan import ConvPlan
from .tiling import Runs

#: How many chunks one is tried with.
MOST_TRIED = 64


@dataclass(frozen=True)
class ListedConvSpec(KernelSpec):
    """The convolution `conv`, of a single group; ``starts`` says which of ``taps`` belong to a block of channels.

    Tap t meets the bytes from ``taps[t]`` elements behind a pixel's first on.
    """

    conv: ConvSpec

    @abstractmethod
    def plan(self, isa: Isa) -> ConvPlan:
        """How it is cut for an ISA level."""

    @property
    def args(self) -> tuple[Arg, ...]:
        x, weight, *rest = self.conv.args
        return (x, weight, Arg("starts", "int32", "const"), Arg("taps", "int32", "const"), *rest)

    def tasks(self, isa: Isa) -> int:
        plan = self.plan(isa)
        return plan.channel_chunks * plan.pixel_chunks

    @property
    def macs(self) -> int:
        return self.conv.macs

    def taps(self, runs: Runs, places: Array, depth: int) -> Array:
        """Where the parts of K numbered `places`, of `depth` bytes each, lie behind a pixel's first element: int32."""
        run, part = np.divmod(places, runs.padded // depth)
        row, column = np.divmod(run, runs.columns)
        row_step = self.conv.dilation_h * self.conv.input.row
        column_step = self.conv.dilation_w * self.conv.input.pixel
        taps: Array = (row * row_step + column * column_step + part * depth).astype("int32")
        return taps


def pair_chunks(magnitudes: Array, most: int) -> tuple[Array, int, int]:
    """Which chunks of K share words: their order, first those in pairs, and how many are in pairs and how many alone.

    `magnitudes` (integers[chunks, words]) is what a chunk may add to each word: no word may exceed `most`, at most
    255. What is behind those alone exceeds it by itself. The chunk with the largest sum takes the largest one that it
    fits with, of the `MOST_TRIED` smallest, so that small ones are left for others.
    """
    sums = magnitudes.max(axis=1)
    order = np.argsort(sums, kind="stable")
    fitting = int(np.searchsorted(sums[order], most, side="right"))
    ranked = magnitudes[order[:fitting]].astype("uint8")
    left = np.arange(fitting)
    pairs: list[int] = []
    alone: list[int] = []
    while left.size:
        largest, left = int(left[-1]), left[:-1]
        fits = (ranked[left[:MOST_TRIED]] <= most - ranked[largest]).all(axis=1)
        if fits.any():
            place = fits.size - 1 - int(fits[::-1].argmax())
            pairs += [largest, int(left[place])]
            left[place:-1] = left[place + 1 :].copy()
            left = left[:-1]
        else:
            alone.append(largest)
    return order[[*pairs, *alone, *range(fitting, len(order))]], len(pairs), len(alone)
