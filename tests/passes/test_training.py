"""A graph as a torch module trains as the module it came from would."""

from __future__ import annotations

import dataclasses

import numpy as np
import octavo
import pytest
import torch
from octavo.ir import Graph
from octavo.ir.constants import Tensor as Tensor_
from octavo.ir.constants import from_tensors
from octavo.ir.errors import PassError
from octavo.ir.interpreter import run_graph
from octavo.ir.ops.constant import Constant
from octavo.ir.ops.quantize import FakeQuantize
from octavo.ir.text import parse_graph
from octavo.passes import PassContext, Pipeline
from octavo.passes.training.module import TrainableGraph
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(8, 8, 1), nn.PReLU(8)) for _ in range(2)])
        self.position = nn.Parameter(torch.randn(1, 8, 1, 1))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x))) + self.position
        for block in self.blocks:
            x = x + block(x)
        y: Tensor = self.head(x.mean((2, 3)))
        return y


def net() -> Net:
    torch.manual_seed(0)
    return Net()


def traced(module: nn.Module) -> Graph:
    batch = torch.export.Dim("n", min=2)
    return octavo.trace(torch.export.export(module.eval(), (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: batch},)))


def images(seed: int = 1, count: int = 5) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, 3, 8, 8)).astype(np.float32))


def test_parameters_and_buffers_have_the_names_of_the_module() -> None:
    module, ours = net(), TrainableGraph(traced(net()))
    theirs = {name: value.shape for name, value in module.state_dict().items() if "num_batches" not in name}
    assert {name: value.shape for name, value in ours.state_dict().items()} == theirs
    assert {name for name, _ in ours.named_parameters()} == {name for name, _ in module.named_parameters()}


@pytest.mark.parametrize("training", [False, True])
def test_one_step_is_the_step_of_the_module(training: bool) -> None:
    module, ours = net(), TrainableGraph(traced(net()))
    for each in (module.train(training), ours.train(training)):
        optimizer = torch.optim.SGD(each.parameters(), 0.1)
        torch.autograd.backward(F.cross_entropy(each(images()), torch.tensor([0, 1, 2, 3, 0])))
        optimizer.step()
    expected = module.state_dict()
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_weights_go_back_into_the_graph() -> None:
    ours = TrainableGraph(traced(net()))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.mul_(1.5)
    graph, x = ours.eval().to_graph(), images()
    with torch.no_grad():
        np.testing.assert_array_equal(run_graph(graph, {"x": x.numpy()})["output"], ours(x).numpy())
    assert str(TrainableGraph(graph).to_graph()) == str(graph)


def test_a_value_is_seen_by_every_name_it_is_asked_for() -> None:
    ours = TrainableGraph(traced(net()))
    (logits,), seen = ours(images(), names=["head", "%head", "%x", "head.bias"])
    assert list(seen) == ["head", "%head", "%x", "head.bias"]
    assert torch.equal(seen["head"], logits)
    assert torch.equal(seen["%head"], logits)
    assert torch.equal(seen["%x"], images())
    assert seen["head.bias"] is ours.get_parameter("head.bias")


def test_the_graph_that_was_given_is_left_alone() -> None:
    graph = traced(net())
    before = str(graph)
    ours = TrainableGraph(graph)
    torch.autograd.backward(F.mse_loss(ours(images()), torch.zeros(5, 4)))
    torch.optim.SGD(ours.parameters(), 0.1).step()
    ours.to_graph()
    assert str(graph) == before


def test_training_heals_what_pruning_broke() -> None:
    teacher = traced(net())
    smaller = teacher.clone()
    Pipeline.parse("prune-channels{ratio=0.3}").run(smaller)
    ours, x = TrainableGraph(smaller), images(count=64)
    target = torch.from_numpy(run_graph(teacher, {"x": x.numpy()})["output"])
    optimizer = torch.optim.Adam(ours.parameters(), 0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.mse_loss(ours(x), target)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]
    healed = ours.eval().to_graph()
    Pipeline.parse("int8").run(healed, PassContext(calibration=[{"x": x.numpy()}]))


def test_quantization_aware_training_recovers_what_few_bits_cost() -> None:
    teacher = traced(net())
    x = images(count=64)
    target = torch.from_numpy(run_graph(teacher, {"x": x.numpy()})["output"])
    coarse = teacher.clone()
    ranges = PassContext(calibration=[{"x": x.numpy()}])
    Pipeline.parse("prepare,observe{method=minmax},calibrate,quantize").run(coarse, ranges)
    for node in coarse.nodes:
        if isinstance(node.op, FakeQuantize) and node.op.axis is not None:
            node.op = dataclasses.replace(node.op, low=-3, high=3)
            scale = node.inputs[1].producer
            assert scale is not None
            assert isinstance(scale.op, Constant)
            scale.op = Constant(Tensor_.of(scale.op.data.numpy() * np.float32(127 / 3)))
    losses: dict[bool, list[float]] = {}
    for learn in (False, True):
        ours = octavo.to_torch(coarse, learn_scales=learn)
        assert any("scale" in name for name, _ in ours.named_parameters()) == learn
        scales = ours.learned_scales()
        groups = [{"params": [p], "lr": 0.003 / scales.get(p, 1)} for p in ours.parameters()]
        optimizer = torch.optim.Adam(groups)
        losses[learn] = []
        for _ in range(80):
            optimizer.zero_grad()
            loss = F.mse_loss(ours(x), target)
            torch.autograd.backward(loss)
            optimizer.step()
            losses[learn].append(float(loss.detach()))
        assert losses[learn][-1] < 0.5 * losses[learn][0]
        frozen = octavo.from_torch(ours.eval())
        with torch.no_grad():
            expected = ours(x).numpy()
        Pipeline.parse("lower-integer,finish").run(frozen)
        got = run_graph(frozen, {"x": x.numpy()})["output"]
        np.testing.assert_array_equal(got, expected)


def test_constants_whose_names_collide() -> None:
    graph = traced(net())
    constants = [node.output for node in graph.nodes if node.op.name == "constant"]
    constants[0].name, constants[1].name = "a", "a.b"
    assert {"a", "a_b"} <= set(TrainableGraph(graph).state_dict())


def test_a_frozen_graph_is_refused() -> None:
    graph = traced(net())
    Pipeline.parse("int8").run(graph, PassContext(calibration=[{"x": images().numpy()}]))
    with pytest.raises(PassError, match="does not train"):
        TrainableGraph(graph)


# Which constants are parameters ---------------------------------------------------------------------------------------


class Mixture(nn.Module):
    """Parameters and buffers of every kind, two equal biases, and a weight that two layers share."""

    mask: Tensor
    offset: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.body, self.fixed = nn.Linear(4, 4), nn.Linear(4, 4).requires_grad_(False)
        self.left, self.right, self.tied = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.tied.weight = self.left.weight
        for layer in (self.left, self.right, self.tied):
            nn.init.zeros_(layer.bias)
        self.position, self.share = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.ones(1))
        self.register_buffer("mask", torch.triu(torch.full((3, 3), -torch.inf), 1))
        self.register_buffer("offset", torch.randn(3, 4))
        self.head = nn.Sequential(nn.PReLU(), nn.Linear(4, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.fixed(self.body(x + self.position)) - 2 * self.offset
        scores = torch.softmax(self.left(x) @ self.right(x).transpose(1, 2) + self.mask, -1)
        y: Tensor = self.head(scores @ self.tied(x) * self.share)
        return y


def mixture() -> Mixture:
    torch.manual_seed(0)
    return Mixture()


def example(module: nn.Module) -> Graph:
    return octavo.trace(module.eval(), (torch.zeros(2, 3, 4),))


@pytest.mark.parametrize("passes", ["", "prepare"])
def test_parameters_train_and_buffers_do_not(passes: str) -> None:
    module, graph = mixture(), example(mixture())
    Pipeline.parse(passes).run(graph)
    again = parse_graph(str(graph), from_tensors(graph.constants()))
    # torch.export calls a shared weight by its last name.
    named = module.named_parameters(remove_duplicate=False)
    theirs = {name: p.shape for name, p in named if p.requires_grad and name != "left.weight"}
    for ours in (TrainableGraph(graph), TrainableGraph(again), TrainableGraph(TrainableGraph(graph).to_graph())):
        found = {name: parameter.shape for name, parameter in ours.named_parameters()}
        assert not any(name.startswith(("fixed", "mask", "offset")) for name in found)
        assert passes or found == theirs
        torch.autograd.backward(ours.train()(torch.randn(2, 3, 4)).square().sum())
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in ours.parameters())


def test_a_module_without_a_parameter_that_trains_was_made_for_inference() -> None:
    module = mixture().requires_grad_(False)
    ours = {name for name, _ in TrainableGraph(example(module)).named_parameters()}
    assert ours == {name for name, _ in module.named_parameters(remove_duplicate=False)} - {"left.weight"}


def test_the_bias_that_a_folded_norm_leaves_trains() -> None:
    graph = traced(nn.Sequential(nn.Conv2d(3, 1, 3, bias=False), nn.BatchNorm2d(1)))
    Pipeline.parse("prepare").run(graph)
    assert sorted(p.numel() for p in TrainableGraph(graph).parameters()) == [1, 27]


def test_equal_parameters_stay_apart_and_shared_ones_together() -> None:
    graph = example(mixture())
    Pipeline.parse("prepare").run(graph)
    ours = TrainableGraph(graph)
    names = [name for name, _ in ours.named_parameters()]
    assert {"left.bias", "right.bias", "tied.bias"} <= set(names)
    assert sum(name.startswith(("left.weight", "tied.weight")) for name in names) == 1


class Backbone(nn.Module):
    """Layers that are kept as they are, below layers that train; what is added to the input trains as well."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1))
        self.frozen.requires_grad_(False)
        self.tuned, self.head = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)), nn.Linear(8, 4)
        self.head.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(F.relu(self.tuned(F.relu(self.frozen(x)))).mean((2, 3)))
        return y


@pytest.mark.parametrize(
    "passes",
    [
        "simplify",
        "fold-batchnorm",
        "prune-channels{ratio=0.3}",
        "sparsify{ratio=0.5}",
        "share-weights{bits=2}",
        "share-weights{bits=2},prepare",
        "prepare,observe{method=minmax},calibrate,quantize",
    ],
)
def test_what_passes_compute_trains_if_one_of_its_parts_does(passes: str) -> None:
    torch.manual_seed(0)
    graph = traced(Backbone())
    Pipeline.parse(passes).run(graph, PassContext(calibration=[{"x": images().numpy()}]))
    found = {name.partition(".weight")[0].partition(".bias")[0] for name, _ in TrainableGraph(graph).named_parameters()}
    assert {name for name in found if not name.startswith("tuned")} == {"head"}
    assert sum(name.startswith("tuned") for name in found) in (1, 2)
    heads = [name for name, _ in TrainableGraph(graph).named_parameters() if name.startswith("head")]
    assert len(heads) == 1
    assert "bias" in heads[0]


def test_a_mask_of_which_quantization_takes_the_size_does_not_train() -> None:
    graph = example(mixture())
    for node in graph.nodes:
        if isinstance(node.op, Constant) and node.output.name == "mask":
            node.op = dataclasses.replace(node.op, trains=None)  # as an ONNX model has it
    assert "mask" not in dict(TrainableGraph(graph).named_parameters())
    batch = {"x": np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)}
    Pipeline.parse("prepare,observe{method=minmax},calibrate,quantize").run(graph, PassContext(calibration=[batch]))
    masks = {n.inputs[0].name: n.inputs[0] for n in graph.nodes if isinstance(n.op, FakeQuantize)}
    assert any(name.startswith("mask") for name in masks)
    assert not any(name.startswith("mask") for name, _ in TrainableGraph(graph).named_parameters())


def test_numbers_on_grids_do_not_train_but_weights_of_one_element_do() -> None:
    class Halved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Conv2d(1, 1, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(torch.sigmoid(torch.sigmoid(self.body(x)) * 0.5)[:, None])
            return y

    graph = example(Halved())
    Pipeline.parse("prepare,observe{method=minmax},calibrate,quantize").run(
        graph, PassContext(calibration=[{"x": np.ones((2, 3, 4), np.float32)}])
    )
    grids = [node.inputs[0] for node in graph.nodes if isinstance(node.op, FakeQuantize)]
    assert sum(value.type.shape == () for value in grids) == 1
    shapes = sorted(parameter.shape for parameter in TrainableGraph(graph).parameters())
    assert shapes == [(1, 1, 1, 1), (4,), (4, 4)]


def test_statistics_of_one_channel_stay_apart() -> None:
    norms = [nn.BatchNorm2d(1) for _ in range(2)]
    graph = traced(nn.Sequential(nn.Conv2d(3, 1, 3), norms[0], nn.ReLU(), nn.Conv2d(1, 1, 1), norms[1]))
    before = set(TrainableGraph(graph).state_dict())
    Pipeline.parse("simplify").run(graph)
    assert set(TrainableGraph(graph).state_dict()) == before


def test_a_buffer_that_is_an_output_does_not_train_in_either_precision() -> None:
    class Table(nn.Module):
        table: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(4, 4)
            self.register_buffer("table", torch.randn(3, 4))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return self.body(x), self.table

    assert "table" not in dict(TrainableGraph(example(Table())).named_parameters())
    graph = octavo.trace(Table().double().eval(), (torch.zeros(2, 3, 4, dtype=torch.float64),))
    Pipeline.parse("narrow-floats").run(graph)
    assert "table" not in dict(TrainableGraph(graph).named_parameters())
