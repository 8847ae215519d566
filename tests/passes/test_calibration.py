from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from octavo.ir import Graph, print_graph
from octavo.ir.constants import Tensor
from octavo.ir.errors import CalibrationError, UsageError
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.elementwise import Add, Log, Relu
from octavo.ir.ops.matmul import Linear, MatMul
from octavo.ir.ops.norm import Softmax
from octavo.ir.ops.quantize import Observer
from octavo.ir.types import f32
from octavo.passes import PassContext, Pipeline
from octavo.passes.base import Feeds, Ranges
from octavo.passes.calibration.elements import Elements
from octavo.passes.calibration.histogram import BINS, Histogram
from octavo.passes.calibration.methods import METHODS, new_statistic
from octavo.passes.calibration.ranges import load_ranges, parse_range, save_ranges

Bounds = tuple[float, float]


def network() -> Graph:
    """Two linear layers with a relu between them, and a float logarithm after them."""
    graph = Graph()
    x = graph.add_input("x", f32(1, 4))
    weight = graph.constant(Tensor.of(np.eye(4, dtype=np.float32) * 2), name="weight")
    first = graph.insert(Linear(), [x, weight], origin="first", names=["first"]).output
    hidden = graph.insert(Relu(), [first], origin="act", names=["hidden"]).output
    second = graph.insert(Linear(), [hidden, weight], origin="second", names=["second"]).output
    graph.set_outputs([second], ["y"])
    return graph


def batches(*rows: list[float]) -> list[dict[str, np.ndarray]]:
    return [{"x": np.array([row], np.float32)} for row in rows]


def bounds(graph: Graph) -> dict[str, Bounds | None]:
    return {n.op.key: n.op.bounds for n in graph.nodes if isinstance(n.op, Observer)}


def calibrate(
    data: list[dict[str, np.ndarray]] | None, text: str = "observe,calibrate", ranges: Ranges | None = None
) -> dict[str, Bounds | None]:
    graph = network()
    Pipeline.parse(text).run(graph, PassContext(calibration=data, ranges=ranges or {}))
    return bounds(graph)


# The passes ----------------------------------------------------------------------------------------------------------


def test_observers_stand_where_integer_nodes_read_and_every_node_has_a_decision() -> None:
    graph = network()
    lines: list[str] = []
    Pipeline.parse("observe{method=mse,keep-float=[second]}").run(graph, PassContext(report=lines.append))
    assert [n.op for n in graph.nodes if isinstance(n.op, Observer)] == [Observer(key, "mse") for key in ("x", "first")]
    assert all(node.decision for node in graph.nodes if not isinstance(node.op, Observer | Constant))
    assert "stay in float" in lines[0]


def test_what_was_decided_before_the_freeze_stands() -> None:
    graph, said = network(), list[str]()
    context = PassContext(calibration=batches([1.0, -1.0, 0.5, 0.0]), report=said.append)
    Pipeline.parse("int8").run(graph, context)
    frozen, decided = print_graph(graph), [node.decision for node in graph.nodes]
    said.clear()
    assert not Pipeline.parse("int8").run(graph, context)
    assert said == ["the graph is frozen already, so nothing is observed"]
    assert print_graph(graph) == frozen
    assert [node.decision for node in graph.nodes] == decided


def test_calibration_streams_and_writes_bounds() -> None:
    found = calibrate(batches([-1, 0, 1, 2], [-3, 0, 0, 1]))
    assert found["x"] == (-3.0, 2.0)
    assert found["first"] == (-6.0, 4.0)
    assert found["hidden"] == (0.0, 4.0)


def test_of_alternatives_the_one_that_disturbs_the_outputs_least_is_taken() -> None:
    random = np.random.default_rng(0)
    even = [{"x": random.uniform(-1, 1, (1, 4)).astype(np.float32)} for _ in range(40)]
    outlier = {"x": np.array([[1e4, 0, 0, 0]], np.float32)}
    lines: list[str] = []

    def chosen(data: list[dict[str, np.ndarray]], methods: str) -> dict[str, Bounds | None]:
        graph = network()
        context = PassContext(calibration=data, report=lines.append)
        Pipeline.parse(f"observe{{method={methods}}},calibrate").run(graph, context)
        return bounds(graph)

    # Clipping a tenth of all elements costs more than it saves where they are spread evenly.
    assert chosen(even, "percentile:90|minmax") == chosen(even, "minmax")
    # Of forty-one batches the last is not among the samples: the others want small steps.
    assert chosen([*even, outlier], "minmax|percentile:98") == chosen([*even, outlier], "percentile:98")
    assert lines[1].startswith("ranges by minmax: minmax ")
    assert "percentile:90" in lines[1]


def test_alternatives_leave_ranges_of_the_user_alone() -> None:
    data = batches([-1, 0, 1, 2])
    found = calibrate(data, "observe{method=mse|minmax},calibrate", {"x": (-9.0, 9.0)})
    assert found["x"] == (-9.0, 9.0)


def test_only_so_many_batches_are_taken() -> None:
    def endless() -> Iterator[Feeds]:
        yield from batches([1, 1, 1, 1], [2, 2, 2, 2])
        raise AssertionError("one batch too many was asked for")

    graph = network()
    ticks: list[tuple[str, int, int | None]] = []
    context = PassContext(calibration=endless(), progress=lambda *tick: ticks.append(tick))
    Pipeline.parse("observe,calibrate{batches=2}").run(graph, context)
    assert bounds(graph)["x"] == (1.0, 2.0)
    assert ticks == [("calibrate", 1, 2), ("calibrate", 2, 2)]


def test_given_ranges_replace_found_ones() -> None:
    found = calibrate(batches([1, 2, 3, 4]), ranges={"hidden": (0.0, 100.0)})
    assert found["hidden"] == (0.0, 100.0)
    assert found["x"] == (1.0, 4.0)


def test_no_data_is_needed_when_every_range_is_given() -> None:
    ranges: dict[str, Bounds] = dict.fromkeys(calibrate(batches([1, 2, 3, 4])), (-1.0, 1.0))
    assert calibrate(None, ranges=ranges) == ranges


def test_a_range_for_no_value_lists_near_names() -> None:
    with pytest.raises(UsageError, match="'hiden'") as error:
        calibrate(batches([1, 2, 3, 4]), ranges={"hiden": (0.0, 1.0)})
    assert "did you mean hidden?" in str(error.value)


def test_missing_empty_and_unfit_data() -> None:
    with pytest.raises(CalibrationError, match="there is no calibration data"):
        calibrate(None)
    with pytest.raises(CalibrationError, match="is empty"):
        calibrate([])
    with pytest.raises(CalibrationError, match="batch 2 does not fit: input x has shape"):
        calibrate([*batches([1, 2, 3, 4]), {"x": np.zeros((2, 3), np.float32)}])
    with pytest.raises(CalibrationError, match="holds NaN") as error:
        calibrate(batches([1, 2, 3, math.nan]))
    assert error.value.where == "x"


def test_the_node_that_makes_nan_is_named() -> None:
    graph = Graph()
    x = graph.add_input("x", f32(1, 4))
    weight = graph.constant(Tensor.of(np.eye(4, dtype=np.float32)))
    odd = graph.insert(Log(), [x], origin="model.log").output
    later = graph.insert(Relu(), [odd], origin="model.relu").output
    graph.set_outputs([graph.insert(Linear(), [later, weight], origin="model.fc").output], ["y"])
    with pytest.raises(CalibrationError, match="log makes NaN from calibration batch 2") as error:
        Pipeline.parse("observe{keep-float=[model.log;model.relu]},calibrate").run(
            graph, PassContext(calibration=batches([1, 1, 1, 1], [1, 1, 1, -1]))
        )
    assert error.value.where == "model.log"


@pytest.mark.parametrize("mask", [-10000.0, -math.inf, float(np.finfo(np.float32).min)])
def test_masks_before_a_softmax_do_not_take_the_grid(mask: float) -> None:
    graph = Graph()
    x = graph.add_input("x", f32(1, 4))
    m = graph.add_input("m", f32(1, 4))
    weight = graph.constant(Tensor.of(np.eye(4, dtype=np.float32)))
    scores = graph.insert(Linear(), [x, weight]).output
    total = graph.insert(Add(), [scores, m], names=["total"]).output
    weights = graph.insert(Softmax(1), [total]).output
    values = graph.add_input("v", f32(4, 4))
    graph.set_outputs([graph.insert(MatMul(), [weights, values]).output], ["y"])
    feeds = {
        "x": np.array([[0.0, 1.0, 5.0, 2.0]], np.float32),
        "m": np.array([[0.0, 0.0, 0.0, mask]], np.float32),
        "v": np.eye(4, dtype=np.float32),
    }
    Pipeline.parse("observe,calibrate").run(graph, PassContext(calibration=[feeds]))
    found = bounds(graph)
    assert found["total"] == (-7.0, 5.0)
    low, high = found["m"] or (0.0, 0.0)
    assert high == 0.0
    assert -10000.0 <= low <= -100.0


# Statistics ----------------------------------------------------------------------------------------------------------


def statistics_of(method: str, *parts: np.ndarray, symmetric: bool = False) -> Bounds:
    statistic = new_statistic(method)
    for part in parts:
        statistic.update(Elements.of(torch.from_numpy(part.astype(np.float32))))
    return statistic.result(symmetric)


def test_minmax_and_moving_average() -> None:
    parts = (np.array([-1.0, 1.0]), np.array([-2.0, 5.0]))
    assert statistics_of("minmax", *parts) == (-2.0, 5.0)
    assert statistics_of("moving-average:0.5", *parts) == (-1.5, 3.0)


def test_percentiles_are_close_to_exact_ones() -> None:
    x = np.random.default_rng(0).normal(0, 3, 200_000)
    low, high = statistics_of("percentile:99", *np.split(x, 10))
    assert low == pytest.approx(np.quantile(x, 0.005), rel=1e-2)
    assert high == pytest.approx(np.quantile(x, 0.995), rel=1e-2)


@pytest.mark.parametrize("method", ["percentile:99.9", "mse", "entropy"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_an_outlier_is_clipped(method: str, symmetric: bool) -> None:
    x = np.append(np.random.default_rng(1).normal(0, 1, 100_000), 60.0)
    low, high = statistics_of(method, x, symmetric=symmetric)
    # The mean squared error minds one far outlier more than the others do.
    limit = 55.0 if method == "mse" else 30.0
    assert 2.0 < high < limit
    assert -limit < low < -2.0


@pytest.mark.parametrize("method", sorted(METHODS))
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("constant", [0.0, 0.25, -3.0])
def test_a_constant_value_has_a_range_that_holds_it(method: str, symmetric: bool, constant: float) -> None:
    low, high = statistics_of(method, np.full(100, constant), symmetric=symmetric)
    assert min(low, 0.0) <= constant <= max(high, 0.0) or max(-low, high) == pytest.approx(abs(constant), rel=1e-2)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_ranges_of_relu_outputs_start_near_zero(method: str) -> None:
    x = np.maximum(np.random.default_rng(2).normal(0, 1, 50_000), 0.0)
    low, high = statistics_of(method, x)
    assert abs(low) < 1e-2
    assert 2.0 < high <= x.max() + 1e-6


def test_mse_is_no_worse_than_the_whole_range() -> None:
    x = np.random.default_rng(3).laplace(0, 1, 50_000)

    def error(found: Bounds) -> float:
        scale = (found[1] - found[0]) / 255
        return float(np.square(np.clip(np.rint(x / scale) * scale, *found) - x).mean())

    assert error(statistics_of("mse", x)) <= error(statistics_of("minmax", x))


# Subnormal numbers count as zeros, or not, by the width of the bins and the mode of the floating-point unit.
floats = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


@given(st.lists(st.lists(floats, min_size=1, max_size=20), min_size=1, max_size=8), st.randoms())
def test_a_histogram_does_not_depend_on_the_order(parts: list[list[float]], random: object) -> None:
    tensors = [torch.tensor(part, dtype=torch.float32) for part in parts]
    histograms = []
    for order in (tensors, tensors[::-1], [torch.cat(tensors)]):
        histogram = Histogram()
        for tensor in order:
            histogram.update(Elements.of(tensor))
        histograms.append(histogram)
    first = histograms[0]
    everything = torch.cat(tensors).numpy().astype(np.float64)
    for other in histograms:
        assert (other.exponent, other.start) == (first.exponent, first.start)
        assert np.array_equal(other.counts, first.counts)
    assert first.total == len(everything)
    assert np.array_equal(first.counts, np.histogram(everything, first.edges())[0])
    assert len(first.counts) == BINS


# Ranges as text ------------------------------------------------------------------------------------------------------


def test_ranges_on_the_command_line() -> None:
    assert parse_range("layer=1.conv=-1e-3:2") == ("layer=1.conv", (-1e-3, 2.0))
    for wrong in ("x", "x=1", "x=2:1", "x=nan:1", "=1:2", "x=a:b", "x=0:inf"):
        with pytest.raises(UsageError, match="NAME=MIN:MAX"):
            parse_range(wrong)


def test_range_files_keep_every_bit(tmp_path: Path) -> None:
    path = tmp_path / "ranges.json"
    ranges = {"a/b": (float(np.float32(-0.1)), 1e-30), 'quo"te': (0.0, 3.4e38)}
    save_ranges(ranges, path)
    assert load_ranges(path) == ranges
    assert [p.name for p in tmp_path.iterdir()] == ["ranges.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "no JSON object"),
        ("{", "not JSON"),
        (json.dumps({"a": [1]}), "the range of a"),
        (json.dumps({"a": [2, 1]}), "the range of a"),
        (json.dumps({"a": 3}), "the range of a"),
    ],
)
def test_range_files_are_checked(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "ranges.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as error:
        load_ranges(path)
    assert str(path) in str(error.value)


def test_a_missing_range_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the ranges"):
        load_ranges(tmp_path / "none.json")
