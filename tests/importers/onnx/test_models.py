"""Whole networks against ONNX Runtime in float: those of the zoo, and the onnx package's light networks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from importers.onnx.models import reference, run
from octavo.ir import Dim, parse_graph, print_graph
from octavo.ir.constants import from_tensors
from octavo.ir.importers.onnx import import_onnx
from zoo.images import seeded_images
from zoo.light import NAMES, seeded_light_model
from zoo.registry import ONNX_MODELS, zoo_model

LARGE = ("vgg19", "zfnet512")  # drawing over 80 million weights takes a while


@pytest.mark.models
@pytest.mark.parametrize("name", ONNX_MODELS)
def test_zoo_networks_match_onnx_runtime(name: str) -> None:
    model = zoo_model(name)
    proto = onnx.load(model.path())
    names = [v.name for v in proto.graph.input]
    calls = [dict(zip(names, inputs, strict=True)) for inputs in model.inputs(2)]
    for feeds in calls:
        graph = import_onnx(model.path(), shapes={n: a.shape for n, a in feeds.items()})
        for ours, theirs in zip(run(graph, feeds), reference(proto, feeds), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)
        text = print_graph(graph)
        assert print_graph(parse_graph(text, from_tensors(graph.constants()))) == text


@pytest.mark.models
def test_a_classifier_keeps_its_batch_symbolic() -> None:
    model = zoo_model("page_orientation")
    proto = onnx.load(model.path())
    graph = import_onnx(proto, shapes={proto.graph.input[0].name: ("batch", 3, 224, 224)})
    assert graph.inputs[0].type.shape[0] == Dim("batch")
    pages = np.concatenate([model.sample(i)[0] for i in range(3)])
    feeds = {proto.graph.input[0].name: pages}
    for ours, theirs in zip(run(graph, feeds), reference(proto, feeds), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in LARGE else ()) for n in NAMES])
def test_light_networks_with_seeded_weights_match_onnx_runtime(name: str) -> None:
    proto = seeded_light_model(name)
    feeds = {proto.graph.input[0].name: seeded_images(1, 224, 7)}
    graph = import_onnx(proto)
    for ours, theirs in zip(run(graph, feeds), reference(proto, feeds), strict=True):
        scale = float(np.abs(theirs).max())
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5 * scale)
        assert theirs.std() > 1e-4, "an output without information proves nothing"
