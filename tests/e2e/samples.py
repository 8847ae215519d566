"""The frozen graphs that the tests run, and on which levels."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from e2e.bundles import ARM_LEVELS, X86_LEVELS, Feeds
from e2e.random_graphs import calibration, random_feeds, random_graph
from octavo.backends.compiler import exactness
from octavo.ir import Graph, Value, run_graph
from octavo.ir.op import Quantization
from octavo.ir.types import DType
from octavo.passes.base import PassContext
from octavo.passes.pipeline import Pipeline

PIPELINE = "fold-qdq,prepare,compose,observe{method=mse},calibrate,quantize,lower-integer,finish"
"""What ``int8`` runs, but for its rule that layer norms stay in float: here every op is to become integer."""

BATCH = 13
"""Seeds of one batch: no divisor of the number of recipes, so that every recipe meets every level."""
CI_BATCHES = 12
NIGHTLY_BATCHES = 200


@dataclass(frozen=True)
class Sample:
    """A frozen graph, an input, and the levels it is compiled for."""

    seed: int
    graph: Graph
    feeds: Feeds
    levels: tuple[str, ...]


@functools.cache
def frozen(seed: int) -> Graph:
    """The random graph of a seed after the whole pipeline."""
    graph = random_graph(seed)
    Pipeline.parse(PIPELINE).run(graph, PassContext(calibration=calibration(graph, seed)))
    return graph


def is_exact(graph: Graph) -> bool:
    """Whether every op has an exact definition: only then are the bytes of the outputs known."""
    return exactness(graph) == "bit-exact"


def batch_levels(batch: int) -> tuple[str, str]:
    """One level of each architecture."""
    return X86_LEVELS[batch % len(X86_LEVELS)], ARM_LEVELS[batch % len(ARM_LEVELS)]


def seeds(batch: int) -> range:
    """The seeds of a batch."""
    return range(batch * BATCH, (batch + 1) * BATCH)


def samples(batch: int) -> Iterator[Sample]:
    """The graphs of a batch that are integer throughout."""
    for seed in seeds(batch):
        graph = frozen(seed)
        if is_exact(graph):
            yield Sample(seed, graph, random_feeds(graph, seed), batch_levels(batch))


# What a graph contains ---------------------------------------------------------------------------------------------


def integer_ops(graph: Graph) -> set[str]:
    """Names of the ops that make or read quantized values."""
    return {
        node.op.name
        for node in graph.nodes
        if node.inputs and any(value.type.quant is not None for value in (*node.inputs, *node.outputs))
    }


def entropies(graph: Graph, feeds: Feeds, least: int = 64) -> dict[str, float]:
    """Bits per element of the quantized values of at least so many elements that some arithmetic made."""
    found: dict[str, float] = {}

    def observe(value: Value, tensor: torch.Tensor) -> None:
        if _is_computed(value) and tensor.numel() >= least:
            found[value.name] = entropy(tensor.numpy())

    run_graph(graph, feeds, observe)
    return found


def entropy(array: npt.NDArray[np.int8]) -> float:
    """Bits per element of the distribution of its values."""
    _, counts = np.unique(array, return_counts=True)
    share = counts / counts.sum()
    return float(-(share * np.log2(share)).sum())


def _is_computed(value: Value) -> bool:
    moves = (Quantization.PRESERVING, Quantization.JOINING)
    op = value.op
    return value.type.dtype is DType.I8 and value.type.quant is not None and op is not None and op.rule not in moves


def count(batches: int, fits: Callable[[Graph], bool]) -> int:
    """How many graphs of the batches fit."""
    return sum(fits(frozen(seed)) for batch in range(batches) for seed in seeds(batch))
