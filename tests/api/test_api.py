"""The Python API, from models of every kind to a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import octavo
import pytest
import torch
from octavo.backends.compare import Difference, compare_values, freeze_and_keep, worst_first
from octavo.backends.freeze import Freezer
from octavo.backends.models import Model, digest_graphs
from octavo.ir import Graph, load_graph, parse_graph, run_graph, save_graph
from octavo.ir.errors import CalibrationError, InputError, ModelError, UsageError
from octavo.ir.types import Dim
from octavo.passes.pipeline import Pipeline
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.relu(self.conv(image)).mean((2, 3)))
        return logits


EXAMPLE = (torch.zeros(1, 3, 8, 8),)


def batches(count: int = 3, size: int = 8) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(1, 3, size, size)).astype(np.float32) for _ in range(count)]


def test_trace_takes_modules_programs_graphs_and_files(tmp_path: Path) -> None:
    module = Net().eval()
    graph = octavo.trace(module, EXAMPLE, name="net")
    assert graph.name == "net"
    program = octavo.trace(torch.export.export(module, EXAMPLE))
    save_graph(graph, tmp_path / "net.octavo")
    loaded = octavo.trace(tmp_path / "net.octavo")
    copied = octavo.trace(graph)
    assert copied is not graph
    feeds = {"image": batches(1)[0]}
    expected = module(torch.from_numpy(feeds["image"])).detach().numpy()
    for found in (graph, program, loaded, copied):
        np.testing.assert_allclose(run_graph(found, feeds)["output"], expected, atol=1e-5)


def test_trace_takes_shapes() -> None:
    module = Net()
    graph = octavo.trace(module, EXAMPLE, shapes={"image": (2, 3, 12, 12)})
    assert graph.outputs[0].type.shape == (2, 4)
    assert octavo.trace(graph, shapes={"image": (5, 3, 6, 6)}).outputs[0].type.shape == (5, 4)
    with pytest.raises(ModelError, match="images, which is no input"):
        octavo.trace(graph, shapes={"images": (5, 3, 6, 6)})
    with pytest.raises(ModelError, match="3 dimensions"):
        octavo.trace(graph, shapes={"image": (3, 6, 6)})


def test_an_open_batch_becomes_one_and_other_open_dimensions_are_named() -> None:
    graph = octavo.trace(Net(), EXAMPLE)
    open_batch = graph.clone(inputs={"image": graph.inputs[0].type.with_shape((Dim("n"), 3, 8, 8))})
    (fixed,) = Model(open_batch).trace_fixed(())
    assert fixed.inputs[0].type.shape == (1, 3, 8, 8)
    text = 'octavo.graph 1\ngraph @"g"(%x: f32[1x8x?w]) -> ("y": %y) {\n  %y: f32[1x8x?w] = relu(%x)\n}\n'
    with pytest.raises(ModelError, match=r"x is open(.|\n)*--shape x=1x8x\.\.\."):
        Model(parse_graph(text)).trace_fixed(())


def test_what_has_no_file_is_known_by_its_graph() -> None:
    graph = octavo.trace(Net(), EXAMPLE)
    again = octavo.trace(Net(), EXAMPLE)
    assert Model(Net(), EXAMPLE).digest() is None
    assert digest_graphs([graph]) == digest_graphs([again])
    other = Net()
    with torch.no_grad():
        other.conv.weight[0, 0, 0, 0] += 1.0
    assert digest_graphs([octavo.trace(other, EXAMPLE)]) != digest_graphs([graph])


def test_optimize_leaves_the_graph_alone_and_reports() -> None:
    graph = octavo.trace(Net(), EXAMPLE)
    before = str(graph)
    lines: list[str] = []
    steps: list[str] = []
    frozen = octavo.optimize(
        graph, calibration=batches(), report=lines.append, progress=lambda label, done, total: steps.append(label)
    )
    assert str(graph) == before
    assert any(node.op.name == "qconv" for node in frozen.nodes)
    assert lines
    assert steps == ["calibrate"] * 3 + ["compare ranges"] * 4


def test_ranges_reproduce_a_frozen_graph(tmp_path: Path) -> None:
    graph = octavo.trace(Net(), EXAMPLE)
    freezer = Freezer(Pipeline.parse("int8"), calibration=batches())
    (frozen,) = freezer.freeze([graph])
    again = octavo.optimize(graph, ranges=freezer.ranges)
    assert str(again) == str(frozen)


def test_every_shape_gets_the_ranges_of_the_first_that_fits_the_data() -> None:
    small, large = (octavo.trace(Net(), EXAMPLE, shapes={"image": (1, 3, n, n)}) for n in (8, 12))
    freezer = Freezer(Pipeline.parse("int8"), calibration=batches(size=12))
    frozen = freezer.freeze([small, large])
    assert [g.inputs[0].type.shape[-1] for g in frozen] == [8, 12]
    assert frozen[0].constants().keys() == frozen[1].constants().keys(), "the same weights, stored once"
    with pytest.raises(CalibrationError, match="1x3x9x9"):
        Freezer(Pipeline.parse("int8"), calibration=batches(size=9)).freeze([small, large])


def test_a_frozen_graph_is_not_frozen_again() -> None:
    frozen = octavo.optimize(octavo.trace(Net(), EXAMPLE), calibration=batches())
    assert Freezer(Pipeline.parse("int8")).freeze([frozen]) == (frozen,)


@pytest.mark.slow
@pytest.mark.parametrize("compress", [False, True])
def test_compile_and_load(tmp_path: Path, compress: bool) -> None:
    module, data = Net().eval(), batches()
    result = octavo.compile(
        module,
        example_inputs=EXAMPLE,
        calibration=data,
        mcpu="native",
        output=tmp_path / "net",
        labels=["a", "b", "c", "d"],
        preprocess="resize=8,crop=8",
        compress=compress,
    )
    assert result.manifest.name == "Net"
    assert result.manifest.preprocessing is not None
    frozen = octavo.optimize(octavo.trace(module, EXAMPLE), ranges=result.ranges)
    with result.load() as bundle:
        for image in data:
            expected = run_graph(frozen, {"image": image})["output"]
            np.testing.assert_array_equal(bundle.run(image)["output"], expected)
    assert octavo.load(result.path).manifest.made["pipeline"] == result.manifest.made["pipeline"]


def test_compile_refuses_before_it_works(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="labels cannot be read"):
        octavo.compile(Net(), output=tmp_path / "x", labels=tmp_path / "gone.txt")
    with pytest.raises(CalibrationError, match="no calibration data"):
        octavo.compile(Net(), example_inputs=EXAMPLE, output=tmp_path / "x")
    assert not list(tmp_path.iterdir())


# Comparing ---------------------------------------------------------------------------------------------------------


def freeze() -> tuple[Graph, Graph]:
    graph = octavo.trace(Net(), EXAMPLE)
    freezer = Freezer(Pipeline.parse("int8"), calibration=batches())
    freezer.freeze([graph])
    return freeze_and_keep(graph, "int8", freezer.ranges)


def test_every_integer_value_is_compared_with_its_float_original(tmp_path: Path) -> None:
    prepared, frozen = freeze()
    found = compare_values(prepared, frozen, [{"image": image} for image in batches()])
    assert [value.op for value in found] == ["quantize", "qconv", "qreduce_mean", "qlinear"]
    assert all(20 < value.difference.sqnr < 100 for value in found)
    sorted_values = worst_first(found)
    assert sorted_values[0].difference.sqnr == min(value.difference.sqnr for value in found)
    save_graph(frozen, tmp_path / "frozen.octavo")
    assert len(compare_values(prepared, load_graph(tmp_path / "frozen.octavo"), [{"image": batches(1)[0]}])) == 4


def test_a_difference_is_counted_over_batches() -> None:
    difference, logits, swapped = Difference("y"), np.array([[3.0, 4.0]]), np.array([[4.0, 3.0]])
    difference.add(logits, logits)
    assert difference.sqnr == float("inf")
    difference.add(logits, swapped)
    assert difference.flips == 1
    assert difference.rankings == 2
    assert difference.differing == 2
    assert difference.largest_error == 1.0
    assert difference.sqnr == pytest.approx(10 * np.log10(50 / 2))
    with pytest.raises(InputError, match="y is"):
        difference.add(np.zeros((1, 2)), np.zeros((1, 3)))
