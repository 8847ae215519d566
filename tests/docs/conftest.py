"""A folder with the files that the documents speak of."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from support.documents import blocks


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands of all documents keep what they compile."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def desk(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory: models, images, arrays, and the files that the documents print."""
    random = np.random.default_rng(0)
    write_classifier(tmp_path / "model.onnx", "image", [1, 3, 224, 224])
    write_classifier(tmp_path / "lines.onnx", "x", [1, 3, 48, "width"])
    (tmp_path / "images").mkdir()
    for name in ("images/a.png", "images/b.png", "photo.png"):
        Image.fromarray(random.integers(0, 256, (240, 260, 3)).astype(np.uint8)).save(tmp_path / name)
    photo = random.normal(size=(1, 3, 224, 224)).astype(np.float32)
    np.save(tmp_path / "photo.npy", photo)
    photo.tofile(tmp_path / "photo.raw")
    np.savez(tmp_path / "calib.npz", image=random.normal(size=(2, 3, 224, 224)).astype(np.float32))
    np.savez(tmp_path / "lines.npz", x=random.normal(size=(2, 3, 48, 96)).astype(np.float32))
    (tmp_path / "cap_relu.py").write_text(blocks("docs/writing-a-pass.md", "python")[0], encoding="utf-8")
    write_training(tmp_path)
    (tmp_path / "use.c").write_text(blocks("docs/bundle.md", "c")[0], encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    yield tmp_path
    for name in ("cap_relu", "train_nets"):
        sys.modules.pop(name, None)


def write_training(folder: Path) -> None:
    """The configuration of docs/training.md, its network, and four colors to tell apart."""
    (folder / "train.toml").write_text(blocks("docs/training.md", "toml")[0], encoding="utf-8")
    (folder / "train_nets.py").write_text(NETWORK, encoding="utf-8")
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 80)
    colors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], np.float32)
    images = colors[labels][:, :, None, None] + 0.3 * random.normal(size=(80, 3, 8, 8)).astype(np.float32)
    np.savez(folder / "train.npz", image=images, labels=labels)
    np.save(folder / "one.npy", images[:1])


NETWORK = """
import torch
from torch import nn


def make():
    parts = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(16, 4)), (torch.zeros(1, 3, 8, 8),)
"""


def write_classifier(path: Path, name: str, shape: list[int | str]) -> None:
    """Conv, Relu, GlobalAveragePool, Flatten, Gemm to ten ``scores``."""
    random = np.random.default_rng(1)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.normal(size=shape).astype(np.float32) * 0.2, name)

    nodes = [
        helper.make_node("Conv", [name, "w", "b"], ["c"], "conv", strides=[4, 4], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "hw", "hb"], ["scores"], "head", transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])],
        [weight("w", 8, 3, 3, 3), weight("b", 8), weight("hw", 10, 8), weight("hb", 10)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
