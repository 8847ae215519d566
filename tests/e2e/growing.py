"""A float graph under construction: values to read from, and a source of decisions that a seed determines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from octavo.ir import Graph, Tensor, Value
from octavo.ir.errors import ModelError
from octavo.ir.op import Op
from octavo.ir.types import f32
from support.blocks import draw_blocks, spread_blocks

Choice = TypeVar("Choice")

MAX_SIZE = 6000
"""Elements of the largest value."""
MAX_MACS = 600_000
"""Multiply-accumulates of the largest node: the slowest levels run under emulators."""
CHANNELS = (1, 2, 3, 4, 5, 7, 8, 11, 12, 15, 16, 17, 20, 24, 31, 32, 33, 40, 48, 63, 64, 65)
SPARSE = 0.5
LEAST_SPARSE = 12
"""The share of weights with blocks of zeros, among those of which an output sums so many."""
MATRIX_RANK = 2
IMAGE_RANK = 4


class Grower:
    """Collects a graph; every value that a recipe adds may be read by the next ones."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.zeros = np.random.default_rng([seed, 1])
        self.graph = Graph(f"random{seed}")
        self.values: list[Value] = []
        self._origin = ""
        self._nodes = 0

    # Decisions --------------------------------------------------------------------------------------------------------

    def choose(self, options: Sequence[Choice]) -> Choice:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def upto(self, low: int, high: int) -> int:
        """A number in [low, high]."""
        return int(self.rng.integers(low, high + 1))

    def pick(self, fits: Callable[[Value], bool], *, inputs: bool = False) -> Value | None:
        """A value that fits, most likely one of the last; graph inputs only for layers that multiply and accumulate.

        What nothing but an input feeds stays in float unless such a layer is beside it.
        """
        made = [value for value in reversed(self.values) if inputs or value.producer is not None]
        candidates = [value for value in made if fits(value)]
        if not candidates:
            return None
        return candidates[min(int(self.rng.geometric(0.35)) - 1, len(candidates) - 1)]

    def image(self) -> Value | None:
        return self.pick(lambda value: value.type.rank == IMAGE_RANK, inputs=True)

    def factor(self, size: int) -> int:
        """A divisor."""
        return self.choose([d for d in range(1, size + 1) if size % d == 0])

    # Building ---------------------------------------------------------------------------------------------------------

    def input(self, shape: Sequence[int]) -> Value:
        value = self.graph.add_input("x", f32(*shape))
        self.values.append(value)
        return value

    def weights(self, *shape: int, inputs: int = 1) -> Value:
        """Random weights that keep the size of what they are multiplied with; now and then a dead or a loud channel."""
        array = self.rng.normal(size=shape) / np.sqrt(max(inputs, 1))
        if shape[0] > 1 and self.chance(0.15):
            array[self.upto(0, shape[0] - 1)] *= self.choose([0.0, 12.0])
        if inputs >= LEAST_SPARSE and self.zeros.random() < SPARSE:
            array *= some_blocks(shape, self.zeros)
        return self.constant(array)

    def constant(self, array: npt.ArrayLike) -> Value:
        return self.graph.constant(Tensor.of(np.asarray(array, np.float32)), origin=self._origin)

    def indices(self, array: npt.ArrayLike) -> Value:
        return self.graph.constant(Tensor.of(np.asarray(array, np.int64)), origin=self._origin)

    def start(self, recipe: str) -> None:
        """What follows belongs to one layer of the recipe."""
        self._nodes += 1
        self._origin = f"{recipe}{self._nodes}"

    def add(self, op: Op, *inputs: Value) -> Value | None:
        """One node, whose result may be read by others; None where it would be empty, too large or too much work."""
        try:
            (type,) = op.infer(*(value.type for value in inputs))
        except ModelError:
            return None
        work = op.cost([value.type for value in inputs], [type])
        if not 0 < type.size <= MAX_SIZE or work.macs > MAX_MACS:
            return None
        value = self.graph.insert(op, inputs, origin=self._origin).output
        self.values.append(value)
        return value

    def finish(self) -> Graph:
        """Everything nobody reads is an output, and some of what is read."""
        made = [value for value in self.values if value.producer is not None]
        outputs = [value for value in made if not value.uses or self.chance(0.08)]
        self.graph.set_outputs(outputs)
        return self.graph


def dims(value: Value) -> tuple[int, ...]:
    return value.type.static_shape


def some_blocks(shape: Sequence[int], rng: np.random.Generator) -> npt.NDArray[np.int8]:
    """Ones in some of the blocks of a weight, and in some of each 16 outputs, zeros in the others."""
    kept = draw_blocks(shape, rng) < rng.uniform(0.2, 0.8)
    kept[:, int(rng.integers(kept.shape[1]))] = True
    return spread_blocks(kept, shape)
