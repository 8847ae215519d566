"""Channel pruning: what is removed was worth zero, what remains is a network, and what cannot go is said."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import octavo
import pytest
import torch
from octavo.ir import Graph, Tensor
from octavo.ir.errors import OctavoError, PassError, UsageError
from octavo.ir.interpreter import run_graph
from octavo.ir.ops.shape import Transpose
from octavo.ir.verifier import verify
from octavo.passes import PassContext, Pipeline
from octavo.passes.pruning.groups import find_channels
from octavo.passes.pruning.removal import remove_units, zero_units
from support.prunable import IMAGE, MODELS, SqueezeExcite, amount, constant, macs, traced, widths
from torch import nn


def prune(graph: Graph, text: str) -> list[str]:
    lines: list[str] = []
    Pipeline.parse(text).run(graph, PassContext(report=lines.append))
    verify(graph)
    return lines


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_removing_channels_is_zeroing_them(name: str, prepared: bool) -> None:
    original = traced(name)
    if prepared:
        Pipeline.parse("prepare").run(original)
    feeds = {v.name: np.random.default_rng(1).normal(size=v.type.static_shape).astype("f4") for v in original.inputs}
    for number, group in enumerate(find_channels(original).groups):
        smaller, zeroed = original.clone(), original.clone()
        units = group.units[1::2]
        remove_units(smaller, find_channels(smaller), find_channels(smaller).groups[number].units[1::2])
        zero_units(zeroed, find_channels(zeroed), units)
        verify(smaller)
        for got, expected in zip(run_graph(smaller, feeds).values(), run_graph(zeroed, feeds).values(), strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        # stem, depthwise and gate have one width; the squeezed one is another.
        ("squeeze-excite", [4, 12]),
        # A grouped convolution reads four positions of its groups; the halves behind the shuffle hold two of them each.
        # Its own outputs are four positions, too.
        ("branches", [2, 2, 4]),
        # Heads with query, key, value and output; the hidden layer. What layer_norm normalizes stays.
        ("attention", [4, 20]),
        ("upscale", [6]),
    ],
)
def test_groups(name: str, sizes: list[int]) -> None:
    assert sorted(len(group.units) for group in find_channels(traced(name)).groups) == sizes


@pytest.mark.parametrize("of", ["macs", "parameters", "channels"])
@pytest.mark.parametrize("scope", ["local", "global"])
def test_the_wanted_share_goes_and_hardly_more(of: str, scope: str) -> None:
    graph = traced("squeeze-excite")
    before = amount(graph, of)
    prune(graph, f"prune-channels{{ratio=0.4,of={of},scope={scope}}}")
    assert 0.4 * before < amount(graph, of) <= 0.6 * before


def test_the_least_important_channels_go() -> None:
    graph = traced("squeeze-excite")
    stem, depthwise = (next(n for n in graph.nodes if n.origin == name) for name in ("stem", "depthwise"))
    channels = find_channels(graph)
    zero_units(graph, channels, channels.unit_of[stem.output, 1][[2, 7]])
    expected = [np.delete(constant(node.inputs[1]), [2, 7], 0) for node in (stem, depthwise)]
    prune(graph, "prune-channels{ratio=0.1,of=channels,keep=[down]}")
    assert np.array_equal(constant(stem.inputs[1]), expected[0])
    assert np.array_equal(constant(depthwise.inputs[1]), expected[1])


@pytest.mark.parametrize("importance", ["l1", "l2", "geometric-median", "batch-norm", "random"])
def test_every_importance_prunes_the_same_way_twice(importance: str) -> None:
    texts = set()
    for _ in range(2):
        graph = traced("squeeze-excite")
        prune(graph, f"prune-channels{{ratio=0.3,importance={importance},seed=3}}")
        texts.add(str(graph))
    assert len(texts) == 1


def test_widths_are_multiples_and_names_are_kept() -> None:
    graph = traced("squeeze-excite")
    prune(graph, "prune-channels{ratio=0.3,multiple=4,keep=[down]}")
    assert widths(graph) == [8, 8, 4, 8, 5]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        # Four heads of six channels: 12 are two of them, and fewer than 24 are no multiple of 8.
        ("attention", "multiple=12", [12, 12, 12, 16, 12, 16]),
        ("attention", "multiple=8", [24, 24, 24, 16, 8, 16]),
        # Three groups of four channels: two places of each are 6.
        ("branches", "multiple=6,keep=[piece;left;right]", [8, 4, 6, 12, 6, 5]),
    ],
)
def test_a_multiple_counts_channels_of_layers(name: str, options: str, expected: list[int]) -> None:
    graph = traced(name)
    prune(graph, f"prune-channels{{ratio=0.5,of=channels,{options}}}")
    assert widths(graph) == expected


def test_a_batch_of_unknown_size_counts_once() -> None:
    module = SqueezeExcite().eval()
    batch = torch.export.Dim("n", min=2)
    graph = octavo.trace(torch.export.export(module, (torch.zeros(IMAGE),), dynamic_shapes=({0: batch},)))
    *_, last = prune(graph, "prune-channels{ratio=0.3}")
    assert "channels removed; macs 13,548 -> " in last


def test_what_stays_is_reported_with_the_reason() -> None:
    *fixed, last = prune(traced("attention"), "prune-channels{ratio=0.3}")
    assert fixed == [
        "out keeps its channels: the network's input has it",
        "narrow keeps its channels: the network's input has it",
    ]
    assert last.startswith("10 of 24 channels removed; macs ")


class Turned(nn.Module):
    """A layer that turns its input for itself."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(nn.functional.linear(x.transpose(1, 2), self.weight))


@pytest.mark.parametrize("before", ["eliminate-dead", "prepare", "share-weights{bits=1}"])
@pytest.mark.parametrize(
    ("keep", "expected"), [("turned", [4, 6, 4, 3]), ("stem", [8, 3, 4, 3]), ("act", [4, 3, 8, 3])]
)
def test_keep_holds_what_a_layer_makes_and_not_what_it_reads(before: str, keep: str, expected: list[int]) -> None:
    torch.manual_seed(0)
    parts = {"stem": nn.Conv1d(3, 8, 1), "turned": Turned(), "wide": nn.Linear(6, 8), "act": nn.ELU()}
    module = nn.Sequential(OrderedDict(parts, head=nn.Linear(8, 3))).eval()
    graph = octavo.trace(module, (torch.zeros(2, 3, 7),))
    Pipeline.parse(before).run(graph)
    lines = prune(graph, f"prune-channels{{ratio=0.9,of=channels,least=0.5,keep=[{keep}]}}")
    layer = {"act": "wide"}.get(keep, keep)
    assert lines[0] == f"{layer} keeps its channels: {keep} is kept by request"
    assert widths(graph) == expected


def test_what_no_output_depends_on_does_not_count() -> None:
    graph, clean = traced("squeeze-excite"), traced("squeeze-excite")
    dead = graph.constant(Tensor.of(np.ones((40, 8), np.float32)), name="dead")
    graph.insert(Transpose((1, 0)), [dead])
    options = "prune-channels{ratio=0.5,of=parameters,scope=global}"
    assert prune(graph, options) == prune(clean, options)
    assert str(graph) == str(clean)


def test_quantized_networks_are_pruned_as_well() -> None:
    graph = traced("squeeze-excite")
    context = PassContext(calibration=[{"x": np.ones(IMAGE, np.float32)}])
    Pipeline.parse("prepare,observe,calibrate,quantize").run(graph, context)
    before = macs(graph)
    prune(graph, "prune-channels{ratio=0.4,scope=global}")
    assert macs(graph) <= 0.6 * before


@pytest.mark.parametrize(("function", "more"), [(torch.tanh, 0.0), (torch.sigmoid, 0.25)])
def test_a_product_of_activations_sums_what_zeros_become(function: Any, more: float) -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.key = nn.Linear(3, 8), nn.Linear(3, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            scores: torch.Tensor = function(self.query(x)) @ function(self.key(x)).transpose(1, 2)
            return scores

    smaller = octavo.trace(Scores().eval(), (torch.zeros(1, 5, 3),))
    zeroed, feeds = smaller.clone(), {"x": np.random.default_rng(0).normal(size=(1, 5, 3)).astype(np.float32)}
    for graph, change in ((smaller, remove_units), (zeroed, zero_units)):
        change(graph, find_channels(graph), find_channels(graph).groups[0].units[:3])
    difference = run_graph(zeroed, feeds)["output"] - run_graph(smaller, feeds)["output"]
    np.testing.assert_allclose(difference, 3 * more, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "error", "part"),
    [
        ("prune-channels{ratio=1.5}", UsageError, "a share in"),
        ("prune-channels{ratio=nan}", UsageError, "a share in"),
        ("prune-channels{ratio=0.1,least=nan}", UsageError, "a share in"),
        ("prune-channels{threshold=nan}", UsageError, "above 0"),
        ("prune-channels{ratio=0.1,seed=-1}", UsageError, "seed=-1"),
        ("prune-channels{ratio=0.1,steps=1000000000}", UsageError, "1 to 1000"),
        ("prune-channels{ratio=0.1,multiple=1000000000}", UsageError, "1 to 65536"),
        ("prune-channels{ratio=0.1,multiple=0}", UsageError, "1 to 65536"),
        ("prune-channels{ratio=0.1,importance=magic}", OctavoError, "geometric-median"),
        ("prune-channels{ratio=0.1,keep=[*]}", PassError, "no channel can be removed"),
    ],
)
def test_mistakes(text: str, error: type[OctavoError], part: str) -> None:
    with pytest.raises(error, match=part):
        prune(traced("squeeze-excite"), text)


def test_a_frozen_graph_is_refused() -> None:
    graph = traced("squeeze-excite")
    feeds = [{v.name: np.ones(v.type.static_shape, np.float32) for v in graph.inputs}]
    Pipeline.parse("int8").run(graph, PassContext(calibration=feeds))
    with pytest.raises(PassError, match="before the freeze"):
        prune(graph, "prune-channels{ratio=0.1}")


def test_fixed_units_are_not_removed() -> None:
    graph = traced("squeeze-excite")
    channels = find_channels(graph)
    before = str(graph)
    for units in ([next(iter(channels.reasons))], list(channels.groups[0].units)):
        with pytest.raises(PassError):
            remove_units(graph, channels, np.array(units))
    assert str(graph) == before
