"""Weights of few bits: a smaller grid in the same bytes, scales by least squares, and training that makes up for it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import octavo
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from octavo.ir import Graph, print_graph
from octavo.ir.constants import Tensor as Constants
from octavo.ir.errors import PassError, UsageError
from octavo.ir.interpreter import run_graph
from octavo.ir.op import Quantization
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.quantize import FakeQuantize
from octavo.ir.verifier import verify
from octavo.passes import PassContext, Pipeline
from octavo.passes.calibration.steps import least_squares_scale
from octavo.passes.quantize import weight_scale
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(8, 8, 2, 2)
        self.block, self.mixed = nn.Conv2d(8, 8, 3, groups=2), nn.ConvTranspose2d(8, 8, 2, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.block(F.relu(self.up(F.relu(self.stem(x))))))
        y: Tensor = self.head(F.relu(self.mixed(x)).mean((2, 3)))
        return y


LAYERS = {"stem", "up", "block", "mixed", "head"}


@functools.cache
def exported() -> Graph:
    torch.manual_seed(0)
    batch = torch.export.Dim("n", min=2)
    return octavo.trace(torch.export.export(Net().eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: batch},)))


def traced() -> Graph:
    return exported().clone()


def images() -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(32, 3, 8, 8)).astype(np.float32))


def run(graph: Graph, text: str) -> None:
    Pipeline.parse(text).run(graph, PassContext(calibration=[{"x": images().numpy()}]))
    verify(graph)


def quantized(graph: Graph, options: str) -> Graph:
    run(graph, f"prepare,observe{{method=minmax}},calibrate,quantize{{{options}}}")
    return graph


def weights(graph: Graph) -> dict[str, np.ndarray]:
    """The integers of each layer, of a frozen graph."""
    found = {}
    for node in graph.nodes:
        if node.op.rule is Quantization.WEIGHTED:
            op = node.inputs[1].op
            assert isinstance(op, Constant)
            assert op.data.numpy().dtype == np.int8
            found[node.origin] = op.data.numpy()
    return found


def errors(weight: np.ndarray, scale: np.ndarray, largest: int) -> np.ndarray:
    rounded = np.clip(np.rint(weight / scale[:, None]), -largest, largest) * scale[:, None]
    summed: np.ndarray = np.square(weight - rounded).sum(1)
    return summed


# The grid -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ["balanced", "nearest"])
@pytest.mark.parametrize("choice", ["max", "mse"])
@pytest.mark.parametrize("bits", [2, 3, 4, 7, 8])
def test_weights_lie_on_the_grid_and_use_it(bits: int, choice: str, rounding: str) -> None:
    graph = quantized(traced(), f"weight-bits={bits},weight-range={choice},rounding={rounding}")
    before = run_graph(graph, {"x": images().numpy()})["output"]
    run(graph, "lower-integer,finish")
    largest = 2 ** (bits - 1) - 1
    found = weights(graph)
    assert set(found) == LAYERS
    for name, weight in found.items():
        assert weight.min() >= -largest, name
        assert weight.max() <= largest, name
        assert np.abs(weight).max() == largest or choice == "mse"
    after = run_graph(graph, {"x": images().numpy()})["output"]
    assert np.square(after - before).sum() < 1e-2 * np.square(before).sum()


def test_eight_bits_by_the_largest_weight_are_the_default() -> None:
    texts = [print_graph(quantized(traced(), options)) for options in ("", "weight-bits=8,weight-range=max")]
    assert texts[0] == texts[1]


def test_layers_that_are_kept_have_eight_bits() -> None:
    graph = quantized(traced(), "weight-bits=3,keep-int8=[stem;he*]")
    run(graph, "lower-integer,finish")
    wide = {name for name, weight in weights(graph).items() if np.abs(weight).max() > 3}
    assert wide == {"stem", "head"}


def test_more_bits_cost_less() -> None:
    x = images().numpy()
    expected = run_graph(traced(), {"x": x})["output"]
    costs = []
    for bits in (2, 3, 4, 6, 8):
        got = run_graph(quantized(traced(), f"weight-bits={bits},weight-range=mse"), {"x": x})["output"]
        costs.append(float(np.square(got - expected).mean()))
    assert costs == sorted(costs, reverse=True)


def altered(change: Callable[[np.ndarray], None]) -> Graph:
    """With a changed weight (4, 8) of the last layer, whose bias is zero."""
    graph = traced()
    head = next(node for node in graph.nodes if node.origin == "head" and node.op.rule is Quantization.WEIGHTED)
    weight, bias = (value.producer for value in head.inputs[1:])
    assert weight is not None
    assert bias is not None
    assert isinstance(weight.op, Constant)
    array = weight.op.data.numpy().copy()
    change(array)
    weight.op, bias.op = Constant(Constants.of(array)), Constant(Constants.of(np.zeros(4, np.float32)))
    return graph


def pruned(count: int) -> Graph:
    """Where so many weights of each channel of the last layer are zero."""
    return altered(lambda weight: weight[:, :count].fill(0))


def test_one_bit_is_refused_for_layers_of_mostly_zeros() -> None:
    with pytest.raises(PassError, match="weight-bits=1 has no zero, but 24 of 32 weights are zero") as error:
        quantized(pruned(6), "weight-bits=1")
    assert "head" in str(error.value)
    assert "keep-int8" in str(error.value)
    quantized(pruned(6), "weight-bits=1,keep-int8=[head]")
    quantized(pruned(6), "weight-bits=2")


def test_fewer_zeros_that_become_ones_are_reported() -> None:
    graph, lines = pruned(2), list[str]()
    context = PassContext(calibration=[{"x": images().numpy()}], report=lines.append)
    Pipeline.parse("prepare,observe,calibrate,quantize{weight-bits=1}").run(graph, context)
    assert [line for line in lines if "-1" in line] == [
        "head: 8 of 32 weights are zero, and become -1 with weight-bits=1"
    ]


@pytest.mark.parametrize("options", ["weight-bits=1", "weight-bits=2,weight-range=mse", "", "weights=per-tensor"])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-42, 1e-38])
def test_channels_of_tiny_weights_make_as_good_as_zero(options: str, size: float) -> None:
    def shrink(weight: np.ndarray) -> None:
        weight[1] = np.sign(weight[1]) * np.float32(size)

    graph = quantized(altered(shrink), options)
    run(graph, "lower-integer,finish")
    out = run_graph(graph, {"x": images().numpy()})["output"]
    assert np.isfinite(out).all()
    assert np.abs(out[:, 1]).max() <= (1e-30 if options != "weights=per-tensor" else 0.0)
    assert np.abs(out[:, 0]).max() > 1e-3


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(number: float) -> None:
    graph = altered(lambda weight: weight[2, 3:4].fill(number))
    with pytest.raises(PassError, match="1 of 32 elements of the weight are infinite or not a number"):
        quantized(graph, "")


def test_one_bit_is_the_sign_times_the_mean_magnitude() -> None:
    graph = traced()
    run(graph, "prepare")
    reals = {node.origin: node.inputs[1].op for node in graph.nodes if node.op.rule is Quantization.WEIGHTED}
    run(graph, "observe{method=minmax},calibrate,quantize{weight-bits=1}")
    before = run_graph(graph, {"x": images().numpy()})["output"]
    run(graph, "lower-integer,finish")
    scales = {n.origin: n.inputs[1].type.quant for n in graph.nodes if n.op.rule is Quantization.WEIGHTED}
    for name, weight in weights(graph).items():
        real, quant = reals[name], scales[name]
        assert isinstance(real, Constant)
        assert quant is not None
        magnitudes = np.moveaxis(np.abs(real.data.numpy()), quant.axis or 0, 0).reshape(len(quant.scale), -1)
        np.testing.assert_array_equal(weight, np.where(real.data.numpy() > 0, 1, -1))
        np.testing.assert_allclose(quant.scale_array(), magnitudes.mean(1), rtol=1e-5)
    after = run_graph(graph, {"x": images().numpy()})["output"]
    assert np.square(after - before).sum() < 1e-2 * np.square(before).sum()


def test_gradients_of_binary_weights_reach_beyond_the_two_values() -> None:
    x = torch.tensor([-3.0, -1.5, -0.5, 0.0, 0.5, 1.5, 3.0], requires_grad=True)
    y = FakeQuantize(-1, 1, step=2).run(x, torch.tensor(1.0), torch.tensor(0.0))
    assert y.tolist() == [-1, -1, -1, -1, 1, 1, 1]
    torch.autograd.backward(y.sum())
    assert x.grad is not None
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0]


@given(st.integers(0, 10**6), st.sampled_from([(-1, 1, 2), (-7, 7, 1), (-6, 6, 3), (-128, 127, 1)]))
def test_stored_integers_mean_what_training_saw(seed: int, grid: tuple[int, int, int]) -> None:
    random = np.random.default_rng(seed)
    op = FakeQuantize(*grid[:2], step=grid[2])
    x, scale = random.normal(size=50).astype(np.float32), np.float32(random.uniform(0.01, 2))
    zero = np.float32(random.integers(-20, 20) if grid[0] == -128 else 0)
    seen = op.run(*map(torch.from_numpy, (x, np.asarray(scale), np.asarray(zero)))).numpy()
    stored = op.stored(x, np.asarray(scale), np.asarray(int(zero)))
    assert stored.min() >= op.low
    assert stored.max() <= op.high
    np.testing.assert_allclose((stored.astype(np.float32) - zero) * scale, seen, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("bits", [0, 9])
def test_other_numbers_of_bits_are_refused(bits: int) -> None:
    with pytest.raises(UsageError, match=f"weight-bits={bits}"):
        Pipeline.parse(f"quantize{{weight-bits={bits}}}")


# The scale ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.integers(2, 8), st.sampled_from([0.0, 1.0, 30.0]))
def test_the_searched_scale_has_no_larger_error_than_the_widest(seed: int, bits: int, outlier: float) -> None:
    random = np.random.default_rng(seed)
    weight = random.standard_t(4, (3, int(random.integers(1, 40)))).astype(np.float32)
    weight[0, 0] = outlier
    largest = 2 ** (bits - 1) - 1
    found = errors(weight, least_squares_scale(weight, 0, largest), largest)
    widest = errors(weight, weight_scale(weight, 0, largest), largest)
    assert (found <= widest * (1 + 1e-5) + 1e-9).all()


def test_two_bits_are_ternary_weights_of_least_error() -> None:
    """Whatever the scale, the integers of the k largest magnitudes are 1: so there are as many choices as weights."""
    weight = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    found = errors(weight, least_squares_scale(weight, 0, 1), 1)
    for row, error in zip(weight.astype(np.float64), found, strict=True):
        ordered = np.sort(np.abs(row))[::-1]
        explained = np.square(np.cumsum(ordered)) / np.arange(1, len(ordered) + 1)
        assert error <= 1.02 * (np.square(row).sum() - explained.max())


def test_an_outlier_does_not_make_the_grid_coarse() -> None:
    weight = np.random.default_rng(0).normal(size=(1, 4096)).astype(np.float32)
    weight[0, 0] = 20.0
    by_search, by_largest = (f(weight, 0, 7) for f in (least_squares_scale, weight_scale))
    assert errors(weight, by_search, 7)[0] < 0.3 * errors(weight, by_largest, 7)[0]


def test_one_scale_for_a_tensor_and_channels_without_weights() -> None:
    weight = np.zeros((3, 8), np.float32)
    weight[1] = np.linspace(-1, 1, 8)
    assert least_squares_scale(weight, None, 7).shape == ()
    scales = least_squares_scale(weight, 0, 7)
    assert scales.shape == (3,)
    assert scales[0] == scales[2] == 1.0


# Training -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("learn", [False, True])
def test_training_makes_up_for_few_bits_and_the_integers_stay_on_their_grid(bits: int, learn: bool) -> None:
    x = images()
    target = torch.from_numpy(run_graph(traced(), {"x": x.numpy()})["output"])
    graph = quantized(traced(), f"weight-bits={bits},weight-range=mse,rounding=nearest")
    module = octavo.to_torch(graph, learn_scales=learn)
    scales = [value for name, value in module.named_parameters() if "scale" in name]
    others = [value for name, value in module.named_parameters() if "scale" not in name]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": scales, "lr": 1e-5}]
    optimizer = torch.optim.Adam(groups, 0.003)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.mse_loss(module(x), target)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    frozen = octavo.from_torch(module.eval())
    with torch.no_grad():
        expected = module(x).numpy()
    run(frozen, "lower-integer,finish")
    for weight in weights(frozen).values():
        assert np.abs(weight).max() <= max(2 ** (bits - 1) - 1, 1)
        assert bits > 1 or weight.all()
    got = run_graph(frozen, {"x": x.numpy()})["output"]
    assert np.square(got - expected).sum() < 1e-2 * np.square(expected).sum()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_whole_pipeline_keeps_the_grids_that_training_used(bits: int) -> None:
    graph = quantized(traced(), f"weight-bits={bits},weight-range=mse")
    direct, whole = graph.clone(), graph.clone()
    run(direct, "lower-integer,finish")
    run(whole, "int8")
    for name, weight in weights(direct).items():
        np.testing.assert_array_equal(weights(whole)[name], weight)
    x = images().numpy()
    np.testing.assert_array_equal(run_graph(whole, {"x": x})["output"], run_graph(direct, {"x": x})["output"])
