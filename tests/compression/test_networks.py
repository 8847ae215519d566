"""The networks are those of the literature, and traced for batches of any size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from octavo.ir.interpreter import run_graph

from compression import networks


@pytest.mark.parametrize(
    ("name", "parameters"), [("resnet20", 272_186), ("lenet-300-100", 266_610), ("lenet-5", 431_080)]
)
def test_sizes(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in networks.NETWORKS[name]().parameters()) == parameters


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_a_graph_is_its_module(name: str) -> None:
    graph = networks.make(name, 5)
    torch.manual_seed(5)
    module = networks.NETWORKS[name]().eval()
    for count in (1, 3):
        x = torch.rand(count, 1, 28, 28)
        (answer,) = run_graph(graph, {graph.inputs[0].name: x.numpy()}).values()
        np.testing.assert_allclose(answer, module(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_weights_are_those_of_the_seed() -> None:
    first, again, other = (str(networks.make("lenet-300-100", seed)) for seed in (5, 5, 6))
    assert first == again != other
