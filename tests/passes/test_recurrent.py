"""Recurrent layers of PyTorch and ONNX: split into an int8 layer and a float recurrence, compiled, and right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import octavo
import onnxruntime
import pytest
import torch
from importers.onnx.models import Array, model, normal, reference
from octavo.ir import Graph
from octavo.ir.errors import UnsupportedError
from octavo.ir.importers.onnx import import_onnx
from octavo.ir.interpreter import run_graph
from octavo.passes import Pipeline
from octavo.passes.observers import NumericsCheck
from torch import nn
from zoo.accuracy import sqnr
from zoo.registry import zoo_model
from zoo.samples import vad_frames

Feeds = dict[str, Array]


class Layers(nn.Module):
    """All steps, and the last states."""

    def __init__(self, layers: nn.RNNBase) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: torch.Tensor, *state: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = [] if not state else [state[0] if len(state) == 1 else state]
        steps, last = self.layers(x, *given)
        return (steps, *last) if isinstance(last, tuple) else (steps, last)


class Filled(nn.Module):
    """Layers whose initial states are inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(16, 24, 2, batch_first=True)
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, ...]:
        steps, (hidden, cell) = self.lstm(x, (h, c))
        return self.head(steps), hidden, cell


def ratio(expected: Array, found: Array) -> float:
    difference = expected.astype(np.float64) - found
    return sqnr(float(np.square(expected, dtype=np.float64).sum()), float(np.square(difference).sum()))


def check(graph: Graph, data: Sequence[Feeds], expected: Sequence[Array], folder: Path, *, least: float = 30) -> Graph:
    """Freeze with all data but the first, compile, run; the bundle equals the interpreter and is close to float."""
    frozen = octavo.optimize(graph, calibration=data[1:])
    judged = list(run_graph(frozen, data[0]).values())
    bundle = octavo.compile(frozen, output=folder / "bundle", name="net", mcpu="native")
    for ours, theirs, true in zip(octavo.load(bundle.path).run(data[0]).values(), judged, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())
        assert ratio(true, ours) > least
    return frozen


CASES: dict[str, tuple[nn.RNNBase, tuple[int, ...]]] = {
    "lstm": (nn.LSTM(16, 24), (20, 1, 16)),
    "stacked, both ways, batch first": (nn.LSTM(16, 20, 2, bidirectional=True, batch_first=True), (3, 25, 16)),
    "gru": (nn.GRU(16, 33, 2, batch_first=True), (2, 12, 16)),
    "gru both ways": (nn.GRU(8, 16, bidirectional=True), (12, 4, 8)),
    "rnn": (nn.RNN(8, 16, 2), (12, 2, 8)),
    "rnn with relu": (nn.RNN(8, 16, nonlinearity="relu", bias=False), (12, 2, 8)),
    "two thousand steps": (nn.GRU(8, 12), (2000, 1, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_torch_layers(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    layers, shape = CASES[name]
    torch.nn.init.normal_(dict(layers.named_parameters())["weight_hh_l0"], std=0.2)
    network = Layers(layers).eval()
    graph = octavo.trace(network, (torch.zeros(shape),))
    data = [{graph.inputs[0].name: normal(*shape, seed=seed)} for seed in range(4)]
    with torch.no_grad():
        expected = [part.numpy() for part in network(torch.from_numpy(next(iter(data[0].values()))))]
    frozen = check(graph, data, expected, tmp_path)
    kinds = [node.op.name for node in frozen.nodes]
    assert kinds.count("qlinear") == kinds.count("recurrence") == layers.num_layers


def test_initial_states_are_inputs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Filled().eval()
    shapes = ((2, 9, 16), (2, 2, 24), (2, 2, 24))
    graph = octavo.trace(network, tuple(map(torch.zeros, shapes)))
    names = [value.name for value in graph.inputs]
    data = [
        {n: normal(*s, seed=3 * seed + i) / 2 for i, (n, s) in enumerate(zip(names, shapes, strict=True))}
        for seed in range(6)
    ]
    with torch.no_grad():
        expected = [part.numpy() for part in network(*map(torch.from_numpy, data[0].values()))]
    check(graph, data, expected, tmp_path, least=25)


ONNX = {
    "lstm with everything": """
    main (float[7, 3, 6] x, float[2, 3, 5] h, float[2, 3, 5] c)
      => (float[7, 2, 3, 5] y, float[2, 3, 5] a, float[2, 3, 5] b) {
      lengths = Constant<value = int32[3] {7, 4, 1}>()
      y, a, b = LSTM<hidden_size = 5, direction = "bidirectional", clip = 0.9>(x, w20, r20, b40, lengths, h, c, p)
    }""",
    "gru": """
    main (float[7, 3, 6] x) => (float[7, 1, 3, 5] y, float[1, 3, 5] a) {
      y, a = GRU<hidden_size = 5, direction = "reverse", activations = ["HardSigmoid", "Softsign"]>(x, w15, r15, b30)
    }""",
    "gru with linear before reset": """
    main (float[7, 3, 6] x) => (float[7, 1, 3, 5] y, float[1, 3, 5] a) {
      y, a = GRU<hidden_size = 5, linear_before_reset = 1>(x, w15, r15, b30)
    }""",
    "rnn, batch first": """
    main (float[3, 7, 6] x) => (float[3, 7, 1, 5] y, float[3, 1, 5] a) {
      y, a = RNN<hidden_size = 5, layout = 1, activations = ["Affine"], activation_alpha = [0.5]>(x, w5, r5)
    }""",
    "lstm with coupled gates": """
    main (float[7, 3, 6] x) => (float[7, 1, 3, 5] y, float[1, 3, 5] a, float[1, 3, 5] b) {
      y, a, b = LSTM<hidden_size = 5, input_forget = 1>(x, u20, s20)
    }""",
}  # fmt: skip
WEIGHTS = {
    "w20": normal(2, 20, 6) / 3,
    "r20": normal(2, 20, 5, seed=1) / 3,
    "b40": normal(2, 40, seed=2) / 3,
    "p": normal(2, 15, seed=3) / 3,
    "w15": normal(1, 15, 6) / 3,
    "r15": normal(1, 15, 5, seed=1) / 3,
    "b30": normal(1, 30, seed=2) / 3,
    "w5": normal(1, 5, 6) / 3,
    "r5": normal(1, 5, 5, seed=1) / 3,
    "u20": normal(1, 20, 6) / 3,
    "s20": normal(1, 20, 5, seed=1) / 3,
}


def onnx_case(name: str) -> tuple[Graph, list[Feeds], list[Array]]:
    used = {n: w for n, w in WEIGHTS.items() if f"{n}," in ONNX[name] or f"{n})" in ONNX[name]}
    proto = model(ONNX[name], opset=22, weights=used)
    graph = import_onnx(proto)
    data = [{v.name: normal(*v.type.static_shape, seed=20 + seed) for v in graph.inputs} for seed in range(6)]
    return graph, data, reference(proto, data[0])


@pytest.mark.parametrize("name", [n for n in ONNX if n != "rnn, batch first"])
def test_onnx_layers(name: str, tmp_path: Path) -> None:
    check(*onnx_case(name), tmp_path, least=25)


def test_onnx_layer_with_the_batch_first(tmp_path: Path) -> None:
    _, data, _ = onnx_case("lstm with coupled gates")
    batch_first = import_onnx(model(ONNX["rnn, batch first"], opset=22, weights={n: WEIGHTS[n] for n in ("w5", "r5")}))
    feeds = [{"x": each["x"].transpose(1, 0, 2).copy()} for each in data]
    check(batch_first, feeds, list(run_graph(batch_first, feeds[0]).values()), tmp_path)


@pytest.mark.parametrize("name", ONNX)
def test_splitting_keeps_the_numbers(name: str) -> None:
    used = {n: w for n, w in WEIGHTS.items() if f"{n}," in ONNX[name] or f"{n})" in ONNX[name]}
    graph = import_onnx(model(ONNX[name], opset=22, weights=used))
    feeds = {v.name: normal(*v.type.static_shape, seed=5) for v in graph.inputs}
    assert Pipeline.parse("split-recurrent").run(graph, None, [NumericsCheck([feeds], tolerance=1e-5)])
    assert not {node.op.name for node in graph.nodes} & {"lstm", "gru", "rnn"}
    assert not Pipeline.parse("split-recurrent").run(graph)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ('activations = ["Softplus"]>(x, w5, r5)', "no kernel for the activation softplus"),
        (">(x, w, r5)", "constant weights only"),
        ('direction = "bidirectional", activations = ["Tanh", "Relu"]>(x, w2, r2)', "two directions"),
    ],
)
def test_what_has_no_kernel_says_why(body: str, reason: str, tmp_path: Path) -> None:
    text = f"""
    main (float[7, 3, 6] x, float[1, 5, 6] w) => (float[7, D, 3, 5] y) {{
      y = RNN<hidden_size = 5{"" if body.startswith(">") else ", "}{body}
    }}"""
    weights = {**WEIGHTS, "w2": normal(2, 5, 6), "r2": normal(2, 5, 5)}
    used = {n: a for n, a in weights.items() if f" {n}," in body or f" {n})" in body}
    proto = model(text, opset=21, weights=used)
    data = [{"x": normal(7, 3, 6), "w": normal(1, 5, 6)}]
    with pytest.raises(UnsupportedError, match=reason):
        octavo.compile(proto, output=tmp_path / "bundle", mcpu="native", calibration=data)


@pytest.mark.models
def test_silero_hears_the_same_in_int8(tmp_path: Path) -> None:
    network, count = zoo_model("silero_vad"), 24
    state = np.zeros((1, 1, 128), np.float32)
    data = [{"input": vad_frames(count, seed), "h": state, "c": state} for seed in range(10)]
    shapes = {"input": (count, 576), "h": state.shape, "c": state.shape}
    frozen = octavo.optimize(octavo.trace(network.path(), shapes=shapes), calibration=data[4:])
    float_names = {node.op.name for node in frozen.nodes if node.decision and "magnitude" in node.decision.reason}
    assert float_names >= {"conv", "mul", "add", "sqrt"}
    bundle = octavo.compile(frozen, output=tmp_path / "bundle", mcpu="native", name="vad")
    session, loaded = onnxruntime.InferenceSession(network.path()), octavo.load(bundle.path)
    true = np.stack([np.asarray(session.run(None, each)[0]) for each in data[:4]])
    ours = np.stack([next(iter(loaded.run(each).values())) for each in data[:4]])
    assert np.abs(ours - true).mean() < 0.05
    assert ratio(true, ours) > 10
    judged = list(run_graph(frozen, data[0]).values())
    for found, expected in zip(loaded.run(data[0]).values(), judged, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
