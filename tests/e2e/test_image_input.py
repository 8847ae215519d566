"""Networks that take pixels answer on every level as those that take the same pixels normalized, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import octavo
import pytest
import torch
from e2e.bundles import ARM_LEVELS, Array, Job, build_all, run_jobs
from e2e.checking import x86_levels
from octavo.backends.preprocess import Preprocess
from octavo.ir import DType, Graph, run_graph
from octavo.ir.ops.integer import QImage
from octavo.ir.ops.quantize import Dequantize
from octavo.ir.types import TensorType, per_tensor
from octavo.passes.image_input import ImageInput
from octavo.passes.pipeline import format_pass
from PIL import Image
from torch import Tensor, nn

IMAGENET = ImageInput((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ImageInput((0.5,), (0.5,))


class Plain(nn.Module):
    """A padded convolution reads the image."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, 2, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(x).relu().mean((2, 3)))
        return out


class ChannelsLast(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2))


class Beside(nn.Module):
    """The image lies beside other channels, and floats of it are an output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3, padding=1)
        self.mix = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mix(torch.cat([x, self.conv(x)], 1)), x + 1


NETWORKS: list[tuple[nn.Module, tuple[int, ...], ImageInput]] = [
    (Plain(), (2, 3, 30, 37), IMAGENET),
    (Plain(1), (1, 1, 28, 28), ImageInput((0.1307,), (0.3081,))),
    (Plain(), (1, 3, 32, 32), HALVES),
    (ChannelsLast(), (1, 20, 33, 3), ImageInput((123.7, 116.3, 103.5), (58.4, 57.1, 57.4), 1.0, layout="NHWC")),
    (Beside(), (1, 3, 9, 11), IMAGENET),
]


def pair(module: nn.Module, shape: tuple[int, ...], entrance: ImageInput) -> tuple[Graph, Graph, Array, Array]:
    """The network on floats and on pixels, frozen with the same ranges, and the same image for each of them."""
    torch.manual_seed(1)
    graph = octavo.trace(module.eval(), (torch.zeros(shape),))
    n, h, w, c = shape if entrance.layout == "NHWC" else (shape[i] for i in (0, 2, 3, 1))
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, h, w, c)).astype(np.uint8)
    images.reshape(-1)[:256] = np.arange(256)
    steps = Preprocess(
        mean=entrance.mean, std=entrance.std, scale=entrance.scale, layout=entrance.layout,
        color="gray" if c == 1 else "rgb",
    )  # fmt: skip
    floats = np.concatenate([steps.apply(Image.fromarray(image.squeeze())) for image in images])
    ranges = {graph.inputs[0].name: (float(floats.min()), float(floats.max()))}
    plain = octavo.optimize(graph, "int8", calibration=[floats], ranges=ranges)
    taking = octavo.optimize(graph, f"{format_pass(entrance)},int8", calibration=[images], ranges=ranges)
    return plain, taking, floats, images


def check(levels: Sequence[str], folder: Path) -> None:
    pairs = [pair(*network) for network in NETWORKS]
    graphs = [graph for plain, taking, _, _ in pairs for graph in (plain, taking)]
    arrays = [array for _, _, floats, images in pairs for array in (floats, images)]
    built = build_all(graphs, levels, folder)
    for level in levels:
        jobs = [Job(b, level, {b.graph.inputs[0].name: x}) for b, x in zip(built, arrays, strict=True)]
        answers = run_jobs(jobs, level)
        for number, (plain, taking) in enumerate(zip(answers[::2], answers[1::2], strict=True)):
            assert plain.trouble == taking.trouble == ""
            assert list(plain.outputs) == list(taking.outputs)
            for name, want in plain.outputs.items():
                assert want.tobytes() == taking.outputs[name].tobytes(), f"network {number}, {name} on {level}"


def test_x86_levels(tmp_path: Path) -> None:
    check(x86_levels(), tmp_path)


@pytest.mark.arm
def test_arm_levels(tmp_path: Path) -> None:
    check(ARM_LEVELS, tmp_path)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network[0]).__name__)
def test_the_interpreter_agrees(network: tuple[nn.Module, tuple[int, ...], ImageInput]) -> None:
    plain, taking, floats, images = pair(*network)
    assert any(isinstance(node.op, QImage) for node in taking.nodes)
    name = plain.inputs[0].name
    assert taking.inputs[0].type == TensorType(DType.U8, images.shape)
    have = run_graph(taking, {name: images})
    for output, want in run_graph(plain, {name: floats}).items():
        np.testing.assert_array_equal(have[output], want)


def far(mean: float, std: float) -> Graph:
    """A network of an image whose normalization is none."""
    graph = Graph("far")
    image = graph.add_input("x", TensorType(DType.U8, (1, 4, 5, 3)))
    op = QImage((mean,), (std,), 255.0, per_tensor(0.01, 3))
    graph.set_outputs([graph.insert(Dequantize(), [graph.insert(op, [image]).output]).output], ["y"])
    return graph


def check_far(levels: Sequence[str], folder: Path) -> None:
    built = build_all([far(0.5, 3e38), far(-3e38, 0.1), far(0.0, -1e-38)], levels, folder)
    image = np.arange(60, dtype=np.uint8).reshape(1, 4, 5, 3)
    for level in levels:
        answers = run_jobs([Job(each, level, {"x": image}) for each in built], level)
        for each, answer in zip(built, answers, strict=True):
            with np.errstate(over="ignore"):
                want = run_graph(each.graph, {"x": image})["y"]
            np.testing.assert_array_equal(answer.outputs["y"], want)


def test_odd_numbers_on_x86(tmp_path: Path) -> None:
    check_far(x86_levels(), tmp_path)


@pytest.mark.arm
def test_odd_numbers_on_arm(tmp_path: Path) -> None:
    check_far(ARM_LEVELS, tmp_path)
