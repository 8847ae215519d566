"""The zoo's networks: imported they answer as torch does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from octavo.ir import parse_graph, print_graph, run_graph
from octavo.ir.constants import from_tensors
from octavo.ir.importers.torch import import_torch
from zoo.registry import TORCH_MODELS, zoo_model


@pytest.mark.models
@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("name", TORCH_MODELS)
def test_an_imported_network_answers_as_torch_does(name: str, dynamic: bool) -> None:
    model = zoo_model(name)
    module = model.module()
    samples = model.inputs(2)
    graph = import_torch(
        module, tuple(map(torch.from_numpy, samples[0])), dynamic_batch=dynamic, input_names=model.input_names
    )
    assert print_graph(parse_graph(print_graph(graph), from_tensors(graph.constants()))) == print_graph(graph)
    for sample in samples:
        with torch.no_grad():
            want = np.asarray(module(*map(torch.from_numpy, sample)))
        got = run_graph(graph, dict(zip(model.input_names, sample, strict=True)))["output"]
        assert np.abs(got - want).max() < 1e-4 * np.ptp(want)
