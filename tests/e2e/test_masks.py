"""Networks with masks, positions and other integers, from PyTorch and ONNX, answer as the interpreter."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import octavo
import onnx
import pytest
import torch
import torch.nn.functional as F
from e2e.bundles import ARM_LEVELS, Array, Job, build_all, run_jobs
from e2e.checking import need
from octavo.ir import Graph, run_graph
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from zoo.images import seeded_images
from zoo.light import seeded_light_model

TOKENS, WIDTH, HEADS, WORDS = 12, 32, 4, 50
LEAST = float(torch.finfo(torch.float32).min)


class Attention(nn.Module):
    """One layer of attention over tokens, of which 0 is padding; ``scores`` masks what the heads computed."""

    def __init__(self, scores: Callable[[Tensor, Tensor], Tensor], *, counted: bool = False) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(WORDS, WIDTH), nn.Embedding(TOKENS + 1, WIDTH)
        self.mixed, self.out, self.norm = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
        self.scores, self.counted = scores, counted

    def forward(self, tokens: Tensor) -> Tensor:
        seen = tokens != 0
        places = seen.long().cumsum(1) * seen.long() if self.counted else torch.arange(TOKENS)[None]
        x = self.norm(self.words(tokens) + self.places(places))
        parts = self.mixed(x).reshape(*tokens.shape, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        weights = self.scores(parts[0] @ parts[1].transpose(-1, -2) / 3, seen[:, None, None, :]).softmax(-1)
        y: Tensor = self.out((weights @ parts[2]).transpose(1, 2).flatten(2))
        kept = seen.float()[..., None]
        return (y * kept).sum(1) / kept.sum(1).clamp(min=1e-9)


class LastToken(nn.Module):
    """CLIP's text: causal attention, and what stands at the largest token."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mixed = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 3 * WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        parts = self.mixed(self.words(tokens)).reshape(*tokens.shape, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True).transpose(1, 2).flatten(2)
        return y[torch.arange(tokens.shape[0]), tokens.argmax(-1)]


def _causal(scores: Tensor, seen: Tensor) -> Tensor:
    """GPT-2's masks."""
    triangle = torch.tril(torch.ones(TOKENS, TOKENS, dtype=torch.bool))
    return torch.where(triangle & seen, scores, torch.tensor(LEAST))


def _buckets(scores: Tensor, seen: Tensor) -> Tensor:
    """T5's distances, as numbers that grow with them."""
    distance = torch.arange(TOKENS)[None, :] - torch.arange(TOKENS)[:, None]
    bucket = torch.where(distance < 0, 4 - distance.clamp(min=-3), distance.clamp(max=3))
    return (scores + bucket * 0.1).masked_fill(~seen, -1e9)


MODULES: Mapping[str, Callable[[], nn.Module]] = {
    "infinite": lambda: Attention(lambda s, seen: s.masked_fill(~seen, float("-inf"))),
    "least": lambda: Attention(lambda s, seen: s.masked_fill(~seen, LEAST)),
    "added": lambda: Attention(lambda s, seen: s + (1.0 - seen.float()) * LEAST),
    "positions": lambda: Attention(lambda s, seen: s.masked_fill(~seen, float("-inf")), counted=True),
    "causal": lambda: Attention(_causal),
    "buckets": lambda: Attention(_buckets),
    "last": LastToken,
}


def _tokens(rng: np.random.Generator) -> Array:
    tokens = rng.integers(1, WORDS, (1, TOKENS))
    tokens[0, rng.integers(4, TOKENS) :] = 0
    return tokens


def _sqnr(want: Array, have: Array) -> float:
    """Decibels of signal over what differs."""
    error = np.sum((want.astype("float64") - have) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(np.sum(want.astype("float64") ** 2) / error))


@functools.cache
def _frozen_module(name: str) -> tuple[Graph, dict[str, Array], Array]:
    """The frozen network, its input, and the module's answer."""
    torch.manual_seed(3)
    rng, module = np.random.default_rng(3), MODULES[name]().eval()
    tokens = _tokens(rng)
    graph = octavo.trace(module, (torch.from_numpy(tokens),))
    key = graph.inputs[0].name
    frozen = octavo.optimize(graph, calibration=[{key: _tokens(rng)} for _ in range(8)])
    with torch.no_grad():
        return frozen, {key: tokens}, module(torch.from_numpy(tokens)).numpy()


def _answers(graphs: Sequence[Graph], feeds: Sequence[dict[str, Array]], level: str, folder: Path) -> list[list[Array]]:
    built = build_all(graphs, [level], folder)
    answers = run_jobs([Job(each, level, feed) for each, feed in zip(built, feeds, strict=True)], level)
    assert [answer.trouble for answer in answers] == [""] * len(graphs)
    return [
        [answer.outputs[name] for name in graph.output_names] for graph, answer in zip(graphs, answers, strict=True)
    ]


LEVELS = ["avx2", pytest.param(ARM_LEVELS[0], marks=pytest.mark.arm)]


@pytest.mark.parametrize("level", LEVELS)
def test_masked_attention(level: str, tmp_path: Path) -> None:
    if level == "avx2":
        need(level)
    networks = [_frozen_module(name) for name in MODULES]
    graphs, feeds = [graph for graph, _, _ in networks], [feed for _, feed, _ in networks]
    for name, (graph, feed, torchs), (have,) in zip(
        MODULES, networks, _answers(graphs, feeds, level, tmp_path), strict=True
    ):
        (want,) = run_graph(graph, feed).values()
        assert _sqnr(want, have) > 40, name
        assert _sqnr(torchs, have) > 20, name


# ONNX ----------------------------------------------------------------------------------------------------------------

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
Tensors = Sequence[tuple[str, int, Sequence[int] | None]]


def _model(nodes: Sequence[onnx.NodeProto], inputs: Tensors, outputs: Tensors, **constants: object) -> onnx.ModelProto:
    infos = [[helper.make_tensor_value_info(*each) for each in group] for group in (inputs, outputs)]
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(list(nodes), "g", infos[0], infos[1], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def _scored() -> onnx.ModelProto:
    """Scores masked by Where, without the rows that masks leave empty; the best three of each running sum."""
    node = helper.make_node
    nodes = [
        node("MatMul", ["x", "weight"], ["q"]),
        node("Transpose", ["q"], ["k"], perm=[1, 0]),
        node("MatMul", ["q", "k"], ["scores"]),
        node("Equal", ["mask", "zero"], ["padding"]),
        node("Greater", ["scores", "half"], ["loud"]),
        node("Or", ["padding", "loud"], ["out"]),
        node("Where", ["out", "infinite", "scores"], ["masked"]),
        node("Softmax", ["masked"], ["raw"], axis=-1),
        node("IsNaN", ["raw"], ["empty"]),
        node("Where", ["empty", "nothing", "raw"], ["p"]),
        node("MatMul", ["p", "q"], ["y"]),
        node("CumSum", ["y", "zero"], ["sums"]),
        node("TopK", ["sums", "three"], ["best", "places"], axis=1),
    ]
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 0.3, (8, 8)).astype(np.float32)
    numbers = {"half": np.float32(2), "infinite": np.float32(-np.inf), "nothing": np.float32(0)}
    inputs: Tensors = [("x", FLOAT, [6, 8]), ("mask", INT64, [1, 6])]
    outputs: Tensors = [("y", FLOAT, [6, 8]), ("best", FLOAT, [6, 3]), ("places", INT64, [6, 3])]
    return _model(nodes, inputs, outputs, weight=weight, zero=np.int64(0), three=np.array([3]), **numbers)


def _normalized() -> onnx.ModelProto:
    """AlexNet's beginning."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["a"]),
        node("Relu", ["a"], ["b"]),
        node("LRN", ["b"], ["c"], size=5, alpha=0.1),
        node("MaxPool", ["c"], ["d"], kernel_shape=[3, 3], strides=[2, 2]),
        node("Conv", ["d", "v"], ["y"]),
    ]
    rng = np.random.default_rng(2)
    w, v = (rng.normal(0, 0.3, shape).astype(np.float32) for shape in ((16, 3, 3, 3), (4, 16, 1, 1)))
    return _model(nodes, [("x", FLOAT, [1, 3, 13, 13])], [("y", FLOAT, [1, 4, 5, 5])], w=w, v=v)


def _moved() -> onnx.ModelProto:
    """Elements at places that are inputs, and integers computed from them."""
    node = helper.make_node
    nodes = [
        node("GatherND", ["x", "rows"], ["a"]),
        node("ScatterND", ["x", "rows", "a"], ["b"]),
        node("GatherElements", ["b", "places"], ["c"], axis=1),
        node("OneHot", ["labels", "depth", "values"], ["d"], axis=-1),
        node("Trilu", ["x"], ["e"], upper=0),
        node("Mod", ["places", "three"], ["f"]),
        node("Einsum", ["x", "c"], ["g"], equation="ij,kj->ik"),
        node("ReduceLogSumExp", ["x"], ["h"], axes=[1]),
    ]
    inputs: Tensors = [("x", FLOAT, [8, 8]), ("rows", INT64, [3, 1]), ("places", INT64, [8, 8]), ("labels", INT64, [5])]
    kinds = zip("abcdefgh", (FLOAT,) * 5 + (INT64,) + (FLOAT,) * 2, strict=True)
    outputs: Tensors = [(name, kind, None) for name, kind in kinds]
    constants = {"depth": np.int64(6), "values": np.array([0.0, 2.0], np.float32), "three": np.int64(3)}
    return _model(nodes, inputs, outputs, **constants)


MODELS = {"scored": _scored, "normalized": _normalized, "moved": _moved}
RANGES = {"mask": 2, "rows": 8, "places": 8, "labels": 6}


def _feeds(graph: Graph, seed: int) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for value in graph.inputs:
        shape = value.type.static_shape
        integers = value.name in RANGES
        found[value.name] = rng.integers(0, RANGES[value.name], shape) if integers else rng.normal(size=shape)
        found[value.name] = found[value.name].astype(value.type.dtype.numpy)
    return found


@pytest.mark.parametrize("level", LEVELS)
def test_onnx_graphs(level: str, tmp_path: Path) -> None:
    if level == "avx2":
        need(level)
    graphs: list[Graph] = []
    for name, make in MODELS.items():
        onnx.save(make(), tmp_path / f"{name}.onnx")
        graph = octavo.trace(tmp_path / f"{name}.onnx")
        graphs.append(octavo.optimize(graph, calibration=[_feeds(graph, seed) for seed in range(4)]))
    feeds = [_feeds(graph, 1) for graph in graphs]
    for graph, feed, answers in zip(graphs, feeds, _answers(graphs, feeds, level, tmp_path), strict=True):
        for (name, want), have in zip(run_graph(graph, feed).items(), answers, strict=True):
            assert np.any(want != 0), name
            assert _sqnr(want, have) > 40, name


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["bvlc_alexnet", "zfnet512", "inception_v1"])
def test_networks_with_response_norms(name: str, tmp_path: Path) -> None:
    need("avx2")
    onnx.save(seeded_light_model(name), tmp_path / "light.onnx")
    images = seeded_images(3, 224, 1).astype(np.float32)
    graph = octavo.trace(tmp_path / "light.onnx")
    key = graph.inputs[0].name
    frozen = octavo.optimize(graph, calibration=[{key: images[:1]}, {key: images[1:2]}])
    feed = {key: images[2:]}
    ((have,),) = _answers([frozen], [feed], "avx2", tmp_path)
    (want,), (wide,) = run_graph(frozen, feed).values(), run_graph(graph, feed).values()
    assert _sqnr(want, have) > 40
    assert _sqnr(wide, have) > 15
