"""Ways to choose quantization options beside each other, in the interpreter's fake quantization (no kernels needed)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from octavo.backends.models import Model
from octavo.ir.graph import Graph
from octavo.ir.interpreter import run_graph
from octavo.passes.base import Feeds, PassContext
from octavo.passes.pipeline import Pipeline

from .building import source_of
from .subjects import Subject

MODELS = ("mobilenet_v2", "efficientnet_lite0", "ppocr_cls", "page_orientation", "crepe_tiny", "ppocr_rec", "minilm_l6")
KEEP = "keep-float=[op:layer_norm]"
BEST = "mse|minmax|percentile:99.99"
OPTIONS = {
    "the best of three (the default)": f"observe{{method={BEST},{KEEP}}},calibrate,quantize",
    "mse": f"observe{{method=mse,{KEEP}}},calibrate,quantize",
    "minmax": f"observe{{method=minmax,{KEEP}}},calibrate,quantize",
    "percentile:99.99": f"observe{{method=percentile:99.99,{KEEP}}},calibrate,quantize",
    "entropy": f"observe{{method=entropy,{KEEP}}},calibrate,quantize",
    "default, weights to the nearest": f"observe{{method={BEST},{KEEP}}},calibrate,quantize{{rounding=nearest}}",
    "default, weights per tensor": f"observe{{method={BEST},{KEEP}}},calibrate,quantize{{weights=per-tensor}}",
    "default, layer norms in int8": f"observe{{method={BEST}}},calibrate,quantize",
}
BEFORE = "fold-qdq,prepare,compose"
EVALUATED = 50
"""Evaluation samples: the interpreter is slow."""


def measure(subject: Subject) -> dict[str, dict[str, float]]:
    """SQNR in dB and the share of flips, by option."""
    source = source_of(subject.model)
    model = Model(source["model"], source.get("example_inputs"))
    graph = model.trace(source.get("shapes"))
    Pipeline.parse(BEFORE).run(graph)
    names = [value.name for value in graph.inputs]
    calibration = [dict(zip(names, arrays, strict=True)) for arrays in subject.calibration()]
    inputs = subject.evaluation()
    chosen = [dict(zip(names, arrays, strict=True)) for arrays in inputs[:: max(1, len(inputs) // EVALUATED)]]
    reference = _answers(graph, chosen)
    found: dict[str, dict[str, float]] = {}
    for option, pipeline in OPTIONS.items():
        copy = graph.clone()
        Pipeline.parse(pipeline).run(copy, PassContext(calibration=calibration))
        found[option] = _compare(reference, _answers(copy, chosen))
    return found


def _answers(graph: Graph, batches: Sequence[Feeds]) -> np.ndarray[Any, Any]:
    return np.concatenate([next(iter(run_graph(graph, feeds).values())) for feeds in batches]).astype(np.float64)


def _compare(reference: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> dict[str, float]:
    noise = float(np.square(reference - other).sum())
    flips = float(np.mean(reference.argmax(-1) != other.argmax(-1)))
    return {"sqnr": float(10 * np.log10(np.square(reference).sum() / noise)), "flips": flips}
