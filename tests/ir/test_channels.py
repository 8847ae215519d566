"""What every op says of its channels is true: zeroing what belongs together and removing it give the same."""

from __future__ import annotations

import numpy as np
import pytest
from octavo.ir import Graph, Tensor
from octavo.ir.channels import reshaped
from octavo.ir.graph import Value
from octavo.ir.interpreter import run_graph
from octavo.ir.op import Stage
from octavo.ir.ops.scan import TopK
from octavo.passes.pruning.groups import find_channels
from octavo.passes.pruning.removal import kept_axes, remove_units, zero_units
from support.op_samples import SAMPLES, Sample

FLOAT = [s for s in SAMPLES if s.op.stage is not Stage.INTEGER and not any(type.quant for type in s.types)]


def network(sample: Sample) -> Graph:
    """The op alone, on constants: nothing but itself ties its axes."""
    graph = Graph()
    operands = [graph.constant(Tensor.of(array), name=f"x{i}") for i, array in enumerate(sample.arrays())]
    graph.insert(sample.op, operands)
    return graph


def results(graph: Graph) -> tuple[Value, ...]:
    *_, node = graph.nodes
    return node.outputs


def run(graph: Graph) -> list[np.ndarray]:
    copy = graph.clone()
    copy.set_outputs(results(copy), [str(i) for i in range(len(results(copy)))])
    return list(run_graph(copy, {}).values())


@pytest.mark.parametrize("sample", FLOAT, ids=str)
def test_removing_is_zeroing(sample: Sample) -> None:
    for number, group in enumerate(find_channels(network(sample)).groups):
        smaller, zeroed = network(sample), network(sample)
        units = group.units[:: max(2, len(group.units) // 3)]
        channels = find_channels(zeroed)
        assert np.array_equal(channels.groups[number].units, group.units)
        zero_units(zeroed, channels, units)
        expected = run(zeroed)
        kept = kept_axes(channels, units)
        remove_units(smaller, find_channels(smaller), units)
        for value, got, array in zip(results(zeroed), run(smaller), expected, strict=True):
            for axis in range(array.ndim):
                if (value, axis) in kept:
                    array = np.take(array, kept[value, axis], axis)
            np.testing.assert_allclose(got, array, rtol=1e-5, atol=1e-6)


def test_the_ops_that_networks_are_made_of_let_channels_through() -> None:
    through = {sample.op.name for sample in FLOAT if find_channels(network(sample)).groups}
    needed = "conv conv_transpose linear matmul batch_norm relu gelu add mul div where prelu max_pool avg_pool resize"
    moving = "reshape transpose slice concat expand gather reduce_mean reduce_max softmax layer_norm cast"
    assert {*needed.split(), *moving.split()} <= through


def test_an_op_that_says_nothing_keeps_everything() -> None:
    silent = [sample for sample in FLOAT if isinstance(sample.op, TopK)]
    assert silent
    for sample in silent:
        channels = find_channels(network(sample))
        assert not channels.groups
        assert {reason.partition(": ")[2] for reason in channels.reasons.values()} == {
            "topk says nothing about its channels"
        }


@pytest.mark.parametrize(
    ("before", "after", "ties", "factors"),
    [
        ((2, 3, 4), (2, 12), 1, [2]),
        ((2, 12), (2, 3, 4), 1, [2]),
        ((6, 4), (3, 8), 0, []),
        ((1, 8, 1, 1), (1, 8), 1, []),
        ((2, 6, 5), (12, 5), 1, [2]),
        ((4, 6, 2), (2, 2, 12), 0, [2, 2]),
    ],
)
def test_reshapes(before: tuple[int, ...], after: tuple[int, ...], ties: int, factors: list[int]) -> None:
    flow = reshaped(before, after)
    assert len(flow.ties) == ties
    assert [len(choice) for choice in flow.choices] == factors
