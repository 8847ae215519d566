"""A trained network quantized by ONNX Runtime's own tool, in each of its forms."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from importers.onnx.models import Array, reference, run
from octavo.ir.importers.onnx import import_onnx
from zoo.registry import ZooModel, zoo_model


class Feeder:
    """Calibration inputs, one call at a time."""

    def __init__(self, name: str, model: ZooModel) -> None:
        self._calls: Iterator[dict[str, Array]] = ({name: inputs[0]} for inputs in model.inputs(4))

    def get_next(self) -> dict[str, Array] | None:
        return next(self._calls, None)


def quantized(model: ZooModel, folder: Path, form: str, activations: str) -> onnx.ModelProto:
    """The network with static parameters, weights per channel."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    proto = onnx.load(model.path())
    for dim, size in zip(proto.graph.input[0].type.tensor_type.shape.dim, model.sample(0)[0].shape, strict=True):
        dim.Clear()
        dim.dim_value = size
    onnx.save(proto, folder / "float.onnx")
    options: dict[str, Any] = {
        "quant_format": quantization.QuantFormat[form],
        "activation_type": quantization.QuantType[activations],
        "weight_type": quantization.QuantType.QInt8,
        "per_channel": True,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        feeder = Feeder(proto.graph.input[0].name, model)
        quantization.quantize_static(folder / "float.onnx", folder / "int8.onnx", feeder, **options)
    return onnx.load(folder / "int8.onnx")


@pytest.mark.models
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize("activations", ["QUInt8", "QInt8"])
def test_a_network_quantized_by_onnx_runtime(tmp_path: Path, form: str, activations: str) -> None:
    model = zoo_model("page_orientation")
    proto = quantized(model, tmp_path, form, activations)
    graph = import_onnx(tmp_path / "int8.onnx")
    kinds = [node.op.name for node in graph.nodes]
    assert kinds.count("conv") == 32
    assert "as_quantized" not in kinds
    name = proto.graph.input[0].name
    for index in range(8, 11):
        feeds = {name: model.sample(index)[0]}
        ours, theirs = run(graph, feeds)[0], reference(proto, feeds)[0]
        noise = float(((ours - theirs) ** 2).sum()) + 1e-30
        assert 10 * np.log10(float((theirs**2).sum()) / noise) > 28
        assert ours.argmax() == theirs.argmax()
