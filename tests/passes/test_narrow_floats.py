"""Models in half and double precision: one float type in the bundle, whatever the model has."""

from __future__ import annotations

import pytest
import torch
from octavo.backends.api import optimize
from octavo.backends.models import Model
from octavo.ir import DType, Graph, run_graph
from torch import Tensor, nn


class Net(nn.Module):
    """[2, 3, 8, 8] of its own float type to [2, 4], with a detour over doubles."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu().mean((2, 3)).double() * 0.5
        out: Tensor = self.head(y.to(x.dtype))
        return out


def floats(graph: Graph) -> set[DType]:
    return {value.type.dtype for value in graph.values() if value.type.dtype.is_float}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.bfloat16])
def test_every_float_type_becomes_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = Net().eval().to(dtype)
    x = torch.randn(2, 3, 8, 8).to(dtype)
    (graph,) = Model(net, (x,)).trace_fixed(())
    feeds = {graph.inputs[0].name: x.float().numpy()}
    want = net(x).detach().float()
    torch.testing.assert_close(torch.from_numpy(run_graph(graph, feeds)["output"]), want, atol=0.02, rtol=0.02)
    frozen = optimize(graph, calibration=[feeds])
    assert floats(frozen) == {DType.F32}
    torch.testing.assert_close(torch.from_numpy(run_graph(frozen, feeds)["output"]), want, atol=0.05, rtol=0.1)
