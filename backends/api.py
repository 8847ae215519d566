"""The Python API: trace a model, run passes on its graph, compile it into a bundle.

    graph = octavo.trace(module, (torch.zeros(1, 3, 224, 224),))
    frozen = octavo.optimize(graph, calibration="images/", preprocess="imagenet")
    result = octavo.compile("model.onnx", calibration="images/", preprocess="imagenet", output="model.bundle")
    bundle = octavo.load(result.path)

Everything here raises :class:`~octavo.ir.errors.OctavoError` for a mistake in the model, the data or the options.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.graph import Graph
from ..passes.base import PassContext, Ranges, ignore_progress, ignore_text
from ..passes.observers import PipelineObserver
from ..passes.pipeline import Pipeline
from .cache import Cache
from .data import Source
from .freeze import Progress, Report, fold_normalization, open_calibration, parse_preprocess, read_ranges
from .job import CompileResult, Job, read_labels, run_job
from .models import Model
from .preprocess import Preprocess
from .shapes import Shapes
from .targets import resolve_target

__all__ = ["CompileResult", "compile", "optimize", "trace"]


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
        allow_non_finite: accept NaN and infinite weights.

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
    parsed = pipeline if isinstance(pipeline, Pipeline) else Pipeline.parse(pipeline)
    if context is None:
        context = PassContext(
            calibration=open_calibration(graph, calibration, preprocess, limit, parsed),
            ranges=read_ranges(ranges),
            report=report,
            progress=progress,
        )
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
    image_input: bool = False,
    limit: int | None = None,
    example_inputs: Any = None,
    shapes: Shapes | Sequence[Shapes] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    allow_non_finite: bool = False,
    ranges: Ranges | Path | str | None = None,
    act_ranges: Ranges | None = None,
    pipeline: str = "int8",
    name: str | None = None,
    labels: Sequence[str] | Path | str | None = None,
    compress: bool = False,
    tune: float | None = None,
    overwrite: bool = False,
    jobs: int | None = None,
    cache: str | os.PathLike[str] | None = None,
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
        image_input: the bundle takes images uint8[N,H,W,C] and normalizes them itself, as ``preprocess`` says.
        example_inputs, constants, allow_non_finite: as in :func:`trace`.
        shapes: input shapes by name; a list of them makes one plan each, over shared weights. Ranges are found on the
            first that the calibration data fits, and serve all.
        ranges: as in :func:`optimize`.
        act_ranges: more ranges by name; they win over ``ranges``.
        pipeline: the passes that freeze the network.
        name: of the bundle and, spelled as a C identifier, the prefix of its functions.
        labels: names of the classes, or a file with one on each line.
        compress: store the weights entropy coded, which pays for sparse and shared ones; they are decoded on loading.
        tune: seconds to search for faster kernels by measuring on this machine; ``cache`` keeps what was found.
        overwrite: replace an existing bundle.
        jobs: processes that generate kernels; as many as CPUs by default.
        cache: a folder that keeps bundles, so that the same compilation is a copy the next time.

    Raises:
        OctavoError: any mistake in the model, the data or the options; nothing is left half-written.
    """
    steps = parse_preprocess(preprocess)
    if image_input:
        pipeline, steps = fold_normalization(pipeline, steps)
    job = Job(
        model=Model(model, example_inputs, None, dict(constants or {}), allow_non_finite),
        output=Path(output),
        target=resolve_target(target, mcpu, features),
        plans=[shapes] if isinstance(shapes, Mapping) else list(shapes or ()),
        pipeline=pipeline,
        calibration=calibration,
        preprocess=steps,
        limit=limit,
        ranges={**read_ranges(ranges), **(act_ranges or {})},
        name=name,
        labels=read_labels(labels),
        compress=compress,
        tune=tune,
    )
    jobs = jobs or len(os.sched_getaffinity(0))
    return run_job(job, Cache(Path(cache)) if cache else None, overwrite, jobs, observers, report, progress)
