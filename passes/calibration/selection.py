"""Which of several calibration methods serves a network best: try each on samples, and compare the outputs.

No method wins everywhere: clipping pays where a few elements lie far out, and costs where they decide. What a method
does to single activations does not tell; the outputs do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ...ir.graph import Graph, Node
from ...ir.interpreter import run_graph
from ...ir.ops.quantize import Observer
from ..base import Feeds
from ..quantize import quantize_activations
from .thresholds import Bounds

SAMPLES = 16
"""How many samples are kept to try methods on, one batch at least."""

CLEAN = 60.0
"""Signal to noise in dB that is as good as none: a saturated softmax would otherwise outweigh all other samples."""

Outputs = Mapping[str, np.ndarray]
Candidates = Mapping[Node, Mapping[str, Bounds]]
"""The range that each method suggests, by observer."""


@dataclass
class Samples:
    """A few batches, spread over the data where its length is known, with the float network's outputs."""

    total: int | None
    kept: list[tuple[Feeds, Outputs]] = field(default_factory=list)

    def offer(self, number: int, feeds: Feeds, outputs: Outputs) -> None:
        """Take batch ``number`` (from 0), or leave it."""
        rows = max((array.shape[0] for array in feeds.values() if array.ndim), default=1)
        wanted = max(1, SAMPLES // max(1, rows))
        every = max(1, (self.total or 0) // wanted)
        if len(self.kept) < wanted and number % every == 0:
            self.kept.append((feeds, outputs))


def choose_method(
    graph: Graph, candidates: Candidates, samples: Samples, progress: Callable[[str, int, int | None], None]
) -> dict[str, float]:
    """SQNR of the outputs in dB by method, best first, when only activations are quantized.

    The observers of ``graph`` must hold bounds wherever ``candidates`` has none for them. They are left with those of
    the method that was tried last.
    """
    methods = dict.fromkeys(name for ranges in candidates.values() for name in ranges)
    found: dict[str, float] = {}
    for done, method in enumerate(methods):
        progress("compare ranges", done, len(methods))
        set_bounds(candidates, method)
        trial = graph.clone()
        quantize_activations(trial)
        found[method] = _sqnr(trial, samples.kept)
    progress("compare ranges", len(methods), len(methods))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def set_bounds(candidates: Candidates, method: str) -> None:
    """Give every observer the range of ``method``, or of its own first one where it knows no such method."""
    for node, ranges in candidates.items():
        assert isinstance(node.op, Observer)
        node.op = replace(node.op, bounds=ranges.get(method, next(iter(ranges.values()))))


def _sqnr(graph: Graph, samples: Sequence[tuple[Feeds, Outputs]]) -> float:
    """Signal to noise in dB, the mean over outputs and batches: one sample that is on the verge weighs as any other."""
    ratios: list[float] = []
    for feeds, reference in samples:
        answers = run_graph(graph, feeds)
        ratios += [_decibel(reference[name], answers[name]) for name in reference]
    return float(np.mean(ratios))


def _decibel(reference: np.ndarray, other: np.ndarray) -> float:
    """10 log10 of the power of the reference over that of the difference, at most ``CLEAN`` either way."""
    x, y = reference.astype(np.float64), other.astype(np.float64)
    known = np.isfinite(x) & np.isfinite(y)
    signal, noise = (float(np.square(part[known]).sum()) for part in (x, x - y))
    return float(np.clip(10 * np.log10((signal + 1e-30) / (noise + 1e-30)), -CLEAN, CLEAN))
