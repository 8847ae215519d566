"""Weight sharing: few values per layer, zeros that stay, entries that train by the summed gradient of their weights."""

from __future__ import annotations

import functools

import numpy as np
import octavo
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from octavo.ir import Graph, parse_graph, print_graph
from octavo.ir.constants import from_tensors
from octavo.ir.errors import OctavoError, PassError, UsageError
from octavo.ir.interpreter import run_graph
from octavo.ir.op import Quantization
from octavo.ir.ops.constant import Constant
from octavo.ir.verifier import verify
from octavo.passes import PassContext, Pipeline
from octavo.passes.kmeans import Initialization, cluster
from torch import Tensor, nn
from torch.nn import functional as F

INITIALIZATIONS: tuple[Initialization, ...] = ("linear", "density", "random")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8)
        self.up, self.block = nn.ConvTranspose2d(8, 6, 2, 2), nn.Conv2d(6, 8, 3, groups=2)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        y: Tensor = self.head(F.relu(self.block(F.relu(self.up(x)))).mean((2, 3)))
        return y


LAYERS = ("stem", "up", "block", "head")


def traced(*, sparse: bool = False) -> Graph:
    return exported(sparse).clone()


@functools.cache
def exported(sparse: bool) -> Graph:
    torch.manual_seed(0)
    module = Net().eval()
    nn.init.uniform_(module.norm.weight, 0.5, 2.0)
    if sparse:
        with torch.no_grad():
            for weight in (module.get_parameter(f"{name}.weight") for name in LAYERS):
                weight.mul_(weight.abs() > weight.abs().median())
    batch = torch.export.Dim("n", min=2)
    return octavo.trace(torch.export.export(module, (torch.zeros(2, 3, 8, 8),), dynamic_shapes=({0: batch},)))


def images(count: int = 32) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).normal(size=(count, 3, 8, 8)).astype(np.float32))


def run(graph: Graph, text: str) -> list[str]:
    lines: list[str] = []
    Pipeline.parse(text).run(graph, PassContext(calibration=[{"x": images().numpy()}], report=lines.append))
    verify(graph)
    return lines


def weights(graph: Graph) -> dict[str, np.ndarray]:
    """The weights by layer, output channels first; of a graph whose constants are folded."""
    found = {}
    for node in graph.nodes:
        if node.op.rule is Quantization.WEIGHTED and len(node.inputs) > 1:
            op = node.inputs[1].op
            assert isinstance(op, Constant)
            found[node.origin] = np.moveaxis(op.data.numpy(), 1 if "transpose" in node.op.name else 0, 0)
    return found


def folded(graph: Graph) -> dict[str, np.ndarray]:
    dense = graph.clone()
    Pipeline.parse("fold-constants").run(dense)
    return weights(dense)


# K-means ------------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(-50, 50), min_size=1, max_size=60),
    st.integers(1, 12),
    st.sampled_from(INITIALIZATIONS),
    st.integers(0, 3),
)
def test_every_value_is_with_its_nearest_centroid_and_centroids_are_means(
    numbers: list[int], count: int, initialization: Initialization, seed: int
) -> None:
    values = np.array(numbers) / 7
    found = cluster(values, count, initialization, 1000, np.random.default_rng(seed))
    assert len(found.centroids) == min(count, len(set(numbers)))
    assert set(found.labels.tolist()) == set(range(len(found.centroids)))
    distances = np.abs(values[:, None] - found.centroids)
    chosen = distances[np.arange(len(values)), found.labels]
    np.testing.assert_allclose(chosen, distances.min(1), atol=1e-9)
    for index, centroid in enumerate(found.centroids):
        assert centroid == pytest.approx(values[found.labels == index].mean(), abs=1e-9)


def test_few_different_values_are_kept_as_they_are() -> None:
    values = np.array([[0.3, -2.0, 0.3], [7.0, -2.0, 7.0]])
    found = cluster(values, 3, "linear", 10, np.random.default_rng(0))
    np.testing.assert_array_equal(found.centroids[found.labels], values)


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
def test_clusters_of_a_mixture_are_found(initialization: Initialization) -> None:
    random = np.random.default_rng(0)
    middles = np.array([-3.0, -1.0, 2.0, 4.0])
    values = (middles[:, None] + random.normal(scale=0.1, size=(4, 500))).reshape(-1)
    found = cluster(values, 64, initialization, 1000, np.random.default_rng(0))
    errors = np.square(found.centroids[found.labels] - values).mean()
    assert errors < 0.02 * 0.1**2


def lloyd(values: np.ndarray, centroids: np.ndarray) -> float:
    """The squared error where Lloyd's steps alone end; clusters may stay empty."""
    while True:
        labels = np.abs(values[:, None] - centroids).argmin(1)
        moved = np.array([values[labels == i].mean() if (labels == i).any() else c for i, c in enumerate(centroids)])
        if np.allclose(moved, centroids, rtol=0, atol=1e-12):
            return float(np.square(values - moved[labels]).sum())
        centroids = moved


@given(st.integers(0, 10**6), st.integers(2, 16), st.sampled_from([0.0, 1.0, 30.0, 1e4]), st.sampled_from([1, 5, 300]))
def test_no_cluster_is_empty_however_far_out_a_value_lies(seed: int, count: int, far: float, iterations: int) -> None:
    values = np.random.default_rng(seed).normal(scale=0.05, size=100)
    values[0] += far
    for initialization in INITIALIZATIONS:
        found = cluster(values, count, initialization, iterations, np.random.default_rng(0))
        assert np.bincount(found.labels, minlength=count).all()
        assert (np.diff(found.centroids) > 0).all()
        means = [values[found.labels == index].mean() for index in range(count)]
        np.testing.assert_allclose(found.centroids, means, rtol=1e-12, atol=1e-15)


@given(st.integers(0, 10**6), st.integers(2, 16), st.sampled_from([0.0, 0.3, 30.0]))
def test_the_error_is_at_most_that_of_steps_alone(seed: int, count: int, far: float) -> None:
    values = np.random.default_rng(seed).normal(scale=0.05, size=100)
    values[0] += far
    found = cluster(values, count, "linear", 300, np.random.default_rng(0))
    error = np.square(found.centroids[found.labels] - values).sum()
    assert error <= lloyd(values, np.linspace(values.min(), values.max(), count)) * (1 + 1e-9)


def test_an_offset_of_all_values_changes_no_cluster() -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, 500) / 1024
    plain, moved = (cluster(values + by, 8, "linear", 300, np.random.default_rng(0)) for by in (0.0, 2.0**30))
    np.testing.assert_array_equal(moved.labels, plain.labels)


# The pass -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("initialization", INITIALIZATIONS)
@pytest.mark.parametrize(("option", "count"), [("bits=3", 8), ("clusters=5", 5), ("bits=2,per=channel", 4)])
def test_a_weight_takes_as_many_values_as_its_codebook_has(option: str, count: int, initialization: str) -> None:
    graph = traced()
    before = weights(graph)
    run(graph, f"share-weights{{{option},initialization={initialization}}}")
    after = folded(graph)
    assert after.keys() == before.keys()
    for name, weight in after.items():
        parts = weight if "channel" in option else weight[None]
        assert all(len(np.unique(part)) <= count for part in parts), name
        assert np.square(weight - before[name]).mean() < 0.25 * np.square(before[name]).mean()


def test_zeros_stay_exact_zeros_and_count_as_an_entry() -> None:
    graph = traced(sparse=True)
    before = weights(graph)
    lines = run(graph, "share-weights{bits=2}")
    for name, weight in folded(graph).items():
        np.testing.assert_array_equal(weight == 0, before[name] == 0)
        assert len(np.unique(weight)) == 4
    assert all("4 values, one of them zero" in line for line in lines[:-1])


def test_zeros_stay_when_the_rest_trains() -> None:
    graph = traced(sparse=True)
    before = weights(graph)
    run(graph, "share-weights{bits=3}")
    module = octavo.to_torch(graph)
    optimizer = torch.optim.Adam(module.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward(module(images()).square().mean())
        optimizer.step()
    for name, weight in folded(octavo.from_torch(module)).items():
        assert not (weight[before[name] == 0]).any()
        assert len(np.unique(weight)) <= 8


def test_the_gradient_of_an_entry_is_the_sum_over_its_weights() -> None:
    dense = traced()
    run(dense, "share-weights{bits=3}")
    shared = dense.clone()
    Pipeline.parse("fold-constants").run(dense)
    ours, plain, x = octavo.to_torch(shared), octavo.to_torch(dense), images()
    for module in (ours, plain):
        torch.autograd.backward(module(x).square().mean())
    gradients = {name: value.grad for name, value in plain.named_parameters()}
    indices = {n.output.name: n.op.data.numpy() for n in shared.nodes if isinstance(n.op, Constant)}
    for name in LAYERS:
        dense_gradient = gradients[f"{name}.weight"]
        entry_gradient = dict(ours.named_parameters())[f"{name}.weight.codebook"].grad
        assert dense_gradient is not None
        assert entry_gradient is not None
        summed = np.bincount(indices[f"{name}.weight.indices"].reshape(-1), dense_gradient.numpy().reshape(-1))
        np.testing.assert_allclose(entry_gradient.numpy(), summed, rtol=1e-4, atol=1e-6)


def test_training_the_codebooks_recovers_what_sharing_cost() -> None:
    teacher, x = traced(), images()
    target = torch.from_numpy(run_graph(teacher, {"x": x.numpy()})["output"])
    graph = teacher.clone()
    run(graph, "share-weights{bits=2}")
    module = octavo.to_torch(graph)
    optimizer = torch.optim.Adam(module.parameters(), 0.003)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.mse_loss(module(x), target)
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.3 * losses[0]
    assert all(len(np.unique(weight)) <= 4 for weight in folded(octavo.from_torch(module)).values())


@pytest.mark.parametrize("rounding", ["balanced", "nearest"])
@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_integer_weights_of_a_channel_take_as_many_values(per: str, rounding: str) -> None:
    """A batch norm scales channels; within one, equal weights stay equal."""
    graph = traced(sparse=True)
    zeros = {name: weight == 0 for name, weight in weights(graph).items()}
    run(graph, f"share-weights{{bits=3,per={per}}}")
    steps = f"calibrate,quantize{{rounding={rounding}}},lower-integer,finish"
    run(graph, f"prepare,observe{{method=minmax}},{steps}")
    found = weights(graph)
    assert set(found) == set(LAYERS)
    for name, weight in found.items():
        assert weight.dtype == np.int8
        assert all(len(np.unique(channel)) <= 8 for channel in weight), name
        assert not weight[zeros[name]].any()


def test_the_whole_pipeline_runs_behind_it() -> None:
    graph = traced()
    expected = run_graph(graph, {"x": images().numpy()})["output"]
    run(graph, "share-weights{bits=6},int8")
    got = run_graph(graph, {"x": images().numpy()})["output"]
    assert np.square(got - expected).sum() < 0.05 * np.square(expected).sum()


def test_a_weight_of_two_layers_is_shared_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(F.relu(self.layer(x)))
            return y

    graph = octavo.trace(Tied().eval(), (torch.zeros(2, 8),))
    lines: list[str] = []
    Pipeline.parse("share-weights{bits=2}").run(graph, PassContext(report=lines.append))
    assert sum(node.op.name == "gather" for node in graph.nodes) == 1
    assert lines[-1].startswith("1 weights shared")


class Translator(nn.Module):
    """An embedding and the layer after it have one weight, two layers have another, and one is an output."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.scores = nn.Embedding(16, 8), nn.Linear(8, 16, bias=False)
        self.first, self.second, self.third = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.scores.weight, self.second.weight = self.words.weight, self.first.weight

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y: Tensor = self.third(self.second(F.relu(self.first(self.words(x)))))
        return self.scores(y), self.third.weight


@pytest.mark.parametrize(
    ("keep", "shared", "reasons"),
    [
        ("", {"first", "second", "scores"}, {"third": "the network returns them"}),
        (
            "second",
            {"scores"},
            {"first": "second has the same ones, and keeps them by request", "second": "by request"},
        ),
        ("words", {"first", "second"}, {"scores": "words has the same ones, and keeps them by request"}),
    ],
)
def test_what_has_the_same_weights_as_a_kept_layer_is_kept(
    keep: str, shared: set[str], reasons: dict[str, str]
) -> None:
    torch.manual_seed(0)
    graph = octavo.trace(Translator().eval(), (torch.arange(6).reshape(2, 3),))
    before, lines = weights(graph), run(graph, f"share-weights{{bits=2,keep=[{keep}]}}")
    assert {name for name, weight in folded(graph).items() if not np.array_equal(weight, before[name])} == shared
    assert all(f"{name} keeps its weights: {reason}" in lines for name, reason in reasons.items())


def test_the_shared_graph_is_a_text_that_parses_back() -> None:
    graph = traced(sparse=True)
    run(graph, "share-weights{bits=2,per=channel}")
    text = print_graph(graph)
    assert print_graph(parse_graph(text, from_tensors(graph.constants()))) == text


def test_equal_seeds_give_equal_codebooks() -> None:
    texts = []
    for seed in (1, 1, 2):
        graph = traced()
        run(graph, f"share-weights{{bits=2,initialization=random,iterations=1,seed={seed}}}")
        texts.append(print_graph(graph))
    assert texts[0] == texts[1] != texts[2]


# Mistakes and layers that stay --------------------------------------------------------------------------------------


def test_layers_that_stay_are_reported_with_the_reason() -> None:
    graph = traced()
    lines = run(graph, "share-weights{bits=6,keep=[st*]}")
    assert "stem keeps its weights: by request" in lines
    assert "head keeps its weights: 32 are no more than a codebook has entries" in lines
    again = run(graph, "share-weights{bits=6}")
    assert "block keeps its weights: they are shared already" in again
    assert not Pipeline.parse("share-weights{bits=6}").run(graph)


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cells, self.matrix = nn.LSTM(6, 8, batch_first=True), nn.Parameter(torch.randn(8, 9))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cells(x)[0] @ self.matrix
        return y


def test_products_that_are_no_layers_yet_say_what_makes_them_layers() -> None:
    torch.manual_seed(0)
    graph = octavo.trace(Sequence().eval(), (torch.zeros(2, 5, 6),))
    lines: list[str] = []
    context = PassContext(report=lines.append)
    Pipeline.parse("share-weights{bits=3}").run(graph, context)
    assert any("run that before" in line and "split-recurrent" in line for line in lines)
    lines.clear()
    Pipeline.parse("split-recurrent,simplify,share-weights{bits=3}").run(graph, context)
    assert "2 weights shared" in lines[-1]
    assert [line for line in lines if "keeps" in line] == ["cells keeps its weights: a recurrence stays in float"]


@pytest.mark.parametrize(
    ("options", "named"),
    [("bits=0", "bits=0"), ("bits=9", "bits=9"), ("clusters=1", "clusters=1"), ("iterations=0", "iterations=0")],
)
def test_options_out_of_range_are_refused(options: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Pipeline.parse(f"share-weights{{{options}}}")


def test_an_unknown_initialization_is_refused() -> None:
    with pytest.raises(OctavoError, match="initialization"):
        Pipeline.parse("share-weights{initialization=forgy}")


def test_a_frozen_graph_is_refused() -> None:
    graph = traced()
    run(graph, "int8")
    with pytest.raises(PassError, match="before the freeze"):
        run(graph, "share-weights")
