"""Real networks lose 30 % of their work, or say layer by layer why not, and remain networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import octavo
import onnx
import pytest
import torch
from octavo.ir import Graph
from octavo.ir.interpreter import run_graph
from octavo.ir.op import Quantization
from octavo.ir.verifier import verify
from octavo.passes import PassContext, Pipeline
from octavo.passes.pruning.groups import find_channels
from octavo.passes.pruning.removal import remove_units, zero_units
from support.prunable import macs
from torch import nn
from zoo.light import seeded_light_model
from zoo.registry import zoo_model

Feeds = dict[str, np.ndarray]

trained = pytest.mark.models
nightly = pytest.mark.nightly

NETWORKS = [
    # Name, and how many layers keep their channels: mostly the last one alone, whose outputs the user wants.
    pytest.param("light/shufflenet", 1),
    pytest.param("ppocr_cls", 1, marks=trained),
    pytest.param("ppocr_rec", 6, marks=trained),
    pytest.param("mobilenet_v2", 1, marks=trained),
    pytest.param("efficientnet_lite0", 1, marks=[trained, nightly]),
    pytest.param("minilm_l6", 12, marks=[trained, nightly]),
    pytest.param("light/resnet50", 1, marks=nightly),
    pytest.param("light/densenet121", 1, marks=nightly),
    pytest.param("light/inception_v1", 3, marks=nightly),
    pytest.param("light/inception_v2", 1, marks=nightly),
]


def network(name: str, folder: Path) -> tuple[Graph, Feeds]:
    """The float graph and inputs for it."""
    if name.startswith("light/"):
        onnx.save(seeded_light_model(name.removeprefix("light/")), folder / "light.onnx")
        graph = octavo.trace(folder / "light.onnx")
        return graph, {graph.inputs[0].name: zoo_model("resnet18").sample(0)[0]}
    model = zoo_model(name)
    arrays = model.sample(0)
    made = model.make()
    if isinstance(made, nn.Module):
        graph = octavo.trace(made, tuple(map(torch.from_numpy, arrays)))
    else:
        graph = octavo.trace(made, shapes={n: a.shape for n, a in zip(model.input_names, arrays, strict=True)})
    return graph, {value.name: array for value, array in zip(graph.inputs, arrays, strict=True)}


def pruned(graph: Graph, options: str) -> tuple[Graph, list[str]]:
    smaller, lines = graph.clone(), list[str]()
    Pipeline.parse(f"prune-channels{{{options}}}").run(smaller, PassContext(report=lines.append))
    verify(smaller)
    return smaller, lines


@pytest.mark.parametrize(("name", "kept"), NETWORKS)
def test_a_network_loses_thirty_percent(name: str, kept: int, tmp_path: Path) -> None:
    graph, feeds = network(name, tmp_path)
    expected = {name: array.shape for name, array in run_graph(graph, feeds).items()}
    layers = {node.where for node in graph.nodes if node.op.rule is Quantization.WEIGHTED}
    for scope in ("local", "greedy"):
        smaller, (*fixed, _) = pruned(graph, f"ratio=0.3,scope={scope}")
        assert len(fixed) == kept
        assert {line.partition(" keeps its channels: ")[0] for line in fixed} < layers
        assert macs(smaller) <= 0.7 * macs(graph)
        assert {name: array.shape for name, array in run_graph(smaller, feeds).items()} == expected


@pytest.mark.parametrize(("name", "kept"), NETWORKS)
def test_removing_is_zeroing(name: str, kept: int, tmp_path: Path) -> None:
    graph, feeds = network(name, tmp_path)
    units = np.concatenate([group.units[::3] for group in find_channels(graph).groups])
    smaller, zeroed = graph.clone(), graph.clone()
    remove_units(smaller, find_channels(smaller), units)
    zero_units(zeroed, find_channels(zeroed), units)
    for got, wanted in zip(run_graph(smaller, feeds).values(), run_graph(zeroed, feeds).values(), strict=True):
        # Sums of fewer terms round in another order.
        np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.nightly
@pytest.mark.parametrize(("name", "kept"), NETWORKS)
def test_what_is_left_compiles(name: str, kept: int, tmp_path: Path) -> None:
    graph, feeds = network(name, tmp_path)
    smaller, _ = pruned(graph, "ratio=0.3,multiple=4")
    frozen = octavo.optimize(smaller, "int8", calibration=[feeds])
    octavo.compile(smaller, output=tmp_path / "small.bundle", mcpu="native", calibration=[feeds])
    answers = octavo.load(tmp_path / "small.bundle").run(feeds)
    for output, wanted in run_graph(frozen, feeds).items():
        np.testing.assert_allclose(answers[output], wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())
