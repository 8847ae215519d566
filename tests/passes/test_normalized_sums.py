"""A residual stream that a layer norm reads: in float by default, on a grid where somebody asks for that."""

from __future__ import annotations

import numpy as np
from octavo.ir import Graph, run_graph
from octavo.ir.constants import Tensor
from octavo.ir.graph import Precision
from octavo.ir.ops.elementwise import Add
from octavo.ir.ops.matmul import Linear
from octavo.ir.ops.norm import LayerNorm
from octavo.ir.types import f32
from octavo.passes import PassContext, Pipeline
from octavo.passes.base import Feeds
from octavo.passes.pipeline import NAMED

WIDTH = 64


def block() -> Graph:
    """``linear(layer_norm(stream + linear(x)))``."""
    graph = Graph()
    draw = np.random.default_rng(21)
    x, stream = (graph.add_input(name, f32(8, WIDTH)) for name in ("x", "stream"))
    weights = [
        graph.constant(Tensor.of(draw.normal(0, 0.2, (WIDTH, WIDTH)).astype(np.float32)), name=name)
        for name in ("first", "second")
    ]
    gain = graph.constant(Tensor.of(np.ones(WIDTH, np.float32)), name="gain")
    shift = graph.constant(Tensor.of(np.zeros(WIDTH, np.float32)), name="shift")
    inner = graph.insert(Linear(), [x, weights[0]], origin="first", names=["inner"]).output
    total = graph.insert(Add(), [stream, inner], origin="sum", names=["total"]).output
    normal = graph.insert(LayerNorm(1, 1e-5), [total, gain, shift], origin="norm", names=["normal"]).output
    graph.set_outputs([graph.insert(Linear(), [normal, weights[1]], origin="second", names=["out"]).output], ["y"])
    return graph


def outliers() -> Feeds:
    """A stream with one channel a hundred times larger than the rest."""
    x, stream = np.random.default_rng(22).normal(size=(2, 8, WIDTH)).astype(np.float32)
    stream[:, 7] *= 100
    return {"x": x, "stream": stream}


def quantized(keep: str) -> tuple[Graph, float]:
    """The fake-quantized block, and the energy of its error as a share of the output's."""
    graph, feeds = block(), outliers()
    context = PassContext(calibration=[feeds])
    Pipeline.parse(f"prepare,observe{{keep-float=[{keep}]}},calibrate,quantize").run(graph, context)
    reference = run_graph(block(), feeds)["y"]
    error = run_graph(graph, feeds)["y"] - reference
    return graph, float(np.square(error).sum() / np.square(reference).sum())


def precisions(graph: Graph) -> dict[str, Precision]:
    kinds = (Add, Linear, LayerNorm)
    return {n.origin: n.decision.precision for n in graph.nodes if isinstance(n.op, kinds) and n.decision}


def test_the_sum_stays_in_float_with_the_layer_norm() -> None:
    graph, error = quantized("op:layer_norm")
    assert precisions(graph) == {
        "first": Precision.QUANTIZED,
        "sum": Precision.FLOAT,
        "norm": Precision.FLOAT,
        "second": Precision.QUANTIZED,
    }
    _, on_grids = quantized("")
    assert error < 0.2 * on_grids


def test_the_default_pipeline_asks_for_it() -> None:
    assert "keep-float=[op:layer_norm]" in NAMED["int8"]


def test_on_request_all_is_integer() -> None:
    graph, _ = quantized("")
    assert set(precisions(graph).values()) == {Precision.QUANTIZED}
