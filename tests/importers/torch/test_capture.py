"""Names, places, modes, batches and kinds of models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from octavo.ir import DType, Graph, TensorType, parse_graph, print_graph, run_graph, run_torch, verify
from octavo.ir.constants import from_tensors
from octavo.ir.errors import InputError, ModelError
from octavo.ir.importers.torch import import_torch
from octavo.ir.ops.constant import Constant
from octavo.ir.types import Dim
from torch import Tensor, fx, nn

from .cases import Call

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Block(nn.Module):
    """A residual block, with the same activation used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3))
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.act(self.act(self.conv(x)) + x)
        return out


class Net(nn.Module):
    """float32 [N, 3, 8, 8] to a dict of logits and features."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(Block(), Block())
        self.head = nn.Linear(3 * 64, 5)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        y = self.features(image)
        return {"logits": self.head(y.view(y.size(0), -1)), "features": y}


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


def assert_same(graph: Graph, module: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        want = module(x)
    got = run_graph(graph, {graph.inputs[0].name: x.numpy()})
    for name, tensor in want.items():
        np.testing.assert_allclose(got[name], tensor.numpy(), rtol=1e-5, atol=1e-5)


def test_nodes_keep_the_users_module_path(net: nn.Module) -> None:
    graph = import_torch(net, (X,))
    origins = [(n.op.name, n.origin) for n in graph.nodes if not isinstance(n.op, Constant)]
    assert origins[:4] == [
        ("conv", "features.0.conv.0"),
        ("batch_norm", "features.0.conv.1"),
        ("relu", "features.0.act"),
        ("add", "features.0"),
    ]
    assert origins[4] == ("relu", "features.0.act"), "a module used twice keeps one path"
    assert origins[-1] == ("linear", "head")


def test_values_and_parameters_are_named_after_modules(net: nn.Module) -> None:
    names = {v.name for v in import_torch(net, (X,)).values()}
    assert {"image", "features.0.conv.0", "features.0.conv.0.weight", "features.0.add", "head", "head.bias"} <= names
    assert "features.0.conv.1.num_batches_tracked" not in names


def test_inputs_and_outputs_have_the_users_names(net: nn.Module) -> None:
    graph = import_torch(net, (X,))
    assert [v.name for v in graph.inputs] == ["image"]
    assert graph.output_names == ("logits", "features")
    assert graph.name == "Net"
    renamed = import_torch(net, {"image": X}, name="other", input_names=["pixels"])
    assert ([v.name for v in renamed.inputs], renamed.name) == (["pixels"], "other")
    with pytest.raises(ModelError, match="2 input names for the inputs image"):
        import_torch(net, (X,), input_names=["a", "b"])


def test_names_of_nested_outputs() -> None:
    def nested(x: Tensor) -> object:
        return {"a": x + 1, "b": (x * 2, [x - 1])}

    assert import_torch(Call(nested), (X,)).output_names == ("a", "b_0", "b_1_0")
    assert import_torch(Call(lambda x: x + 1), (X,)).output_names == ("output",)
    assert import_torch(Call(lambda x: (x + 1, x + 2)), (X,)).output_names == ("output_0", "output_1")


def test_an_input_returned_as_it_came() -> None:
    graph = import_torch(Call(lambda x: (x, x + 1)), (X,))
    verify(graph)
    np.testing.assert_array_equal(run_graph(graph, {graph.inputs[0].name: X.numpy()})["output_0"], X.numpy())


def test_numpy_arrays_serve_as_examples(net: nn.Module) -> None:
    assert_same(import_torch(net, (X.numpy(),)), net, X)


def test_training_mode_is_left_as_it_was() -> None:
    module = Net()
    module.train()
    module.features[0].eval()
    graph = import_torch(module, (X,))
    assert module.training
    assert not module.features[0].training
    assert module.features[1].training
    assert_same(graph, module.eval(), X)


def test_a_traced_module_imports_like_the_original(net: nn.Module) -> None:
    traced = fx.symbolic_trace(net)
    graph = import_torch(traced, (X,))
    assert_same(graph, net, X)
    origins = {n.origin for n in graph.nodes if n.op.name == "conv"}
    assert origins == {"features.0.conv.0", "features.1.conv.0"}
    parameters = {n.origin for n in graph.nodes if isinstance(n.op, Constant)}
    assert {name for name, _ in net.named_parameters()} <= parameters


def test_gradients_flow_through_an_imported_graph(net: nn.Module) -> None:
    x = X.clone().requires_grad_()
    ours = run_torch(import_torch(net, (X,)), [x])[0]
    theirs = net(x)["logits"]
    (got,) = torch.autograd.grad(ours.sum(), x)
    (want,) = torch.autograd.grad(theirs.sum(), x)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_exported_programs_and_their_files(net: nn.Module, tmp_path: Path) -> None:
    program = torch.export.export(net, (X,))
    assert_same(import_torch(program), net, X)
    torch.export.save(program, tmp_path / "net.pt2")
    graph = import_torch(tmp_path / "net.pt2")
    assert graph.name == "net"
    assert_same(graph, net, X)


def test_text_round_trip(net: nn.Module) -> None:
    graph = import_torch(net, (X,), dynamic_batch=True)
    parsed = parse_graph(print_graph(graph), from_tensors(graph.constants()))
    assert print_graph(parsed) == print_graph(graph)
    assert_same(parsed, net, X)


# A batch that is not fixed -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 2])
def test_a_dynamic_batch_runs_at_any_size(net: nn.Module, batch: int) -> None:
    graph = import_torch(net, (X[:batch],), dynamic_batch=True)
    assert graph.inputs[0].type.shape == (Dim("batch"), 3, 8, 8)
    assert graph.outputs[0].type.shape == (Dim("batch"), 5)
    for size in (1, 2, 5):
        assert_same(graph, net, X[:1].repeat(size, 1, 1, 1))


def test_a_dynamic_batch_becomes_fixed_by_cloning(net: nn.Module) -> None:
    graph = import_torch(net, (X,), dynamic_batch=True).clone(inputs={"image": TensorType(DType.F32, (4, 3, 8, 8))})
    verify(graph)
    assert all(v.type.is_static for v in graph.values())
    assert_same(graph, net, X.repeat(2, 1, 1, 1))


class Token(nn.Module):
    """A learned token in front of each sequence, a recurrent layer with zero states, and created tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 1, 4))
        self.layer = nn.LSTM(4, 3, batch_first=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        out: Tensor = self.layer(x)[0] + torch.zeros(x.shape[0], 1, 3) + torch.ones_like(y)
        return out.reshape(out.size(0) * 1, -1)


def test_tensors_made_for_the_batch() -> None:
    torch.manual_seed(1)
    module = Token().eval()
    graph = import_torch(module, (torch.ones(2, 5, 4), torch.ones(2, 6, 3)), dynamic_batch=True)
    for size in (1, 3):
        x, y = torch.randn(size, 5, 4), torch.randn(size, 6, 3)
        got = run_graph(graph, {"x": x.numpy(), "y": y.numpy()})["output"]
        np.testing.assert_allclose(got, module(x, y).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_inputs_of_two_batch_sizes_are_refused() -> None:
    graph = import_torch(Call(torch.add), (X, X), dynamic_batch=True)
    first, second = (v.name for v in graph.inputs)
    with pytest.raises(InputError, match="batch is 1 and 2"):
        run_graph(graph, {first: X[:1].numpy(), second: X.numpy()})


def test_heads_are_folded_into_the_batch() -> None:
    torch.manual_seed(2)
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    graph = import_torch(module, (torch.ones(2, 3, 8),), dynamic_batch=True)
    assert Dim("batch", 2) in {dim for value in graph.values() for dim in value.type.shape}
    parsed = parse_graph(print_graph(graph), from_tensors(graph.constants()))
    assert print_graph(parsed) == print_graph(graph)
    for size in (1, 3):
        x = torch.randn(size, 3, 8)
        for each in (graph, parsed, graph.clone(inputs={"src": TensorType(DType.F32, (size, 3, 8))})):
            got = run_graph(each, {"src": x.numpy()})["output"]
            np.testing.assert_allclose(got, module(x).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_arithmetic_on_the_batch_asks_for_a_fixed_one() -> None:
    with pytest.raises(ModelError, match="computed from a size that is not fixed") as caught:
        import_torch(Call(lambda x: torch.zeros(x.shape[0] + 1) + 1), (X,), dynamic_batch=True)
    assert "fixed batch" in (caught.value.hint or "")
