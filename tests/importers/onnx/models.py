"""Small ONNX models for the tests, in the text form of the onnx package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from octavo.ir import Graph, run_graph, verify
from octavo.ir.importers.onnx import import_onnx
from onnx import numpy_helper, parser

Array = np.ndarray[Any, np.dtype[Any]]


def model(
    body: str, *, opset: int = 21, extra: str = "", weights: Mapping[str, Array] | None = None
) -> onnx.ModelProto:
    """The model whose graph is ``body``; ``extra`` adds opset imports, ``weights`` initializers."""
    head = f'<ir_version: 10, opset_import: ["" : {opset}{extra}]>\n'
    made = parser.parse_model(head + body)
    for name, array in (weights or {}).items():
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    return made


def reference(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """What ONNX Runtime computes, without optimizations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return [np.asarray(result) for result in session.run(None, dict(feeds))]


def run(graph: Graph, feeds: Mapping[str, Array]) -> list[Array]:
    """What our interpreter computes, inputs in order."""
    verify(graph)
    named = {v.name: a for v, a in zip(graph.inputs, feeds.values(), strict=True)}
    return list(run_graph(graph, named).values())


def assert_matches(proto: onnx.ModelProto, feeds: Mapping[str, Array], atol: float = 1e-5, **options: Any) -> Graph:
    """Import, run both, compare; the graph."""
    graph = import_onnx(proto, **options)
    for ours, theirs in zip(run(graph, feeds), reference(proto, feeds), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=atol)
    return graph


def normal(*shape: int, seed: int = 0) -> Array:
    """Seeded normal float32 numbers."""
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)
