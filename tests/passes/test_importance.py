from __future__ import annotations

import numpy as np
import torch
from octavo.ir import Graph, run_graph
from octavo.ir.constants import Tensor
from octavo.ir.graph import Value
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.elementwise import Relu
from octavo.ir.ops.matmul import Linear
from octavo.ir.types import f32
from octavo.passes import PassContext, Pipeline
from octavo.passes.base import Feeds
from octavo.passes.calibration.elements import Elements
from octavo.passes.calibration.importance import UNIT, importance_of
from octavo.passes.calibration.methods import new_statistic

CHANNELS = 8


def reader(weight: np.ndarray, groups: int = 1) -> tuple[Graph, Value]:
    """A convolution, or a linear layer where ``weight`` is a matrix, of an input."""
    graph = Graph()
    flat = weight.ndim == 2
    x = graph.add_input("x", f32(4, CHANNELS) if flat else f32(1, CHANNELS, 6, 6))
    op = Linear() if flat else Conv((1, 1), ((0, 0), (0, 0)), (1, 1), groups)
    constant = graph.constant(Tensor.of(weight.astype(np.float32)), name="weight")
    graph.set_outputs([graph.insert(op, [x, constant], origin="layer", names=["y"]).output], ["y"])
    return graph, x


def weights_of(value: Value) -> list[float]:
    found = importance_of(value)
    assert found
    return found.weights.tolist()


def test_energy_by_input_channel() -> None:
    rising = np.sqrt(np.arange(1, CHANNELS + 1))
    expected = np.rint(np.arange(1, CHANNELS + 1) / np.mean(np.arange(1, CHANNELS + 1)) * UNIT).tolist()
    assert weights_of(reader(np.broadcast_to(rising, (3, CHANNELS)))[1]) == expected
    assert weights_of(reader(np.broadcast_to(rising[None, :, None, None], (3, CHANNELS, 3, 3)))[1]) == expected
    depthwise = np.broadcast_to(rising[:, None, None, None], (CHANNELS, 1, 3, 3))
    assert weights_of(reader(depthwise, groups=CHANNELS)[1]) == expected


def test_what_others_read_has_no_importance() -> None:
    graph, x = reader(np.ones((3, CHANNELS)))
    graph.insert(Relu(), [x], origin="other", names=["other"])
    assert importance_of(x) is None
    assert importance_of(reader(np.zeros((3, CHANNELS)))[1]) is None


def test_the_order_of_the_data_does_not_matter() -> None:
    _, x = reader(np.random.default_rng(4).normal(size=(3, CHANNELS)))
    batches = [
        torch.from_numpy(np.random.default_rng(i).normal(size=(4, CHANNELS)).astype(np.float32)) for i in range(9)
    ]
    bounds = []
    for order in (batches, batches[::-1]):
        statistic = new_statistic("mse")
        for batch in order:
            statistic.update(Elements.of(batch, importance_of(x)))
        bounds.append(statistic.result(False))
    assert bounds[0] == bounds[1]


def test_a_channel_that_hardly_matters_is_clipped() -> None:
    """One channel is large, but its weights are small: a range for the others serves the output better."""
    weight = np.random.default_rng(6).normal(size=(CHANNELS, 1, 3, 3))
    weight[0] *= 0.01
    x = np.random.default_rng(7).normal(size=(1, CHANNELS, 6, 6)).astype(np.float32)
    x[:, 0] *= 10
    feeds = {"x": x}
    assert _error(weight, feeds, "mse") < 0.5 * _error(weight, feeds, "minmax")


def _error(weight: np.ndarray, feeds: Feeds, method: str) -> float:
    """The mean squared error of all outputs but the unimportant one."""
    graph, _ = reader(weight, groups=CHANNELS)
    reference = run_graph(graph, feeds)["y"]
    Pipeline.parse(f"observe{{method={method}}},calibrate,quantize").run(graph, PassContext(calibration=[feeds]))
    return float(np.square(run_graph(graph, feeds)["y"] - reference)[:, 1:].mean())
