"""A tiny network as every kind of model, data for it, and its bundle, made once for all tests of the command line."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from octavo.cli.main import run
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

FACTORY = """
import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, image):
        return self.head(torch.relu(self.conv(image)).mean((2, 3)))


def make():
    return Tiny(), (torch.zeros(1, 3, 16, 16),)


def broken():
    raise RuntimeError("no weights today")


NUMBER = 3
"""


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Octavo = Callable[..., Result]


@pytest.fixture
def octavo(capfd: pytest.CaptureFixture[str]) -> Octavo:
    """Runs one command in this process."""

    def invoke(*arguments: object) -> Result:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err, err
        return Result(code, out, err)

    return invoke


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``tiny.onnx``, ``tiny.pt2``, ``tiny_factory.py``, ``calib.npz``, ``images`` and ``labels.txt``."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny_factory.py").write_text(FACTORY)
    write_onnx(folder / "tiny.onnx")
    write_pt2(folder / "tiny.pt2")
    random = np.random.default_rng(0)
    np.savez(folder / "calib.npz", image=random.normal(size=(4, 3, 16, 16)).astype(np.float32))
    (folder / "images").mkdir()
    for index in range(3):
        pixels = random.integers(0, 256, (20, 24, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
    (folder / "labels.txt").write_text("ant\nbee\ncat\ndog\neel\n")
    return folder


@pytest.fixture(scope="session")
def bundle(work: Path) -> Path:
    """``tiny.onnx`` compiled for this machine, with labels and preprocessing."""
    path = work / "tiny.bundle"
    arguments = ["compile", work / "tiny.onnx", "--mcpu", "native", "--calib", work / "images", "-o", path]
    arguments += ["--preprocess", "resize=16,crop=16", "--labels", work / "labels.txt", "--cache", work / "cache"]
    assert run([str(argument) for argument in arguments]) == 0
    return path


def write_pt2(path: Path) -> None:
    scope: dict[str, Any] = {"__name__": "tiny"}
    exec(FACTORY, scope)
    model, inputs = scope["make"]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model.eval(), inputs), path)


def write_onnx(path: Path, *, batch: int | str = "n", extra: str | None = None) -> None:
    """Conv, Relu, GlobalAveragePool, Flatten, Gemm on ``image``; ``extra`` puts an op of that type at the end."""
    random = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32) * 0.2, name)

    nodes = [
        helper.make_node("Conv", ["image", "w", "b"], ["c"], "conv", strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "hw", "hb"], ["logits"], "head", transB=1),
    ]
    output = "logits"
    if extra:
        nodes.append(helper.make_node(extra, ["logits"], [output := "extra"], "the_extra"))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, 16, 16])],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [batch, 5])],
        [weight("w", 8, 3, 3, 3), weight("b", 8), weight("hw", 5, 8), weight("hb", 5)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
