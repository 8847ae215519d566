"""What trains is what ships: a quantized module is judged by the integer network that it becomes, to the bit."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import octavo
import pytest
import torch
from e2e.random_graphs import calibration, random_feeds, random_graph
from numpy.typing import NDArray
from octavo.ir import Graph
from octavo.ir.interpreter import run_graph, run_torch, to_torch
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.conv import Conv
from octavo.ir.ops.integer.products import exact_float, integer_conv, integer_matmul
from octavo.ir.ops.quantize import FakeQuantize
from octavo.passes import PassContext, Pipeline
from octavo.passes.training.integer import freeze, shipped
from octavo.passes.training.loop import Samples, Settings, Trainer, evaluate
from octavo.passes.training.losses import Loss, make_term
from octavo.passes.training.module import TrainableGraph
from torch import nn
from zoo.registry import zoo_model

Feeds = Mapping[str, NDArray[np.float32]]
QUANTIZE = "prepare,compose,observe{method=mse,keep-float=[op:layer_norm]},calibrate,quantize"


def quantized(graph: Graph, *batches: Feeds) -> Graph:
    graph = graph.clone()
    Pipeline.parse(QUANTIZE).run(graph, PassContext(calibration=list(batches)))
    return graph


def answers(graph: Graph, feeds: Feeds) -> list[torch.Tensor]:
    """What the module of a graph ships, for inputs by name."""
    return shipped(octavo.to_torch(graph))([to_torch(feeds[v.name]) for v in graph.inputs])


class Residual(nn.Module):
    """Convolutions with a skip connection, an average and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8))
        self.third = nn.Conv2d(8, 16, 3, 2)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        x = torch.relu(x + self.second(x))
        y: torch.Tensor = self.head(torch.relu(self.third(x)).mean((2, 3)))
        return y


def images(seed: int, count: int = 16) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32)


def residual() -> Graph:
    """Fake-quantized, with a named batch dimension."""
    torch.manual_seed(0)
    return quantized(traced(Residual()), {"x": images(1)})


def traced(module: nn.Module) -> Graph:
    batch = torch.export.Dim("n", min=2)
    program = torch.export.export(module.eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
    return octavo.trace(program)


# The judge's products are exact -----------------------------------------------------------------------------------


def test_floats_hold_sums_up_to_their_mantissa() -> None:
    assert exact_float((1 << 24) - 1) is np.float32
    assert exact_float(1 << 24) is np.float64


@pytest.mark.parametrize("depth", [1, 5, 257, 259, 600])
def test_products_at_the_limit_are_exact(depth: int) -> None:
    """Around 258 products of 255 * 255 float32 is full; odd sums show a lost bit."""
    a = np.full((3, depth), 255)
    b = np.full((depth, 2), 255)
    a[1, 0], a[2, ::2] = 254, -255
    assert np.array_equal(integer_matmul(a, b), np.einsum("ik,kj->ij", a, b))


@pytest.mark.parametrize(
    ("shape", "weight", "op"),
    [
        ((2, 3, 9), (4, 3, 3), Conv((2,), ((1, 0),), (2,))),
        ((2, 4, 7, 6), (6, 2, 3, 2), Conv((1, 2), ((2, 0), (1, 1)), (1, 2), 2)),
        ((3, 5, 6, 6), (5, 1, 3, 3), Conv((1, 1), ((1, 1), (1, 1)), (1, 1), 5)),
        ((1, 2, 5, 4, 3), (3, 2, 2, 1, 2), Conv((2, 1, 1), ((0, 1), (0, 0), (1, 0)), (1, 1, 1))),
        ((0, 3, 4, 4), (2, 3, 3, 3), Conv((1, 1), ((0, 0), (0, 0)), (1, 1))),
        ((1, 40, 5, 5), (2, 40, 3, 3), Conv((1, 1), ((1, 1), (1, 1)), (1, 1))),
    ],
)
def test_convolutions_are_those_of_torch_in_int64(shape: tuple[int, ...], weight: tuple[int, ...], op: Conv) -> None:
    random = np.random.default_rng(0)
    x, w = random.integers(-255, 256, shape), random.integers(-127, 128, weight)
    found = integer_conv(x, w, op)
    expected = op.run(torch.from_numpy(x), torch.from_numpy(w)).numpy()
    assert found.dtype == np.int64
    assert np.array_equal(found, expected)


# A module answers as its frozen network ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(0, 60, 3))
def test_random_modules_answer_as_the_network_that_compile_makes(seed: int) -> None:
    graph, batches = random_graph(seed), calibration(random_graph(seed), seed)
    feeds = random_feeds(graph, seed)
    whole = graph.clone()
    Pipeline.parse(QUANTIZE + ",lower-integer,finish").run(whole, PassContext(calibration=batches))
    found = answers(quantized(graph, *batches), feeds)
    for tensor, (name, expected) in zip(found, run_graph(whole, feeds).items(), strict=True):
        assert np.array_equal(tensor.numpy(), expected, equal_nan=True), name


@pytest.mark.models
def test_a_trained_network_answers_as_its_frozen_form() -> None:
    model = zoo_model("cifar10_cnn")
    photos = np.concatenate([model.sample(index)[0] for index in range(12)])
    graph = octavo.trace(model.module(), (torch.from_numpy(photos),))
    name = graph.inputs[0].name
    whole = octavo.optimize(graph, QUANTIZE + ",lower-integer,finish", calibration=[{name: photos}])
    (found,) = answers(quantized(graph, {name: photos}), {name: photos})
    (expected,) = run_graph(whole, {name: photos}).values()
    assert np.array_equal(found.numpy(), expected)
    assert len(np.unique(expected.argmax(1))) > 1


def trained(graph: Graph, **options: bool) -> TrainableGraph:
    """After a few steps of an optimizer, so that nothing lies where calibration put it."""
    module = octavo.to_torch(graph, **options)
    optimizer = torch.optim.Adam(module.parameters(), 1e-3)
    for seed in range(3):
        optimizer.zero_grad()
        torch.autograd.backward(module.train()(torch.from_numpy(images(seed))).square().mean())
        optimizer.step()
    return module


def sparse() -> Graph:
    """Fewer channels, and zeros among what is left."""
    graph = traced(Residual())
    Pipeline.parse("prune-channels{ratio=0.3,multiple=2},sparsify{ratio=0.5}").run(graph)
    return quantized(graph, {graph.inputs[0].name: images(1)})


@pytest.mark.models
@pytest.mark.parametrize("make", [residual, sparse])
def test_evaluation_is_the_compiled_network_to_the_bit(tmp_path: Path, make: Callable[[], Graph]) -> None:
    module = trained(make(), learn_scales=True, keep_zeros=True).eval()
    x = torch.from_numpy(images(3, 4))
    with torch.no_grad():
        found = module(x)
    with torch.inference_mode():
        assert torch.equal(module(x), found)
    graph = octavo.from_torch(module)
    (interpreted,) = run_graph(freeze(graph), {graph.inputs[0].name: x.numpy()}).values()
    assert np.array_equal(interpreted, found.numpy())
    octavo.compile(graph, output=tmp_path / "b", mcpu="native", shapes={graph.inputs[0].name: (4, 3, 8, 8)})
    assert np.array_equal(octavo.load(tmp_path / "b")(x.numpy()), found.numpy())


HEAD = "head.weight_1"
"""The rounded weight of a quantized network."""


def change_a_weight(module: TrainableGraph) -> None:
    module.get_parameter(HEAD).data[:, :8] *= -1


def change_a_scale(module: TrainableGraph) -> None:
    with torch.no_grad():
        next(iter(module.learned_scales())).mul_(1.5)


def load_another_state(module: TrainableGraph) -> None:
    with torch.enable_grad():
        other = trained(residual(), learn_scales=True)
    module.load_state_dict(other.state_dict())


@pytest.mark.parametrize("change", [change_a_weight, change_a_scale, load_another_state])
def test_what_changes_is_frozen_anew_and_what_stays_is_not(change: Callable[[TrainableGraph], None]) -> None:
    module, x = octavo.to_torch(residual(), learn_scales=True).eval(), torch.from_numpy(images(3))
    with torch.no_grad():
        before = module(x)
        network = module.integer_graph()
        assert torch.equal(module(x), before)
        assert module.integer_graph() is network
        change(module)
        after = module(x)
        assert not torch.equal(after, before)
        assert torch.equal(after, shipped(module)([x])[0])


def test_gradients_and_features_are_those_of_the_imitation() -> None:
    module, x = octavo.to_torch(residual()).eval(), torch.from_numpy(images(3))
    imitated = module(x)
    torch.autograd.backward(imitated.sum())
    assert module.get_parameter(HEAD).grad is not None
    with torch.no_grad():
        (inside,), seen = module(x, names=["third"])
        assert torch.equal(inside, imitated)
        assert seen["third"].is_floating_point()
        torch.testing.assert_close(module(x), inside, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_of_a_module_trains_alike(copied: Callable[[TrainableGraph], TrainableGraph]) -> None:
    module = octavo.to_torch(sparse(), learn_scales=True, keep_zeros=True)
    x = torch.from_numpy(images(3))
    with torch.no_grad():
        expected = module.eval()(x)
    twin = copied(module)
    assert str(twin.to_graph()) == str(module.to_graph())
    for each in (module, twin):
        optimizer = torch.optim.SGD(each.parameters(), 0.01)
        torch.autograd.backward(each.train()(x).square().mean())
        optimizer.step()
    theirs = dict(twin.named_parameters())
    assert all(torch.equal(theirs[name], parameter) for name, parameter in module.named_parameters())
    with torch.no_grad():
        assert torch.equal(twin.eval()(x), module.eval()(x))
        assert not torch.equal(twin(x), expected)


def test_a_float_module_ships_as_it_is() -> None:
    torch.manual_seed(0)
    graph = octavo.trace(Residual().eval(), (torch.zeros(2, 3, 8, 8),))
    module = TrainableGraph(graph)
    x = torch.from_numpy(images(1, 2))
    (found,) = shipped(module.train())([x])
    assert torch.equal(found, module.eval()(x))
    assert not found.requires_grad


# Training sees nearly the same network ------------------------------------------------------------------------------


def activations(module: TrainableGraph, x: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Of every activation that lies on a grid, by its name before that: what training sees, and what ships, as int8."""
    graph = module.eval().to_graph()
    grids = [n for n in graph.nodes if isinstance(n.op, FakeQuantize) and not isinstance(n.inputs[0].op, Constant)]
    with torch.no_grad():
        _, seen = module(x, names=[n.output.name for n in grids])
        stored: dict[str, torch.Tensor] = {}
        run_torch(freeze(graph), [x], lambda value, tensor: stored.update({value.name: tensor}))
    found = {}
    for node in grids:
        op, (source, *parameters) = node.op, node.inputs
        assert isinstance(op, FakeQuantize)
        scale, zero = (float(v.op.data.numpy()) for v in parameters if isinstance(v.op, Constant))
        names = (f"{source.name}.q", f"{node.output.name}.q")
        (twin,) = (stored[name] for name in names if name in stored)
        found[source.name] = (torch.round(seen[node.output.name] / scale + zero), twin)
    return found


def test_the_layers_in_training_differ_from_those_that_ship_in_few_elements_by_one_step() -> None:
    found = activations(octavo.to_torch(residual()), torch.from_numpy(images(7, 64)))
    differences = {name: (ours - theirs).abs() for name, (ours, theirs) in found.items()}
    assert len(differences) >= 5
    assert all(float(d.max()) <= 1 for d in differences.values())
    shares = {name: float((d > 0).float().mean()) for name, d in differences.items()}
    assert all(share <= 2e-4 for share in shares.values()), shares


def test_gradients_pass_the_rounding_of_a_bias() -> None:
    """Their sum over a bias is that of what its layer returns."""
    module = octavo.to_torch(residual())
    torch.autograd.backward(module(torch.from_numpy(images(7, 4))).sum())
    bias = module.get_parameter("head.bias")
    assert bias.grad is not None
    assert torch.equal(bias.grad, torch.full((4,), 4.0))


def test_what_a_pad_inserts_lies_on_the_grid() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.conv(nn.functional.pad(x, (1, 1, 1, 1), value=0.503))
            return y

    torch.manual_seed(0)
    graph = quantized(octavo.trace(Padded().eval(), (torch.zeros(16, 3, 8, 8),)), {"x": images(1)})
    x = torch.from_numpy(images(2))
    module = octavo.to_torch(graph).eval()
    (expected,) = shipped(module)([x])
    with torch.no_grad():
        ((imitated,), _) = module(x, names=())
        torch.testing.assert_close(imitated, expected, rtol=1e-5, atol=1e-5)


# The training loop ---------------------------------------------------------------------------------------------------


def test_validation_during_training_is_that_of_the_frozen_network(tmp_path: Path) -> None:
    graph, labels = residual(), torch.randint(4, (48,), generator=torch.Generator().manual_seed(0))
    samples = Samples((torch.from_numpy(images(5, 48)),), labels)
    loss = Loss({"cross-entropy": make_term("cross-entropy", {}, graph, None)}, {"cross-entropy": 1.0})
    settings = Settings(epochs=2, batch_size=16, lr=0.01)
    best = Trainer(octavo.to_torch(graph, learn_scales=True), loss, samples, samples, settings, tmp_path).run()
    (scores,) = run_graph(freeze(best), {"x": images(5, 48)}).values()
    right = float((scores.argmax(1) == labels.numpy()).mean())
    log = (tmp_path / "log.jsonl").read_text()
    assert f'"validation": {right}' in log
    assert evaluate(octavo.to_torch(best), samples, 16) == right
