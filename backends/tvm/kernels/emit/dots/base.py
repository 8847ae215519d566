"""Register tiles: what the inner loops of matrix kernels share. Imports tvm.

A tile is a few pixels by a few vectors of channels. `Dots.accumulate` emits the loops over K and returns the
accumulators, bias included, as one list of native int32 vectors for every pixel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

from ....builder import Buffer, Builder, Expr, Index, cast, i64, vector
from ....isa.vector import VectorOps
from ...base import CACHE_LINE
from ...tiling import Runs

#: Steps of K of which the first one is emitted apart, to begin the sums. It costs each of the others two instructions.
MOST_PEELED = 8


@dataclass(frozen=True)
class Sharing:
    """Several `groups` in a vector of channels: each has `depth` bytes of a pixel, and `channels` lanes."""

    groups: int
    depth: int
    channels: int


@dataclass(frozen=True)
class Operands:
    """What a tile multiplies: the activation and weight buffers, and where the runs of K lie in the activations.

    `lying` are these runs where pixels are made ready, and `runs` what is multiplied then. Each step of K asks for
    `ahead` cache lines of the weights that come next. The bias, and the results, are `paired` as in a `Dot`. Groups
    that are `shared` lie side by side, in a pixel too. Of the last of several vectors of channels, or of the only one,
    the upper `half` of the lanes may be without channels.
    """

    x: Buffer
    weight: Buffer
    bias: Buffer | None
    runs: Runs
    row_step: int
    column_step: int
    vectors: int
    ahead: int = 0
    lying: Runs | None = None
    paired: bool = False
    shared: Sharing | None = None
    half: bool = False


Accumulators = list[list[Expr]]
Step = Callable[[Index, Index, int], None]


class Dots(ABC):
    """Emits register tiles for one kind of multiply-accumulate instruction."""

    #: Whether LLVM is kept from unrolling the loop over K: whole, it spills, or it is long.
    rolled: ClassVar[bool] = True

    def __init__(self, b: Builder, ops: VectorOps, operands: Operands) -> None:
        self.b, self.ops, self.operands = b, ops, operands
        self.width = operands.vectors * ops.lanes
        self._ahead: Buffer | None = None

    def aim(self, weight: Expr) -> None:
        """Say which weights are next: each step of K asks for some lines of them, from element `weight` on."""
        if self.operands.ahead:
            self._ahead = self._ahead or self.b.registers(1, "int64", "ahead")
            self.b.store(self._ahead, 0, weight)

    def fetch_ahead(self) -> None:
        """Ask the second-level cache for the next lines."""
        if self._ahead is None:
            return
        count, weight = self.operands.ahead, self.operands.weight
        elements = CACHE_LINE // (2 if weight.dtype == "int16" else 1)
        place = self.b.let(self._ahead[0])
        for line in range(count):
            self.b.prefetch(weight, place + line * elements)
        self.b.store(self._ahead, 0, place + count * elements)

    def read(self, x: Buffer) -> None:
        """Take pixels from another buffer."""
        self.operands = replace(self.operands, x=x)

    def begin(self) -> None:  # noqa: B027 - most instructions need no preparation
        """Emitted once at the start of the kernel."""

    def share(self, other: Dots) -> None:  # noqa: B027
        """Use what `begin` of another instance in the same kernel prepared, instead of an own `begin`."""

    def end(self) -> None:  # noqa: B027
        """Emitted once before the kernel returns."""

    def gather(self, x: Expr, pixels: Sequence[Index]) -> None:  # noqa: B027
        """What the tiles of all channel blocks at these pixels need, before the first `accumulate`."""

    @abstractmethod
    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        """The accumulators of the pixels at offsets `pixels` from element `x`, with weights from element `weight` on.

        `channel` is the index of the block's first channel in the bias.
        """

    def bias(self, channel: Expr) -> list[Expr]:
        """The bias vectors of a block."""
        if self.operands.bias is None:
            return [self.ops.const_i32(0)] * self.operands.vectors
        return self.ops.load_words(self.b, self.operands.bias, channel, self.width)

    def start(self, pixels: int, channel: Expr) -> Buffer:
        """Accumulators that hold the bias, one for every pixel and channel vector."""
        acc = self.b.registers(pixels * self.operands.vectors, self.ops.i32, "acc")
        bias = self.bias(channel)
        for pixel in range(pixels):
            for v, value in enumerate(bias):
                self.b.store(acc, pixel * self.operands.vectors + v, value)
        return acc

    def results(self, acc: Buffer, pixels: int) -> Accumulators:
        """The accumulators by pixel."""
        vectors = self.operands.vectors
        return [[acc[pixel * vectors + v] for v in range(vectors)] for pixel in range(pixels)]

    def walk(self, x: Expr, weight: Expr, step: Step, first: Step | None = None) -> None:
        """Emit the loops over K; `step` gets the activation index, the weight index and the bytes of K to take.

        Where K is a single run of at most `MOST_PEELED` steps, `first` takes the place of `step` once.
        """
        walk(self.b, self.operands, x, weight, self.width, step, first, rolled=self.rolled)


def walk(
    b: Builder,
    operands: Operands,
    x: Expr,
    other: Expr,
    width: int,
    step: Step,
    first: Step | None = None,
    *,
    rolled: bool = True,
) -> None:
    """`Dots.walk`, where a byte of K takes `width` elements from `other` on."""
    runs = operands.runs
    whole, tail = divmod(runs.padded, runs.chunk)
    peeled = int(first is not None and runs.count == 1 and 0 < whole <= MOST_PEELED)
    with loop(b, runs.rows) as row, loop(b, runs.columns) as column:
        begin = b.let(x + row * operands.row_step + column * operands.column_step)
        start = b.let(other + (row * runs.columns + column) * (runs.padded * width))
        if first is not None and peeled:
            first(begin, start, runs.chunk)
            begin, start = b.let(begin + runs.chunk), b.let(start + runs.chunk * width)
        whole -= peeled
        if whole:
            with loop(b, whole, opaque=rolled) as k:
                step(begin + k * runs.chunk, start + k * (runs.chunk * width), runs.chunk)
        if tail:
            last = first if first is not None and runs.count == 1 and runs.padded == tail else step
            last(begin + whole * runs.chunk, start + whole * runs.chunk * width, tail)


@contextmanager
def loop(b: Builder, count: int, *, opaque: bool = False) -> Generator[Expr]:
    """A loop from 0, or nothing around a single pass; LLVM does not unroll an opaque one."""
    if count == 1:
        yield i64(0)
        return
    with b.loop(0, b.opaque(count) if opaque else count) as index:
        yield index


class VectorDots(Dots):
    """Tiles whose accumulators are one native vector for every pixel and channel vector."""

    def accumulate(self, x: Expr, pixels: Sequence[int], weight: Expr, channel: Expr) -> Accumulators:
        acc = self.start(len(pixels), channel)
        self.walk(x, weight, lambda at, w, depth: self.step(acc, at, pixels, w, depth))
        return self.results(acc, len(pixels))

    def weight_words(self, place: Index) -> Expr:
        """A vector of weights as words, which they may be already."""
        lanes = 2 * self.ops.lanes
        weights = self.operands.weight.load(place, lanes)
        return self.b.let(cast(vector("int16", lanes), weights) if self.operands.weight.dtype == "int8" else weights)

    @abstractmethod
    def step(self, acc: Buffer, x: Index, pixels: Sequence[int], weight: Index, depth: int) -> None:
        """Add `depth` products of every pixel and channel."""
