"""The Python API: trace a model, run passes on its graph, compile it into a bundle.

    graph = octavo.trace(module, (torch.zeros(1, 3, 224, 224),))
    frozen = octavo.optimize(graph, calibration="images/", preprocess="imagenet")
    result = octavo.compile("model.onnx", calibration="images/", preprocess="imagenet", output="model.bundle")
    bundle = octavo.load(result.path)

Everything here raises :class:`~octavo.ir.errors.OctavoError` for a mistake in the model, the data or the options.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..ir.errors import UsageError
from ..ir.graph import Graph
from ..ir.op import Stage
from ..passes.base import Pass, PassContext, Ranges, ignore_progress, ignore_text
from ..passes.calibration.ranges import load_ranges, save_ranges
from ..passes.observers import PipelineObserver
from ..passes.pipeline import Pipeline
from .data import Source, open_data
from .models import Model
from .preprocess import Preprocess
from .shapes import Shapes
from .targets import resolve_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from .bundle.loader import Bundle
    from .bundle.manifest import Json, Manifest

    Report = Callable[[str], None]
    Progress = Callable[[str, int, int | None], None]

__all__ = ["CompileResult", "compile", "optimize", "trace"]


@dataclass(frozen=True)
class CompileResult:
    """A written bundle: its folder, its manifest, and the ranges that reproduce it."""

    path: Path
    manifest: Manifest
    ranges: Ranges

    def load(self) -> Bundle:
        """The bundle, ready to run on this machine."""
        from .bundle.loader import load

        return load(self.path)


def trace(
    model: Any,
    example_inputs: Any = None,
    *,
    shapes: Shapes | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    name: str | None = None,
    allow_non_finite: bool = False,
) -> Graph:
    """A model as a float graph.

    Args:
        model: an ``nn.Module``, ``fx.GraphModule`` or ``ExportedProgram``; an ONNX ``ModelProto``; the path of an
            ``.onnx``, ``.pt2`` or ``.octavo`` file; or a graph, which is copied.
        example_inputs: arguments of one call, needed for modules.
        shapes: input shapes by name, where they differ from the model's own.
        constants: ONNX inputs by name whose values are known at compile time.
        name: of the graph.
        allow_non_finite: accept NaN and infinite ONNX weights.

    Raises:
        ModelError: the model cannot be read.
        UnsupportedError: lists every operation without a translation.
    """
    return Model(model, example_inputs, name, dict(constants or {}), allow_non_finite).trace(shapes)


def optimize(
    graph: Graph,
    pipeline: str | Pipeline = "int8",
    *,
    calibration: Source | None = None,
    preprocess: str | Preprocess | None = None,
    limit: int | None = None,
    ranges: Ranges | Path | str | None = None,
    observers: Sequence[PipelineObserver] = (),
    report: Report = ignore_text,
    progress: Progress = ignore_progress,
    context: PassContext | None = None,
) -> Graph:
    """A copy of ``graph`` after the passes of ``pipeline``.

    Args:
        calibration: where quantization finds ranges; see :func:`octavo.backends.data.open_data`.
        preprocess: how calibration images become inputs.
        limit: use at most this many calibration samples.
        ranges: ranges by the name of their value, or a JSON file of them; they replace what calibration finds.
        observers: watch the passes; see :mod:`octavo.passes.observers`.
        report: receives one line for the user at a time.
        progress: receives (label, done, total or None).
        context: everything passes may need, instead of the arguments above.
    """
    if context is None:
        context = PassContext(
            calibration=_open_calibration(graph, calibration, preprocess, limit),
            ranges=_read_ranges(ranges),
            report=report,
            progress=progress,
        )
    parsed = pipeline if isinstance(pipeline, Pipeline) else Pipeline.parse(pipeline)
    copy = graph.clone()
    parsed.run(copy, context, observers)
    return copy


def compile(
    model: Any,
    *,
    output: str | os.PathLike[str],
    target: str = "x86-int8",
    mcpu: str | None = None,
    features: Sequence[str] | None = None,
    calibration: Source | None = None,
    preprocess: str | Preprocess | None = None,
    limit: int | None = None,
    example_inputs: Any = None,
    shapes: Shapes | Sequence[Shapes] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    ranges: Ranges | Path | str | None = None,
    act_ranges: Ranges | None = None,
    pipeline: str = "int8",
    name: str | None = None,
    labels: Sequence[str] | Path | str | None = None,
    overwrite: bool = False,
    jobs: int | None = None,
    observers: Sequence[PipelineObserver] = (),
    report: Report = ignore_text,
    progress: Progress = ignore_progress,
) -> CompileResult:
    """Compile a model into the bundle folder ``output``.

    Args:
        model: as in :func:`trace`; a graph that is frozen already is compiled as it is.
        target: ``x86-int8`` or ``arm-int8``: kernels for every level, chosen when the bundle is loaded.
        mcpu: only the best level of this CPU; ``native`` is the machine at hand.
        features: only these levels.
        calibration, preprocess, limit: as in :func:`optimize`; the preprocessing is noted in the bundle.
        example_inputs, constants: as in :func:`trace`.
        shapes: input shapes by name; a list of them makes one plan each, over shared weights. Ranges are found on the
            first that the calibration data fits, and serve all.
        ranges: as in :func:`optimize`.
        act_ranges: more ranges by name; they win over ``ranges``.
        pipeline: the passes that freeze the network.
        name: of the bundle and, spelled as a C identifier, the prefix of its functions.
        labels: names of the classes, or a file with one on each line.
        overwrite: replace an existing bundle.
        jobs: processes that generate kernels; as many as CPUs by default.

    Raises:
        OctavoError: any mistake in the model, the data or the options; nothing is left half-written.
    """
    from .. import __version__
    from .compiler import compile_graphs

    selected = resolve_target(target, mcpu, features)
    parsed = Pipeline.parse(pipeline)
    preprocessing = _parse_preprocess(preprocess)
    label_names = read_labels(labels)
    fixed = {**_read_ranges(ranges), **(act_ranges or {})}
    plans = [shapes] if isinstance(shapes, Mapping) else list(shapes or ())
    graphs = Model(model, example_inputs, None, dict(constants or {})).trace_fixed(plans)
    freezer = Freezer(parsed, calibration, preprocessing, limit, fixed, observers, report, progress)
    frozen = freezer.freeze(graphs)
    bundle_name = name or graphs[0].name
    made: dict[str, Json] = {
        "octavo": __version__,
        "pipeline": str(parsed),
        "ranges": {key: [low, high] for key, (low, high) in sorted(freezer.ranges.items())},
    }
    manifest = compile_graphs(
        frozen,
        selected,
        Path(output),
        name=bundle_name,
        prefix=prefix_of(bundle_name),
        made=made,
        preprocessing=None if preprocessing is None else preprocessing.to_json(),
        labels=label_names,
        overwrite=overwrite,
        jobs=jobs or len(os.sched_getaffinity(0)),
        progress=progress,
    )
    return CompileResult(Path(output), manifest, freezer.ranges)


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

    def freeze(self, graphs: Sequence[Graph]) -> tuple[Graph, ...]:
        """The frozen graphs, in the order given; ``ranges`` then holds every range."""
        if all(map(is_frozen, graphs)):
            return tuple(graphs)
        leader = self._fitting(graphs)
        keeper = _RangeKeeper()
        frozen = {leader: self._run(graphs[leader], dict(self.ranges), self.calibration, keeper)}
        self.ranges = keeper.ranges or self.ranges
        for index, graph in enumerate(graphs):
            if index != leader:
                frozen[index] = self._run(graph, self.ranges, None, keeper)
        return tuple(frozen[index] for index in range(len(graphs)))

    def _run(self, graph: Graph, ranges: Ranges, calibration: Source | None, keeper: PipelineObserver) -> Graph:
        context = PassContext(
            calibration=_open_calibration(graph, calibration, self.preprocess, self.limit),
            ranges=ranges,
            report=self.report,
            progress=self.progress,
        )
        return optimize(graph, self.pipeline, observers=(*self.observers, keeper), context=context)

    def _fitting(self, graphs: Sequence[Graph]) -> int:
        """The first plan that the calibration data fits; the first of all when it fits none, for its error."""
        from ..ir.errors import CalibrationError

        if self.calibration is None or len(graphs) == 1:
            return 0
        for index, graph in enumerate(graphs):
            batches = _open_calibration(graph, self.calibration, self.preprocess, 1)
            try:
                if batches is not None and next(iter(batches)):
                    return index
            except CalibrationError:
                continue
        return 0


@dataclass
class _RangeKeeper(PipelineObserver):
    """Takes the ranges out of the graph while it has them."""

    ranges: Ranges = field(default_factory=dict[str, tuple[float, float]])

    def after(self, pass_: Pass, graph: Graph, changed: bool, seconds: float) -> None:
        from ..passes.quantize import ranges

        self.ranges = ranges(graph) or self.ranges


def is_frozen(graph: Graph) -> bool:
    """Whether a graph holds integer ops already."""
    return any(node.op.stage is Stage.INTEGER for node in graph.nodes)


def prefix_of(name: str) -> str:
    """The C identifier that a bundle of this name puts before its symbols."""
    word = re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_")
    return word if word[:1].isalpha() else f"net_{word}".rstrip("_")


def read_labels(labels: Sequence[str] | Path | str | None) -> tuple[str, ...] | None:
    """Class names, from a file with one on each line when it is a path.

    Raises:
        UsageError: the file cannot be read, or is empty.
    """
    if labels is None or not isinstance(labels, str | Path):
        return None if labels is None else tuple(labels)
    try:
        lines = tuple(Path(labels).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the labels cannot be read: {reason}", where=str(labels)) from error
    if not lines:
        raise UsageError("the file of labels is empty", where=str(labels), expected="one label on each line")
    return lines


def write_ranges(ranges: Ranges, path: Path) -> None:
    """Save ranges as JSON, whole or not at all.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        save_ranges(ranges, path)
    except OSError as error:
        raise UsageError(f"the ranges cannot be written: {error.strerror}", where=str(path)) from error


def _open_calibration(
    graph: Graph, source: Source | None, preprocess: str | Preprocess | None, limit: int | None
) -> Any:
    if source is None:
        return None
    inputs = {value.name: value.type for value in graph.inputs}
    return open_data(source, inputs, preprocess=_parse_preprocess(preprocess), limit=limit)


def _parse_preprocess(preprocess: str | Preprocess | None) -> Preprocess | None:
    return Preprocess.parse(preprocess) if isinstance(preprocess, str) else preprocess


def _read_ranges(ranges: Ranges | Path | str | None) -> Ranges:
    return load_ranges(Path(ranges)) if isinstance(ranges, str | Path) else dict(ranges or {})
