"""Pruning holds on networks whose channels meet in odd ways, whatever it goes by."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from octavo.ir import Graph
from octavo.ir.errors import PassError
from octavo.ir.interpreter import run_graph
from octavo.ir.verifier import verify
from octavo.passes import PassContext, Pipeline
from octavo.passes.base import Feeds
from octavo.passes.pruning.amounts import count_macs, count_parameters
from octavo.passes.pruning.groups import Axis, channel_axis, find_channels, stored_values
from octavo.passes.pruning.removal import remove_units, zero_units
from support.odd_networks import ODD, odd_network

IMPORTANCES = ["l1", "l2", "geometric-median", "batch-norm", "random", "taylor", "activation"]


@functools.cache
def network(name: str, prepared: bool) -> Graph:
    graph, _ = odd_network(name)
    if prepared:
        Pipeline.parse("prepare").run(graph)
    return graph


def feeds(name: str, graph: Graph) -> Feeds:
    return {graph.inputs[0].name: np.random.default_rng(4).normal(size=ODD[name][1]).astype(np.float32)}


def left(graph: Graph, of: str) -> float:
    """What is there for a batch of 1."""
    if of == "channels":
        return sum(len(group.units) for group in find_channels(graph).groups)
    shapes = {v: tuple(size if isinstance(size, int) else 1 for size in v.type.shape) for v in graph.inputs}
    fixed = {value.name: value.type.with_shape(shape) for value, shape in shapes.items()}
    measure = count_macs if of == "macs" else count_parameters
    nodes = graph.clone(inputs=fixed).nodes
    return sum(measure(node.op, [v.type for v in node.inputs], [v.type for v in node.outputs]) for node in nodes)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_removing_is_zeroing(name: str, prepared: bool) -> None:
    graph = network(name, prepared)
    smaller, zeroed = graph.clone(), graph.clone()
    units = np.concatenate([group.units[::2] for group in find_channels(graph).groups])
    remove_units(smaller, find_channels(smaller), units)
    zero_units(zeroed, find_channels(zeroed), units)
    verify(smaller)
    found, wanted = (run_graph(g, feeds(name, g)) for g in (smaller, zeroed))
    for output, array in wanted.items():
        np.testing.assert_allclose(found[output], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_the_share_goes_or_it_is_said_that_it_cannot(name: str, prepared: bool) -> None:
    graph = network(name, prepared)
    data = feeds(name, graph)
    shapes = {output: array.shape for output, array in run_graph(graph, data).items()}
    ways = itertools.product(["local", "global", "greedy"], ["macs", "parameters", "channels"])
    for number, (scope, of) in enumerate(ways):
        for importance in IMPORTANCES[number % 2 :: 2]:
            smaller, lines = graph.clone(), list[str]()
            options = f"ratio=0.35,importance={importance},scope={scope},of={of}"
            context = PassContext(calibration=[data], report=lines.append)
            Pipeline.parse(f"prune-channels{{{options}}}").run(smaller, context)
            verify(smaller)
            assert {output: array.shape for output, array in run_graph(smaller, data).items()} == shapes, options
            gone = int(lines[-1].split()[0])
            amount = left(graph, of) - gone if of == "channels" else left(smaller, of)
            refused = any(line.startswith("no more than ") for line in lines)
            assert refused == (amount > 0.65 * left(graph, of)), options
            if (scope, of) == ("global", "channels") and not refused:
                assert gone == np.ceil(0.35 * left(graph, of))


def made(graph: Graph) -> dict[Axis, str]:
    """The axes along which layers make channels, with the layers' names."""
    stored = stored_values(graph)
    return {axis: node.where for node in graph.nodes if (axis := channel_axis(node, stored))}


def sizes(graph: Graph) -> dict[tuple[str, int], object]:
    return {(value.name, axis): size for value in graph.values() for axis, size in enumerate(value.type.shape)}


@pytest.mark.parametrize("multiple", [2, 3, 4])
@pytest.mark.parametrize("name", ODD)
def test_layers_lose_channels_down_to_a_multiple(name: str, multiple: int) -> None:
    graph = network(name, True)
    channels, smaller = find_channels(graph), graph.clone()
    Pipeline.parse(f"prune-channels{{ratio=0.5,of=channels,multiple={multiple}}}").run(smaller)
    left, layers = sizes(smaller), made(graph)
    for group in channels.groups:
        for value, axis in group.axes:
            if (value, axis) in layers and np.isin(channels.unit_of[value, axis], group.units).all():
                width = left[value.name, axis]
                assert width == value.type.shape[axis] or (isinstance(width, int) and width % multiple == 0)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("name", ODD)
def test_keep_holds_the_channels_of_a_layer_and_no_others(name: str, prepared: bool) -> None:
    graph = network(name, prepared)
    layers, channels = made(graph), find_channels(graph)
    groups = channels.groups
    owners = [{layers[axis] for axis in group.axes if axis in layers} for group in groups]
    for layer in set().union(*owners):
        smaller = graph.clone()
        pipeline = Pipeline.parse(f"prune-channels{{ratio=0.99,of=channels,least=0,keep=[{layer}]}}")
        if all(layer in names for names in owners):
            with pytest.raises(PassError, match="no channel can be removed"):
                pipeline.run(smaller)
            continue
        pipeline.run(smaller)
        left = sizes(smaller)
        for group, names in zip(groups, owners, strict=True):
            whole = [axis for axis in group.axes if np.isin(channels.unit_of[axis], group.units).all()]
            same = [left[value.name, axis] == value.type.shape[axis] for value, axis in whole]
            assert all(same) if layer in names else not any(same)
