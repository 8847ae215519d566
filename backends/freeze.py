"""Runs a pipeline on the graph of every input shape, so that all share one set of ranges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..ir.errors import CalibrationError, UsageError
from ..ir.graph import Graph
from ..ir.op import Stage
from ..ir.target import Target
from ..passes.base import Pass, PassContext, Ranges, ignore_progress, ignore_text
from ..passes.calibration.ranges import load_ranges, save_ranges
from ..passes.image_input import ImageInput
from ..passes.observers import PipelineObserver
from ..passes.pipeline import Pipeline, format_pass
from .data import Batches, Source, open_data
from .preprocess import Preprocess

Report = Callable[[str], None]
Progress = Callable[[str, int, int | None], None]


@dataclass
class Freezer:
    """Runs the pipeline on the graph of every plan: the first one calibrates, the others take over its ranges."""

    pipeline: Pipeline
    calibration: Source | None = None
    preprocess: Preprocess | None = None
    limit: int | None = None
    ranges: Ranges = field(default_factory=dict[str, tuple[float, float]])
    observers: Sequence[PipelineObserver] = ()
    report: Report = ignore_text
    progress: Progress = ignore_progress
    target: Target | None = None

    def freeze(self, graphs: Sequence[Graph]) -> tuple[Graph, ...]:
        """The frozen graphs, in the order given; ``ranges`` then holds every range."""
        if all(map(is_frozen, graphs)):
            return tuple(map(self.pipeline.entered, graphs))
        leader = self._fitting(graphs)
        keeper = RangeKeeper()
        frozen = {leader: self._run(graphs[leader], dict(self.ranges), self.calibration, keeper)}
        self.ranges = keeper.ranges or self.ranges
        for index, graph in enumerate(graphs):
            if index != leader:
                frozen[index] = self._run(graph, self.ranges, None, keeper)
        return tuple(frozen[index] for index in range(len(graphs)))

    def _run(self, graph: Graph, ranges: Ranges, calibration: Source | None, keeper: PipelineObserver) -> Graph:
        context = PassContext(
            calibration=open_calibration(graph, calibration, self.preprocess, self.limit, self.pipeline),
            target=self.target,
            ranges=ranges,
            report=self.report,
            progress=self.progress,
        )
        copy = graph.clone()
        self.pipeline.run(copy, context, (*self.observers, keeper))
        return copy

    def _fitting(self, graphs: Sequence[Graph]) -> int:
        """The first plan that the calibration data fits; the first of all when it fits none, for its error."""
        if self.calibration is None or len(graphs) == 1:
            return 0
        for index, graph in enumerate(graphs):
            batches = open_calibration(graph, self.calibration, self.preprocess, 1, self.pipeline)
            try:
                if batches is not None and next(iter(batches)):
                    return index
            except CalibrationError:
                continue
        return 0


@dataclass
class RangeKeeper(PipelineObserver):
    """Takes the ranges out of the graph while it has them."""

    ranges: Ranges = field(default_factory=dict[str, tuple[float, float]])

    def after(self, pass_: Pass, graph: Graph, changed: bool, seconds: float) -> None:
        from ..passes.quantize import ranges

        self.ranges = ranges(graph) or self.ranges


def is_frozen(graph: Graph) -> bool:
    """Whether a graph holds integer ops already."""
    return any(node.op.stage is Stage.INTEGER for node in graph.nodes)


def open_calibration(
    graph: Graph,
    source: Source | None,
    preprocess: str | Preprocess | None,
    limit: int | None,
    pipeline: Pipeline | None = None,
) -> Batches | None:
    """Batches for what ``graph`` takes, or will take in the ``pipeline``; None without a source."""
    if source is None:
        return None
    inputs = {value.name: value.type for value in (pipeline.entered(graph) if pipeline else graph).inputs}
    return open_data(source, inputs, preprocess=parse_preprocess(preprocess), limit=limit)


def parse_preprocess(preprocess: str | Preprocess | None) -> Preprocess | None:
    """Preprocessing that may be given as text."""
    return Preprocess.parse(preprocess) if isinstance(preprocess, str) else preprocess


def fold_normalization(pipeline: str, preprocess: Preprocess | None) -> tuple[str, Preprocess]:
    """The pipeline that makes the network take images and normalize them itself, and the preprocessing that remains.

    Raises:
        UsageError: there is no preprocessing, or it normalizes nothing.
    """
    if preprocess is None:
        what = "an image input needs the preprocessing that becomes part of the network, and none is given"
        raise UsageError(what, hint="--preprocess imagenet, or mean=...,std=...")
    if preprocess.dtype == "uint8":
        what = f"nothing is left to become part of the network: {preprocess}"
        raise UsageError(what, expected="preprocessing of dtype=float32, which normalizes")
    entrance = ImageInput(preprocess.mean, preprocess.std, preprocess.scale, preprocess.layout)
    return f"{format_pass(entrance)},{pipeline}", preprocess.pixels()


def read_ranges(ranges: Ranges | Path | str | None) -> Ranges:
    """Ranges that may be given as a file."""
    return load_ranges(Path(ranges)) if isinstance(ranges, str | Path) else dict(ranges or {})


def write_ranges(ranges: Ranges, path: Path) -> None:
    """Save ranges as JSON, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        save_ranges(ranges, path)
    except OSError as error:
        raise UsageError(f"the ranges cannot be written: {error.strerror}", where=str(path)) from error
