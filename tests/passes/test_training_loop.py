"""The training loop: it learns, resumes to the same bits, stops early, distils, and runs in several processes."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import octavo
import pytest
import torch
from octavo.ir import Graph
from octavo.ir.errors import UsageError
from octavo.passes import PassContext, Pipeline
from octavo.passes.training.loop import Samples, Settings, Trainer, evaluate
from octavo.passes.training.losses import TERMS, Attention, Loss, Step, make_term
from octavo.passes.training.module import TrainableGraph
from support.clouds import clouds, perceptron
from torch import nn

SETTINGS = Settings(epochs=4, batch_size=32, lr=0.05, weight_decay=0.0)


def quantized(graph: Graph) -> Graph:
    pipeline = Pipeline.parse("prepare,observe{method=minmax},calibrate,quantize")
    pipeline.run(graph, PassContext(calibration=[{graph.inputs[0].name: clouds(3).inputs[0].numpy()}]))
    return graph


def loss(graph: Graph, terms: Mapping[str, Mapping[str, Any]], teacher: Graph | None = None) -> Loss:
    made = {name: make_term(name, options, graph, teacher) for name, options in terms.items()}
    return Loss(made, dict.fromkeys(terms, 1.0))


def trainer(folder: Path, settings: Settings = SETTINGS, **options: Any) -> Trainer:
    graph = perceptron(12)
    criterion = options.pop("loss", None) or loss(graph, {"cross-entropy": {}})
    return Trainer(octavo.to_torch(graph), criterion, clouds(1), clouds(2, 100), settings, folder, **options)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_it_learns(tmp_path: Path, optimizer: Any) -> None:
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer, lr=0.02, warmup=1.0, clip_norm=5.0)
    lines: list[str] = []
    before = evaluate(octavo.to_torch(perceptron(12)), clouds(2, 100), 32)
    graph = trainer(tmp_path, settings, report=lines.append).run()
    assert evaluate(octavo.to_torch(graph), clouds(2, 100), 32) > max(before + 0.2, 0.8)
    assert len(lines) == 4
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [0, 1, 2, 3]
    assert log[-1]["train"]["loss"] < log[0]["train"]["loss"]
    assert log[-1]["lr"] == 0.0


@pytest.mark.parametrize(
    ("optimizer", "scale_lr", "factor"), [("adam", None, 1 / 127), ("adamw", None, 1 / 127), ("adam", 0.25, 0.25)]
)
def test_learned_scales_move_by_a_rate_of_their_own(
    tmp_path: Path, optimizer: Any, scale_lr: float | None, factor: float
) -> None:
    """The first step of Adam is as long as the rate says, less a little for gradients that are nearly nothing."""
    settings = Settings(1, 200, optimizer, 1e-3, scale_lr, weight_decay=0.0, schedule="constant")
    module, moved = after_an_epoch(settings, tmp_path)
    scales = module.learned_scales()
    assert 0 < len(scales) < len(moved)
    for parameter, distance in moved.items():
        assert distance == pytest.approx(1e-3 * (factor if parameter in scales else 1.0), rel=0.2)


@pytest.mark.parametrize(("scale_lr", "learns"), [(0.0, False), (None, True)])
def test_scales_learn_by_plain_gradients_unless_told_not_to(
    tmp_path: Path, scale_lr: float | None, learns: bool
) -> None:
    module, moved = after_an_epoch(dataclasses.replace(SETTINGS, epochs=1, scale_lr=scale_lr), tmp_path)
    assert any(moved[scale] > 0 for scale in module.learned_scales()) == learns


def after_an_epoch(settings: Settings, folder: Path) -> tuple[TrainableGraph, dict[nn.Parameter, float]]:
    """A quantized module, and how far each of its parameters has moved."""
    module = octavo.to_torch(quantized(perceptron(12)), learn_scales=True)
    before = {parameter: parameter.detach().clone() for parameter in module.parameters()}
    criterion = loss(perceptron(12), {"cross-entropy": {}})
    Trainer(module, criterion, clouds(1), clouds(2, 100), settings, folder).run()
    return module, {p: float((p.detach() - old).abs().max()) for p, old in before.items()}


class StopError(Exception):
    pass


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    noise = lambda inputs, random: tuple(x + 0.1 * torch.randn(x.shape, generator=random) for x in inputs)  # noqa: E731
    whole = trainer(tmp_path / "whole", augment=noise).run()

    def interrupt(label: str, done: int, total: int | None) -> None:
        if label == "epoch 3" and done == 2:
            raise StopError

    with pytest.raises(StopError):
        trainer(tmp_path / "parts", augment=noise, progress=interrupt).run()
    lines: list[str] = []
    assert str(trainer(tmp_path / "parts", augment=noise, report=lines.append).run()) == str(whole)
    assert lines[0] == "goes on after epoch 2 of 4"
    assert str(trainer(tmp_path / "parts", augment=noise).run()) == str(whole), "a finished run is read"


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).run()
    with pytest.raises(UsageError, match="other settings"):
        trainer(tmp_path, dataclasses.replace(SETTINGS, lr=0.01)).run()


def test_it_stops_when_validation_does_not_get_better(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=50, lr=0.0, patience=3, freeze_norms=0)
    trainer(tmp_path, settings).run()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 4


def test_norms_can_be_frozen(tmp_path: Path) -> None:
    def statistics(settings: Settings, folder: Path) -> torch.Tensor:
        made = trainer(folder, settings)
        made.run()
        return next(buffer for name, buffer in made.module.named_buffers() if "mean" in name)

    frozen = dataclasses.replace(SETTINGS, freeze_norms=0)
    assert not statistics(frozen, tmp_path / "frozen").any()
    assert statistics(SETTINGS, tmp_path / "free").any()


@pytest.mark.parametrize(
    "terms",
    [
        {"soft-labels": {"temperature": 2.0}},
        {"logits": {}},
        {"cross-entropy": {"smoothing": 0.1}, "features": {"pairs": [("2", "2")]}},
    ],
    ids="+".join,
)
def test_a_student_comes_close_to_its_teacher(tmp_path: Path, terms: dict[str, dict[str, Any]]) -> None:
    graph = perceptron(12)
    teacher = Trainer(
        octavo.to_torch(perceptron(40, 1)),
        loss(graph, {"cross-entropy": {}}),
        clouds(1),
        clouds(2),
        SETTINGS,
        tmp_path / "t",
    ).run()
    folder = tmp_path / "student"
    made = trainer(folder, loss=loss(graph, terms, teacher), teacher=octavo.to_torch(teacher))
    assert evaluate(octavo.to_torch(made.run()), clouds(2, 100), 32) > 0.8
    first, *_, last = [json.loads(line)["train"]["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]
    assert last < 0.9 * first


def test_regression() -> None:
    graph = perceptron(12)
    samples = Samples((torch.randn(10, 6),), torch.zeros(10, 3))
    assert evaluate(octavo.to_torch(graph), samples, 4) < 0


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("cross-entropi", {}, "did you mean cross-entropy"),
        ("cross-entropy", {"smoothness": 1}, "smoothness"),
        ("soft-labels", {}, "there is none"),
        ("features", {}, "there is none"),
    ],
)
def test_mistakes_in_a_loss(name: str, options: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        make_term(name, options, perceptron(12), None)


def test_attention_compares_where_channels_are_active() -> None:
    graph = perceptron(12)
    with pytest.raises(UsageError, match="has no places"):
        make_term("attention", {"pairs": [("2", "2")]}, graph, graph)
    x = torch.rand(2, 3, 4, 5)
    step = Step(torch.zeros(2, 1), features={"a": x}, teacher_features={"b": 7 * x})
    assert float(Attention([("a", "b")])(step)) < 1e-12
    other = Step(torch.zeros(2, 1), features={"a": x}, teacher_features={"b": x.flip(2)})
    assert float(Attention([("a", "b")])(other)) > 1e-3


def test_a_feature_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match="no value is named '22'"):
        make_term("features", {"pairs": [("22", "2")]}, perceptron(12), perceptron(12))


def test_every_term_says_what_it_is() -> None:
    assert all(term.__doc__ for term in TERMS.values())


PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = {folders!r}
import torch
import test_training_loop
if __name__ == "__main__":
    torch.set_num_threads(1)
    test_training_loop.{make}(Path({out!r})).run()
"""


class TwoHeads(nn.Module):
    """The loss reads the first output alone."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.other = nn.Linear(6, 12), nn.Linear(12, 3), nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = torch.relu(self.body(x))
        return self.head(x), self.other(x)


def quantized_trainer(folder: Path) -> Trainer:
    """Two processes share its batches of 35, and a last one of 25, unequally."""
    torch.manual_seed(0)
    batch = torch.export.Dim("n", min=2)
    graph = octavo.trace(torch.export.export(TwoHeads(), (torch.zeros(2, 6),), dynamic_shapes=({0: batch},)))
    graph = quantized(graph)
    module, criterion = octavo.to_torch(graph, learn_scales=True), loss(graph, {"cross-entropy": {}})
    settings = dataclasses.replace(SETTINGS, batch_size=35, lr=0.02)
    return Trainer(module, criterion, clouds(1), clouds(2, 100), settings, folder)


def run_in_two_processes(tmp_path: Path, make: str) -> list[dict[str, Any]]:
    """The log of a trainer that shares its batches."""
    program = tmp_path / "program.py"
    folders = [str(Path(__file__).parents[level]) for level in (0, 1)]
    program.write_text(PROGRAM.format(folders=folders, out=str(tmp_path / "out"), make=make))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return read(tmp_path / "out")


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_share_a_batch(tmp_path: Path) -> None:
    assert run_in_two_processes(tmp_path, "trainer")[-1]["validation"] > 0.8


@pytest.mark.slow
def test_two_processes_that_quantize_learn_what_one_does(tmp_path: Path) -> None:
    together = run_in_two_processes(tmp_path, "quantized_trainer")
    quantized_trainer(tmp_path / "alone").run()
    for one, two in zip(read(tmp_path / "alone"), together, strict=True):
        assert two["train"]["loss"] == pytest.approx(one["train"]["loss"], rel=0.01)
    assert together[-1]["validation"] > 0.8


# Mistakes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("momentum", -0.1),
        ("momentum", 1.0),
        ("seed", 1 << 64),
        ("seed", -1),
        ("clip_norm", -1.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("weight_decay", float("nan")),
        ("weight_decay", -1e-4),
        ("scale_lr", -1.0),
        ("warmup", -1.0),
        ("freeze_norms", -1),
        ("batch_size", 0),
    ],
)
def test_settings_out_of_their_range(name: str, value: float) -> None:
    changes: dict[str, Any] = {name: value}
    with pytest.raises(UsageError, match=name.replace("_", "-")):
        dataclasses.replace(SETTINGS, **changes)


def test_labels_that_are_no_numbers(tmp_path: Path) -> None:
    targets = torch.randn(100, 3)
    broken = Samples((torch.randn(100, 6),), torch.full((100, 3), torch.nan))
    criterion = loss(perceptron(12), {"mse": {}})
    whole = Samples((torch.randn(100, 6),), targets)
    with pytest.raises(UsageError, match="validation result is nan in epoch 1"):
        Trainer(octavo.to_torch(perceptron(12)), criterion, whole, broken, SETTINGS, tmp_path / "a").run()
    with pytest.raises(UsageError, match="loss is nan in epoch 1"):
        Trainer(octavo.to_torch(perceptron(12)), criterion, broken, whole, SETTINGS, tmp_path / "b").run()


def test_samples_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="as many of each"):
        Samples((torch.zeros(4, 6),), torch.zeros(3))
    with pytest.raises(UsageError, match="no samples for validation"):
        dataclasses.replace(trainer(tmp_path), validation=Samples((torch.zeros(0, 6),)))


def test_a_batch_of_one_has_no_statistics(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="single value per channel"):
        trainer(tmp_path / "norms", dataclasses.replace(SETTINGS, batch_size=1)).run()
    trainer(tmp_path / "frozen", dataclasses.replace(SETTINGS, epochs=1, batch_size=1, lr=1e-3, freeze_norms=0)).run()


def test_a_teacher_that_is_missing_is_told_before_training(tmp_path: Path) -> None:
    criterion = loss(perceptron(12), {"soft-labels": {}}, perceptron(12))
    with pytest.raises(UsageError, match="compares with a teacher"):
        trainer(tmp_path, loss=criterion)


def test_more_processes_than_samples_in_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("octavo.passes.training.loop._join", lambda: (0, 3))
    with pytest.raises(UsageError, match="3 processes share batches of 2"):
        trainer(tmp_path, dataclasses.replace(SETTINGS, batch_size=2)).run()
