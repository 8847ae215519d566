"""Parts of well-known networks, imported with a fixed and with any batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from octavo.ir import run_graph, verify
from octavo.ir.errors import UnsupportedError
from octavo.ir.importers.torch import import_torch
from torch import nn

from .networks import NETWORKS, Detector, Segmenter

FIXED_ONLY = (Detector, Segmenter)
"""These resize, which needs all sizes."""


def expected(module: nn.Module, x: torch.Tensor) -> list[np.ndarray]:
    with torch.no_grad():
        result = module(x.clone())
    return [part.numpy() for part in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize("dynamic", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.__name__)
def test_a_network_answers_as_torch_does(network: type[nn.Module], dynamic: bool) -> None:
    torch.manual_seed(7)
    module = network().eval()
    x = torch.randn(2, 8, 8, 12)
    if dynamic and network in FIXED_ONLY:
        with pytest.raises(UnsupportedError, match="fixed"):
            import_torch(module, (x,), dynamic_batch=True)
        return
    graph = import_torch(module, (x,), dynamic_batch=dynamic)
    verify(graph)
    for batch in (1, 2, 3) if dynamic else (2,):
        inputs = torch.randn(batch, 8, 8, 12)
        got = run_graph(graph, {graph.inputs[0].name: inputs.numpy()})
        for ours, theirs in zip(got.values(), expected(module, inputs), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
