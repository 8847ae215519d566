"""How far a compiled or frozen network is from its float original: per output, and value by value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from ..ir.errors import InputError
from ..ir.graph import Graph, Value
from ..ir.interpreter import run_graph, to_numpy
from ..ir.ops.constant import Constant
from ..ir.ops.quantize import dequantize_array
from ..passes.base import Exactness, Pass, PassContext, Ranges
from ..passes.observers import PipelineObserver
from ..passes.pipeline import Pipeline
from .batches import Feeds

if TYPE_CHECKING:
    import torch

Run: TypeAlias = Callable[[Feeds], Mapping[str, np.ndarray]]


@dataclass
class Difference:
    """Errors of one value, summed over batches.

    ``sqnr`` is the signal to noise ratio in decibels, ``flips`` of ``rankings`` are places whose largest element is
    another one (only counted for class scores: two or three dimensions, the last one the classes).
    """

    name: str
    signal: float = 0.0
    noise: float = 0.0
    largest_error: float = 0.0
    flips: int = 0
    rankings: int = 0
    elements: int = 0
    differing: int = 0

    def add(self, reference: np.ndarray, other: np.ndarray) -> None:
        """Count one batch.

        Raises:
            InputError: the two have different shapes.
        """
        if reference.shape != other.shape:
            raise InputError(f"{self.name} is {list(other.shape)}", expected=str(list(reference.shape)))
        x, y = reference.astype(np.float64), other.astype(np.float64)
        error = np.abs(x - y)
        self.signal += float(np.square(x).sum())
        self.noise += float(np.square(error).sum())
        self.largest_error = max(self.largest_error, float(error.max(initial=0.0)))
        self.elements += x.size
        self.differing += int(np.count_nonzero(error))
        if x.ndim in (2, 3) and x.shape[-1] > 1:
            self.flips += int(np.count_nonzero(x.argmax(axis=-1) != y.argmax(axis=-1)))
            self.rankings += math.prod(x.shape[:-1])

    @property
    def sqnr(self) -> float:
        if self.noise == 0.0:
            return math.inf
        return 10.0 * math.log10(self.signal / self.noise) if self.signal else -math.inf


@dataclass
class ValueDifference:
    """The error of one value inside the network, and the node that makes it."""

    where: str
    op: str
    difference: Difference


@dataclass
class _Comparison:
    outputs: dict[str, Difference] = field(default_factory=dict[str, Difference])
    batches: int = 0


def compare_outputs(
    reference: Run, other: Run, batches: Iterable[Feeds], progress: Callable[[int], None] = lambda done: None
) -> tuple[list[Difference], int]:
    """Differences of every output, and how many batches were run.

    Raises:
        InputError: the two have other outputs.
    """
    found = _Comparison()
    for feeds in batches:
        left, right = reference(feeds), other(feeds)
        if left.keys() != right.keys():
            raise InputError(f"the outputs are {', '.join(right)}", expected=", ".join(left))
        for name, array in left.items():
            found.outputs.setdefault(name, Difference(name)).add(array, right[name])
        found.batches += 1
        progress(found.batches)
    return list(found.outputs.values()), found.batches


def compare_values(
    prepared: Graph, frozen: Graph, batches: Iterable[Feeds], progress: Callable[[int], None] = lambda done: None
) -> list[ValueDifference]:
    """Differences of every value that both graphs make, in the order of the frozen one.

    Integers are compared by the real numbers they mean. ``prepared`` is the float graph just before the pass that
    quantizes, so that fused activations are part of both.
    """
    pairs = _pair(prepared, frozen)
    found = {
        value: ValueDifference(value.producer.where, value.producer.op.name, Difference(value.name))
        for value in pairs
        if value.producer is not None
    }
    wanted = {value.name for value in pairs.values()}
    for done, feeds in enumerate(batches, 1):
        reference: dict[str, np.ndarray] = {}

        def keep(value: Value, tensor: torch.Tensor, into: dict[str, np.ndarray] = reference) -> None:
            if value.name in wanted:
                into[value.name] = to_numpy(tensor)

        def measure(value: Value, tensor: torch.Tensor, known: dict[str, np.ndarray] = reference) -> None:
            if value in found:
                found[value].difference.add(known[pairs[value].name], _real(value, to_numpy(tensor)))

        run_graph(prepared, feeds, keep)
        run_graph(frozen, feeds, measure)
        progress(done)
    return list(found.values())


def freeze_and_keep(graph: Graph, pipeline: str, ranges: Ranges) -> tuple[Graph, Graph]:
    """The float graph as it was just before quantization, and the frozen one."""
    keeper = _BeforeLossy()
    frozen = graph.clone()
    Pipeline.parse(pipeline).run(frozen, PassContext(ranges=ranges), [keeper])
    return keeper.graph or graph, frozen


@dataclass
class _BeforeLossy(PipelineObserver):
    """Copies the graph before the first pass that changes its function."""

    graph: Graph | None = None

    def before(self, pass_: Pass, graph: Graph) -> None:
        if self.graph is None and pass_.exactness is Exactness.LOSSY:
            self.graph = graph.clone()


def worst_first(values: Sequence[ValueDifference]) -> list[ValueDifference]:
    """Values with the lowest signal to noise ratio first."""
    return sorted(values, key=lambda v: v.difference.sqnr)


def _pair(prepared: Graph, frozen: Graph) -> dict[Value, Value]:
    """The float value behind each value of the frozen graph: passes derive names, ``conv`` -> ``conv.fq.q``."""
    originals = {value.name: value for value in prepared.values()}
    pairs: dict[Value, Value] = {}
    for value in frozen.values():
        original = originals.get(value.name) or originals.get(_base_name(value.name))
        comparable = original is not None and original.type.shape == value.type.shape
        if original is not None and comparable and _is_real(value) and not isinstance(value.op, Constant):
            pairs[value] = original
    return pairs


def _base_name(name: str) -> str:
    return re.sub(r"(\.(q|fq|observed)(_\d+)?)+$", "", name)


def _is_real(value: Value) -> bool:
    """Whether the elements mean real numbers: floats, or integers on a grid."""
    return value.producer is not None and (value.type.dtype.is_float or value.type.quant is not None)


def _real(value: Value, array: np.ndarray) -> np.ndarray:
    return array if value.type.quant is None else dequantize_array(array, value.type.quant)
