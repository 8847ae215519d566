"""Which channels go: by a ratio of some amount, by a threshold, in rounds, greedily, asking weights or data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import octavo
import pytest
import torch
from octavo.backends.freeze import Freezer
from octavo.ir import Graph, Tensor
from octavo.ir.errors import CalibrationError, PassError, UsageError
from octavo.ir.op import Op
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.matmul import Linear
from octavo.ir.target import IsaLevel, Target
from octavo.ir.types import DType, TensorType
from octavo.ir.verifier import verify
from octavo.passes import PassContext, Pipeline
from octavo.passes.base import Feeds
from octavo.passes.pruning.amounts import Counts, Measure, NodeAmount, Ranking, chosen, count_macs, count_parameters
from octavo.passes.pruning.choices import greedy
from octavo.passes.pruning.groups import find_channels
from octavo.passes.pruning.latency import modelled_latency
from octavo.passes.pruning.removal import remove_units
from support.prunable import MODELS, amount, constant, macs, traced, widths
from torch import nn


def run(graph: Graph, text: str, context: PassContext | None = None) -> None:
    Pipeline.parse(f"prune-channels{{{text}}}").run(graph, context)
    verify(graph)


def batches(graph: Graph, count: int = 3) -> list[Feeds]:
    random = np.random.default_rng(5)
    return [{v.name: random.normal(size=v.type.static_shape).astype("f4") for v in graph.inputs} for _ in range(count)]


def rankings(graph: Graph, multiple: int = 1) -> list[Ranking]:
    random = np.random.default_rng(2)
    groups = find_channels(graph).groups
    return [Ranking(g, g.units, np.sort(random.random(len(g.units))), 1, multiple) for g in groups]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("measure", [count_macs, count_parameters])
def test_what_is_left_is_known_without_removing(name: str, measure: Measure) -> None:
    graph = traced(name)
    ranked = rankings(graph)
    counted = NodeAmount(graph, find_channels(graph), ranked, measure)
    random = np.random.default_rng(3)
    before = (0,) * len(ranked)
    for _ in range(5):
        counts = tuple(int(random.integers(r.allowed(len(r.units)) + 1)) for r in ranked)
        smaller = graph.clone()
        channels = find_channels(smaller)
        remove_units(smaller, channels, chosen(rankings(smaller), counts))
        assert counted.left(counts) == amount(smaller, "macs" if measure is count_macs else "parameters")
        one = (counts[0], *before[1:])
        assert counted.left(before) - counted.left(one) == counted.saved(before, 0, counts[0])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("multiple", [1, 2])
def test_lazy_pricing_chooses_what_full_pricing_chooses(name: str, multiple: int) -> None:
    graph = traced(name)
    ranked = rankings(graph, multiple)
    counted = NodeAmount(graph, find_channels(graph), ranked, count_macs)
    goal = 0.5 * counted.left((0,) * len(ranked))
    counts: Counts = (0,) * len(ranked)
    while counted.left(counts) > goal:
        prices = []
        for number, ranking in enumerate(ranked):
            count = ranking.next(counts[number])
            if count is not None and (saved := counted.saved(counts, number, count)):
                prices.append((ranking.scores[counts[number] : count].sum() / saved, number, count))
        if not prices:
            break
        _, number, count = min(prices)
        counts = (*counts[:number], count, *counts[number + 1 :])
    assert greedy(ranked, counted, goal) == counts


@pytest.mark.parametrize("of", ["macs", "parameters", "channels", "latency"])
@pytest.mark.parametrize("scope", ["local", "global", "greedy"])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_share_is_reached_in_every_way(of: str, scope: str, steps: int) -> None:
    graph = traced("branches")
    before = latency(graph) if of == "latency" else amount(graph, of)
    run(graph, f"ratio=0.3,of={of},scope={scope},steps={steps}")
    assert (latency(graph) if of == "latency" else amount(graph, of)) <= 0.7 * before


def latency(graph: Graph) -> float:
    level = IsaLevel("any", (), 32, 1)
    return sum(
        modelled_latency(n.op, [v.type for v in n.inputs], [v.type for v in n.outputs], level) for n in graph.nodes
    )


def test_greedy_takes_channels_where_they_are_dear() -> None:
    torch.manual_seed(0)
    cheap, dear = nn.Conv2d(3, 8, 1, stride=4), nn.Conv2d(8, 8, 3, padding=1)
    module = nn.Sequential(nn.Upsample(scale_factor=4), cheap, nn.ReLU(), dear, nn.ReLU(), nn.Conv2d(8, 4, 5)).eval()
    graph = octavo.trace(module, (torch.zeros(1, 3, 16, 16),))
    shared = graph.clone()
    run(graph, "ratio=0.4,scope=greedy,importance=random")
    run(shared, "ratio=0.4,importance=random")
    first, second, _ = widths(graph)
    assert second < first
    assert macs(graph) <= 0.6 * macs(octavo.trace(module, (torch.zeros(1, 3, 16, 16),)))
    assert sum(widths(graph)) > sum(widths(shared))


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.9])
def test_equal_scores_go_one_by_one(scope: str, ratio: float) -> None:
    """From two groups of ten alike, and never more than the goal takes."""
    module = nn.Sequential(nn.Conv2d(3, 10, 1), nn.Conv2d(10, 10, 1), nn.Conv2d(10, 3, 1)).eval()
    for parameter in module.parameters():
        nn.init.ones_(parameter)
    graph = octavo.trace(module, (torch.zeros(1, 3, 4, 4),))
    run(graph, f"ratio={ratio},of=channels,scope={scope},least=0")
    left = 10 - round(10 * ratio)
    assert widths(graph) == [left, left, 3]


def test_all_scopes_stop_within_one_unit() -> None:
    for ratio in (0.15, 0.35, 0.55):
        graph = traced("squeeze-excite")
        run(graph, f"ratio={ratio},of=channels,scope=global,importance=random")
        assert amount(graph, "channels") == 16 - int(np.ceil(16 * ratio))


@pytest.mark.parametrize("importance", ["l1", "l2", "geometric-median", "taylor", "activation"])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_shared_weights_are_judged_by_what_they_are(importance: str, per: str) -> None:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 3)).eval()
    values = torch.tensor([-0.9, -0.3, 0.3, 0.9])
    for layer in module:
        assert isinstance(layer, nn.Linear)
        layer.weight.data = values[
            torch.randint(4, layer.weight.shape) // torch.arange(1, 4).repeat(6)[: layer.in_features]
        ]
        layer.weight.data[:, :4] = values
    dense = octavo.trace(module, (torch.zeros(16, 6),))
    shared, context = dense.clone(), PassContext(batches(dense))
    Pipeline.parse(f"share-weights{{bits=2,per={per}}}").run(shared)
    for graph in (dense, shared):
        run(graph, f"ratio=0.4,of=channels,scope=global,importance={importance}", context)
    left, right = ([constant(n.inputs[1]) for n in g.nodes if n.op.name == "linear"] for g in (dense, folded(shared)))
    assert [len(weight) for weight in left] != [16, 12, 3]
    for wanted, got in zip(left, right, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6)


def folded(graph: Graph) -> Graph:
    Pipeline.parse("fold-constants").run(graph)
    return graph


def test_a_threshold_removes_what_scores_less() -> None:
    graph = traced("squeeze-excite")
    stem = next(node for node in graph.nodes if node.origin == "stem")
    weight = stem.inputs[1]
    shrunk = constant(weight).copy()
    channels = find_channels(graph)
    units = channels.unit_of[stem.output, 1]
    for node in graph.nodes:
        for value in node.outputs:
            for axis in range(value.type.rank):
                if node.op.name == "constant" and np.isin(units[3], channels.unit_of.get((value, axis), [])):
                    array = constant(value).copy()
                    array[(slice(None),) * axis + (channels.unit_of[value, axis] == units[3],)] *= 1e-3
                    node.op = Constant(Tensor.of(array))
    run(graph, "threshold=0.1,keep=[down]")
    assert np.array_equal(constant(stem.inputs[1]), np.delete(shrunk, 3, 0))
    run(graph, "threshold=0.1,keep=[down]")
    assert len(constant(stem.inputs[1])) == 11


def test_rounds_keep_the_least_share_of_the_beginning() -> None:
    graph = traced("squeeze-excite")
    lines: list[str] = []
    run(graph, "ratio=0.95,steps=4,least=0.5", PassContext(report=lines.append))
    assert widths(graph) == [6, 6, 2, 6, 5]
    assert lines[-2].startswith("no more than ")
    assert lines[-1].startswith("8 of 16 channels removed; macs ")


def test_the_least_share_is_no_more_than_what_was_asked_for() -> None:
    graph = octavo.trace(nn.Sequential(nn.Linear(6, 20), nn.Linear(20, 3)).eval(), (torch.zeros(2, 6),))
    run(graph, "ratio=0.99,of=channels,least=0.55")
    assert widths(graph) == [11, 3]


@pytest.mark.parametrize("scope", ["local", "global", "greedy"])
def test_rounds_end_when_one_channel_is_left(scope: str) -> None:
    graph = traced("squeeze-excite")
    lines: list[str] = []
    run(graph, f"ratio=0.99,of=channels,steps=3,least=0,scope={scope}", PassContext(report=lines.append))
    assert widths(graph) == [1, 1, 1, 1, 5]
    assert lines[-2:] == [
        "no more than 87.5% of the channels can go: the other channels must stay",
        "14 of 16 channels removed; channels 16 -> 2",
    ]


def test_latency_counts_whole_tiles_or_bytes() -> None:
    level = IsaLevel("any", (), vector_bytes=32, channel_multiple=16)

    def linear(channels: int, rows: int) -> float:
        x, weight = TensorType(DType.F32, (rows, 512)), TensorType(DType.F32, (channels, 512))
        return modelled_latency(Linear(), (x, weight), (TensorType(DType.F32, (rows, channels)),), level)

    assert linear(17, 512) == linear(32, 512) == 2 * linear(16, 512)
    assert linear(17, 1) == pytest.approx(18 / 33 * linear(32, 1), rel=1e-2)  # the bytes of the weight


def test_latency_is_that_of_the_best_level() -> None:
    levels = tuple(IsaLevel(name, (), 32, 8) for name in ("old", "new"))
    seen: set[str] = set()

    def cost(op: Op, inputs: Sequence[TensorType], outputs: Sequence[TensorType], level: IsaLevel) -> float:
        seen.add(level.name)
        return modelled_latency(op, inputs, outputs, level)

    run(traced("branches"), "ratio=0.1,of=latency", PassContext(target=Target("any", "any", levels), cost=cost))
    assert seen == {"new"}


@pytest.mark.parametrize("scope", ["local", "greedy"])
def test_a_compilation_prunes_to_tiles_of_its_target(scope: str) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 4, 1)).eval()
    graph = octavo.trace(module, (torch.zeros(1, 32, 16, 16),))
    pipeline = Pipeline.parse(f"prepare,prune-channels{{ratio=0.3,of=latency,scope={scope}}}")
    target = Target("any", "any", (IsaLevel("any", (), vector_bytes=32, channel_multiple=16),))
    (tiled,), (free,) = (Freezer(pipeline, target=known).freeze([graph]) for known in (target, None))
    assert widths(tiled) == [16, 4]
    assert 16 < widths(free)[0] < 32


def test_latency_is_what_the_cost_model_says() -> None:
    graph = traced("upscale")
    seen: list[str] = []

    def cost(op: Op, inputs: Sequence[TensorType], outputs: Sequence[TensorType], level: IsaLevel) -> float:
        seen.append(level.name)
        return float(outputs[0].static_shape[1] ** 2) if isinstance(op, Conv) else 0.0

    run(graph, "ratio=0.5,of=latency", PassContext(cost=cost))
    assert set(seen) == {"any"}
    # Two convolutions with 6 outputs and one with 2: 76 -> at most 38.
    assert widths(graph) == [4, 4, 2]


class Gated(nn.Module):
    """Hidden channel 1 has large weights and is never active; channel 2 is read by nobody of consequence."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)
        with torch.no_grad():
            self.first.weight[1] *= 9
            self.first.bias[1] = -1e3
            self.first.weight[2] *= 9
            self.second.weight[:, 2] = 1e-6

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.second(torch.relu(self.first(x)))
        return y


@pytest.mark.parametrize(
    ("importance", "gone"), [("taylor", [1, 2]), ("activation", [1])], ids=["taylor", "activation"]
)
def test_data_shows_what_weights_hide(importance: str, gone: list[int]) -> None:
    graph = octavo.trace(Gated().eval(), (torch.zeros(16, 6),))
    before = graph.clone()
    run(graph, f"ratio={(len(gone) - 0.5) / 8},of=channels,importance={importance}", PassContext(batches(graph)))
    (kept, *_), (rows, *_) = (
        [constant(n.inputs[1]) for n in g.nodes if n.op.name == "linear"] for g in (graph, before)
    )
    assert np.array_equal(kept, np.delete(rows, gone, 0))
    run(before, f"ratio={(len(gone) - 0.5) / 8},of=channels,importance=l2")
    assert not any(np.array_equal(kept, constant(n.inputs[1])) for n in before.nodes if n.op.name == "linear")


@pytest.mark.parametrize("importance", ["taylor", "activation"])
@pytest.mark.parametrize("name", MODELS)
def test_data_judges_every_network(name: str, importance: str) -> None:
    graph = traced(name)
    before = macs(graph)
    run(graph, f"ratio=0.3,importance={importance},steps=2,scope=global", PassContext(batches(graph)))
    assert macs(graph) <= 0.7 * before


@pytest.mark.parametrize("importance", ["taylor", "activation"])
def test_data_that_is_missing(importance: str) -> None:
    for data, error, part in ((None, PassError, "needs calibration data"), ([], CalibrationError, "is empty")):
        with pytest.raises(error, match=part):
            run(traced("squeeze-excite"), f"ratio=0.3,importance={importance}", PassContext(data))


def test_activations_that_are_not_finite() -> None:
    graph = traced("squeeze-excite")
    data = [{name: np.full_like(array, np.inf) for name, array in feeds.items()} for feeds in batches(graph)]
    with pytest.raises(CalibrationError, match="not finite"):
        run(graph, "ratio=0.3,importance=activation", PassContext(data))


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("of=macs", "a ratio or a threshold"),
        ("ratio=0.3,threshold=0.3", "not both"),
        ("threshold=0.3,steps=2", "steps has no meaning"),
        ("threshold=0.3,scope=greedy", "scope=greedy has no meaning"),
        ("ratio=0.3,steps=0", "steps=0"),
        ("threshold=-1", "threshold=-1"),
    ],
)
def test_options_that_exclude_each_other(text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        run(traced("squeeze-excite"), text)
