from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from octavo.ir import Graph, run_graph
from octavo.ir.constants import Tensor
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.quantize import FakeQuantize
from octavo.ir.types import f32
from octavo.passes import PassContext, Pipeline
from octavo.passes.calibration.rounding import balanced, unrepeated
from octavo.passes.quantize import round_weight


@st.composite
def grids(draw: st.DrawFn) -> np.ndarray:
    shape = [draw(st.integers(1, 5)) for _ in range(3)]
    return np.random.default_rng(draw(st.integers(0, 2**32))).uniform(-127, 127, shape)


@given(grids())
def test_errors_of_every_output_and_kernel_cancel(grid: np.ndarray) -> None:
    error = grid - balanced(grid)
    assert np.abs(error.sum(axis=(1, 2))).max() <= 0.5 + 1e-9
    assert np.abs(error.sum(axis=2)).max() <= 1.0 + 1e-9
    assert np.abs(error).max() <= 1.0


@given(grids(), st.integers(1, 8), st.booleans())
def test_equal_weights_of_a_scale_stay_equal_and_zeros_stay_zero(grid: np.ndarray, entries: int, per: bool) -> None:
    random = np.random.default_rng(grid.size)
    codebook = np.append(random.uniform(-1, 1, entries), 0.0).astype(np.float32)
    weight = random.choice(codebook, grid.shape)
    # Some weights belong to no codebook.
    weight[..., 0] = np.where(random.random(weight.shape[:2]) < 0.3, grid[..., 0] / 130, weight[..., 0])
    scale = np.asarray(1 / 127.0 if per else random.uniform(0.01, 0.1, len(weight)), np.float32)
    rounded = round_weight(weight, scale, 0)
    assert not rounded[weight == 0].any()
    for before, after in [(weight, rounded)] if per else zip(weight, rounded, strict=True):
        assert len(set(zip(before.flat, after.flat, strict=True))) == len(np.unique(before))
    error = np.abs(weight - rounded) / scale.reshape(-1, 1, 1)
    assert error.max() <= 1 + 1e-4


def test_what_may_move_balances_what_may_not() -> None:
    # Nearest makes zeros and a five: five errors of 0.3 and one of 0.4.
    grid = np.array([[[0.3], [0.3], [0.3], [0.3], [0.3], [5.4]]])
    movable = unrepeated(grid.reshape(1, -1)).reshape(grid.shape)
    np.testing.assert_array_equal(balanced(grid, movable).reshape(-1), [0, 0, 0, 0, 0, 6])


@given(st.lists(st.lists(st.integers(0, 6), min_size=5, max_size=5), min_size=1, max_size=4))
def test_elements_that_nothing_in_their_row_equals_are_found(rows: list[list[int]]) -> None:
    expected = [[row.count(number) == 1 for number in row] for row in rows]
    np.testing.assert_array_equal(unrepeated(np.array(rows, np.float32)), expected)


@given(grids())
def test_the_range_is_not_left(grid: np.ndarray) -> None:
    steps = balanced(grid)
    assert np.all((steps >= np.floor(grid)) & (steps <= np.ceil(grid)))


def test_weights_on_the_grid_stay() -> None:
    grid = np.random.default_rng(3).integers(-127, 128, (4, 3, 9)).astype(np.float64)
    np.testing.assert_array_equal(balanced(grid), grid)


def test_the_cheapest_weights_move() -> None:
    # Nearest makes [0, 0, 1, 5], whose sum is 1.25 too small.
    np.testing.assert_array_equal(balanced(np.array([[[0.3, 0.4, 1.45, 5.1]]])), [[[0, 0, 2, 5]]])


@pytest.mark.parametrize(("shape", "axis"), [((6, 4, 3, 3), 0), ((4, 6, 3, 3), 1), ((6, 4), 0)])
def test_rounded_weights_lie_on_the_grid(shape: tuple[int, ...], axis: int) -> None:
    weight = np.random.default_rng(5).normal(size=shape).astype(np.float32)
    scale = np.abs(np.moveaxis(weight, axis, 0).reshape(6, -1)).max(1).astype(np.float32) / np.float32(127)
    steps = np.moveaxis(round_weight(weight, scale, axis), axis, 0).reshape(6, -1) / scale[:, None]
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert np.abs(steps).max() <= 127.001


def depthwise() -> Graph:
    """A depthwise convolution of 64 channels, whose inputs all have the mean 1."""
    graph = Graph()
    x = graph.add_input("x", f32(1, 64, 8, 8))
    draw = np.random.default_rng(11)
    weight = graph.constant(Tensor.of(draw.normal(size=(64, 1, 3, 3)).astype(np.float32)), name="weight")
    conv = graph.insert(Conv((1, 1), ((0, 0), (0, 0)), (1, 1), 64), [x, weight], origin="conv", names=["conv"])
    graph.set_outputs([conv.output], ["y"])
    return graph


def mean_error(rounding: str) -> float:
    graph, quantized = depthwise(), depthwise()
    feeds = {"x": np.random.default_rng(12).uniform(0, 2, (1, 64, 8, 8)).astype(np.float32)}
    pipeline = Pipeline.parse(f"observe,calibrate,quantize{{rounding={rounding}}}")
    pipeline.run(quantized, PassContext(calibration=[feeds]))
    assert sum(isinstance(node.op, FakeQuantize) for node in quantized.nodes) >= 2
    difference = run_graph(graph, feeds)["y"] - run_graph(quantized, feeds)["y"]
    return float(np.abs(difference.mean(axis=(0, 2, 3))).mean())


def test_outputs_shift_less() -> None:
    assert mean_error("balanced") < 0.5 * mean_error("nearest")
