"""The pass sparsify: the least important weights of layers become zero, by magnitude or by gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from octavo.ir import Graph
from octavo.ir.constants import Tensor as Tensor_
from octavo.ir.errors import CalibrationError, OctavoError, ParseError, PassError, UsageError
from octavo.ir.interpreter import run_graph
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.matmul import Linear, MatMul
from octavo.ir.ops.shape import Transpose
from octavo.ir.types import DType, f32
from octavo.passes import PassContext, Pipeline
from octavo.passes.pruning.sparsity import find_layers
from octavo.passes.training.gradients import saliencies
from support.sparse import CALIBRATION, LAYERS, images, replace, rows, sparsify, sparsity, traced
from torch import nn


@pytest.mark.parametrize("name", LAYERS)
def test_row_by_row_weights_are_those_of_an_output(name: str) -> None:
    """In whatever layout an op stores its weight: output channel o depends on row o alone."""
    graph = traced()
    layer = next(layer for layer in find_layers(graph).found if layer.name == name)
    weight, outputs = rows(graph)[name], len(rows(graph)[name])
    shape = layer.weight.type.static_shape
    np.testing.assert_array_equal(layer.layout.to_rows(layer.layout.from_rows(weight, shape)), weight)
    # With its other rows and its bias at zero a layer has one channel that is not.
    replace(layer.weight, layer.layout.from_rows(weight * (np.arange(outputs) == 2)[:, None, None], shape))
    for bias in layer.node.inputs[2:]:
        replace(bias, np.zeros(outputs))
    graph.set_outputs([layer.node.output], ["y"])
    y = run_graph(graph, CALIBRATION[0])["y"]
    channels = np.moveaxis(y, -1 if y.ndim == 2 else 1, 0)
    assert [bool(channel.any()) for channel in channels] == [o == 2 for o in range(outputs)]


@pytest.mark.parametrize("importance", ["magnitude", "gradient"])
@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("pattern", ["single", "block:4x1", "block:2x4"])
def test_the_pass_reaches_its_ratio(pattern: str, scope: str, importance: str) -> None:
    graph, before = traced(), rows(traced())
    lines = sparsify(graph, f"ratio=0.6,pattern={pattern},scope={scope},importance={importance}")
    after = rows(graph)
    for name, weights in after.items():
        assert ((weights == before[name]) | (weights == 0)).all()
    assert 0.6 - 8 * len(LAYERS) / sum(w.size for w in after.values()) <= sparsity(list(after.values())) <= 0.6
    if scope == "local":
        assert all(0.6 - 8 / w.size <= sparsity([w]) <= 0.6 for w in after.values())
    assert [line.split(":")[0] for line in lines[:-1]] == LAYERS
    zeros, size = sum(np.count_nonzero(w == 0) for w in after.values()), sum(w.size for w in after.values())
    assert lines[-1] == f"{zeros:,} of {size:,} weights of 6 layers are zero ({zeros / size:.1%})"
    assert run_graph(graph, CALIBRATION[0])["output"].shape == (2, 5)


def test_globally_one_threshold_parts_all_layers() -> None:
    graph, before = traced(), rows(traced())
    sparsify(graph, "ratio=0.5,scope=global")
    after = rows(graph)
    gone = np.concatenate([np.abs(before[name][after[name] == 0]) for name in LAYERS])
    left = np.concatenate([np.abs(after[name][after[name] != 0]) for name in LAYERS])
    assert gone.max() <= left.min()
    # The matrix was drawn from a wider distribution than what the layers start with.
    assert sparsity([after["matmul"]]) < 0.3
    assert sparsity([after["grouped"]]) > 0.9


def test_two_of_four_input_channels() -> None:
    graph = traced()
    remark, *lines = sparsify(graph, "pattern=2:4")
    assert remark == "depthwise keeps its weights: an output sums 1 input channels, and 2 of 4 may stay"
    for name, weights in rows(graph).items():
        starts = range(0, weights.shape[2], 4)
        assert all((np.count_nonzero(weights[..., i : i + 4], axis=-1) <= 2).all() for i in starts)
        # 3, 6 and 54 input channels end in a group of 3, 2 and 2.
        assert sparsity([weights]) == {"depthwise": 0, "stem": 1 / 3, "up": 2 / 6, "matmul": 26 / 54}.get(name, 0.5)
    shorter = "input channels do not divide into groups of 4: the last one is shorter"
    assert [line.partition("; ")[2] for line in lines[:-1]] == [f"3 {shorter}", "", f"6 {shorter}", f"54 {shorter}", ""]


@pytest.mark.parametrize("text", ["ratio=0", "ratio=0,pattern=block:4x1,scope=global"])
def test_a_ratio_of_zero_changes_nothing(text: str) -> None:
    graph = traced()
    sparsify(graph, text)
    assert str(graph) == str(traced())


@pytest.mark.parametrize("text", ["ratio=0.8", "pattern=2:4", "ratio=0.7,pattern=block:4x1,scope=global"])
def test_a_second_time_changes_nothing(text: str) -> None:
    graph = traced()
    sparsify(graph, text)
    before = str(graph)
    sparsify(graph, text)
    assert str(graph) == before


def test_layers_to_keep_are_untouched_and_do_not_count() -> None:
    graph, before = traced(), rows(traced())
    lines = sparsify(graph, "ratio=0.75,keep=[stem;h*]")
    after = rows(graph)
    assert all(np.array_equal(after[name], before[name]) == (name in ("stem", "head")) for name in LAYERS)
    assert "of 4 layers are zero (75.0%)" in lines[-1]


def test_gradients_know_which_inputs_are_always_zero() -> None:
    """A weight may be large and yet read nothing."""
    graph = traced(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    (layer,) = find_layers(graph).found
    dead = np.arange(192) % 2 == 0
    replace(layer.weight, np.where(dead, 10.0, np.random.default_rng(0).uniform(0.1, 1, (4, 192))))
    batches = [{"input": images(seed) * ~dead.reshape(3, 8, 8)} for seed in range(2)]
    Pipeline.parse("sparsify{ratio=0.5,importance=gradient}").run(graph, PassContext(calibration=batches))
    ((weights,),) = (rows(graph).values(),)
    assert np.array_equal(weights[:, 0] == 0, np.broadcast_to(dead, (4, 192)))


def test_zeros_survive_quantization() -> None:
    graph = traced()
    sparsify(graph, "pattern=block:2x1,ratio=0.5,keep=[norm]")
    dense, sparse = traced(), graph
    share = []
    for each in (dense, sparse):
        Pipeline.parse("int8").run(each, PassContext(calibration=CALIBRATION))
        stored = [n.op.data.numpy() for n in each.nodes if isinstance(n.op, Constant) and n.op.data.dtype is DType.I8]
        share.append(sparsity([w for w in stored if w.ndim > 1]))
    assert share[0] < 0.1
    assert share[1] > 0.49


def test_layers_that_cannot_be_treated_are_reported_with_the_reason() -> None:
    graph = Graph()
    x, w = graph.add_input("x", f32(4, 4)), graph.add_input("w", f32(4, 4))
    shared, tied, own = (graph.constant(Tensor_.of(np.ones((4, 4), np.float32)), name=n) for n in ("s", "t", "o"))
    turned = graph.insert(Transpose((1, 0)), [tied], origin="turn").output
    values = [
        graph.insert(Linear(), [x, w], origin="given").output,
        graph.insert(Linear(), [x, shared], origin="straight").output,
        graph.insert(MatMul(), [x, shared], origin="crosswise").output,
        graph.insert(Linear(), [turned, tied], origin="embedding").output,
        graph.insert(Linear(), [x, own], origin="free").output,
    ]
    graph.set_outputs(values)
    *remarks, first, last = sparsify(graph, "ratio=0.5")
    assert remarks == [
        "given keeps its weights: its weight is computed at run time",
        "straight keeps its weights: crosswise reads its weight in another way",
        "crosswise keeps its weights: straight reads its weight in another way",
        "embedding keeps its weights: turn reads its weight in another way",
    ]
    assert first == "free: 8 of 16 weights are zero (50.0%)"
    assert last == "8 of 16 weights of 1 layers are zero (50.0%)"


def test_a_shared_weight_stays_for_all_or_goes_for_all() -> None:
    graph = Graph()
    x, shared = graph.add_input("x", f32(4, 4)), graph.constant(Tensor_.of(np.ones((4, 4), np.float32)), name="s")
    y = graph.insert(Linear(), [x, shared], origin="first").output
    graph.set_outputs([graph.insert(Linear(), [y, shared], origin="second").output])
    assert sparsify(graph.clone(), "ratio=0.5") == [
        "first: 8 of 16 weights are zero (50.0%)",
        "8 of 16 weights of 1 layers are zero (50.0%)",
    ]
    with pytest.raises(PassError, match="no layer"):
        sparsify(graph, "ratio=0.5,keep=[second]")


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("ratio=1.0", UsageError, "a share in"),
        ("ratio=-0.5", UsageError, "a share in"),
        ("ratio=0.8,pattern=2:4", UsageError, "0.5, or no ratio"),
        ("pattern=4x1", UsageError, "block:4x1"),
        ("importance=magic", ParseError, "magnitude|gradient"),
        ("keep=[*]", PassError, "no layer has weights"),
    ],
)
def test_mistakes(text: str, error: type[OctavoError], part: str) -> None:
    with pytest.raises(error) as caught:
        sparsify(traced(), text)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("batches", "part"),
    [(None, "need calibration data"), ([], "is empty"), ([{"x": images(count=3)}], "batch 1 does not fit")],
)
def test_gradients_need_data_that_fits(batches: list[dict[str, np.ndarray]] | None, part: str) -> None:
    with pytest.raises(CalibrationError, match=part):
        Pipeline.parse("sparsify{importance=gradient}").run(traced(), PassContext(calibration=batches))


def test_a_frozen_graph_is_refused() -> None:
    graph = traced()
    Pipeline.parse("int8").run(graph, PassContext(calibration=CALIBRATION))
    with pytest.raises(PassError, match="before the freeze"):
        sparsify(graph, "ratio=0.5")
    with pytest.raises(PassError, match="no gradients"):
        saliencies(graph, CALIBRATION)


def test_saliencies_are_those_of_the_squared_norm() -> None:
    """For y = W x the relative change of |y|^2 by w_ij is 2 w_ij x_j y_i / |y|^2."""
    graph = traced(nn.Sequential(nn.Flatten(), nn.Linear(192, 4, bias=False)))
    (layer,) = find_layers(graph).found
    weight = rows(graph)[layer.name][:, 0].astype(np.float64)
    expected = np.zeros_like(weight)
    for seed in range(2):
        x = images(seed).reshape(2, -1).astype(np.float64)
        y = x @ weight.T
        expected += np.abs(2 * weight * (y.T @ x)) / np.square(y).sum() / 2
    found = saliencies(graph, [{"input": images(seed)} for seed in range(2)])
    assert list(found) == [layer.weight]
    np.testing.assert_allclose(found[layer.weight], expected, rtol=1e-4, atol=1e-8)


def test_an_output_without_gradients_has_no_saliencies() -> None:
    class Index(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.argmax(self.fc(x), -1)

    with pytest.raises(PassError, match="differentiable"):
        saliencies(traced(Index()), CALIBRATION)


def test_data_that_is_not_finite_is_named() -> None:
    with pytest.raises(CalibrationError, match="is not finite"):
        saliencies(traced(), [{"x": images() * np.float32(np.nan)}])
