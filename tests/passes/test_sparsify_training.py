"""Training keeps what is zero, and zeros that come while it trains are as many as planned."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import octavo
import pytest
import torch
from octavo.ir import Graph
from octavo.ir.errors import UsageError
from octavo.passes import PassContext, Pipeline
from octavo.passes.pruning.sparsity import parse_pattern
from octavo.passes.training.loop import Settings, Trainer, evaluate
from octavo.passes.training.losses import CrossEntropy, Loss
from octavo.passes.training.sparsity import GradualSparsity
from support.clouds import clouds, perceptron
from support.sparse import rows, sparsify, sparsity
from torch.nn import functional as F

SETTINGS = Settings(epochs=4, batch_size=32, lr=0.05)


def trainer(folder: Path, graph: Graph, sparsity: GradualSparsity | None = None, **options: Any) -> Trainer:
    loss = Loss({"cross-entropy": CrossEntropy()}, {"cross-entropy": 1.0})
    given: dict[str, Any] = {"settings": SETTINGS, "module": octavo.to_torch(graph, keep_zeros=True), **options}
    return Trainer(loss=loss, train=clouds(1), validation=clouds(2, 100), folder=folder, sparsity=sparsity, **given)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_keeps_zeros_and_teaches_the_rest(tmp_path: Path, optimizer: Any) -> None:
    graph = perceptron(16)
    sparsify(graph, "ratio=0.5,pattern=block:2x1")
    before = rows(graph)
    after = rows(trainer(tmp_path, graph, settings=dataclasses.replace(SETTINGS, optimizer=optimizer)).run())
    for name, weights in after.items():
        assert np.array_equal(weights == 0, before[name] == 0)
        assert (weights != before[name])[weights != 0].mean() > 0.9


def test_zeros_are_kept_through_fake_quantization() -> None:
    graph, x = perceptron(16), clouds(1).inputs[0]
    sparsify(graph, "ratio=0.5")
    calibration = PassContext(calibration=[{"input": x.numpy()}])
    Pipeline.parse("prepare,observe,calibrate,quantize").run(graph, calibration)
    module = octavo.to_torch(graph, keep_zeros=True)
    before = rows(graph)
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(3):
        optimizer.zero_grad()
        torch.autograd.backward(F.mse_loss(module(x), torch.ones(200, 3)))
        optimizer.step()
    after = rows(octavo.from_torch(module))
    assert len(after) == 2
    assert all(np.array_equal(after[name] == 0, before[name] == 0) for name in after)
    assert all((after[name] != before[name]).any() for name in after)


def test_without_masks_zeros_learn_and_names_are_those_of_the_module() -> None:
    graph = perceptron(16)
    assert set(octavo.to_torch(graph, keep_zeros=True).state_dict()) - set(octavo.to_torch(graph).state_dict()) == {
        "v0.weight_mask",
        "v3.weight_mask",
    }
    with pytest.raises(UsageError, match="no masks"):
        octavo.to_torch(graph).sparsify(0.5, parse_pattern("single"))
    with pytest.raises(UsageError, match="no layer"):
        octavo.to_torch(graph, keep_zeros=True).sparsify(0.5, parse_pattern("single"), keep=["*"])


@pytest.mark.parametrize("initial", [0.0, 0.2])
def test_the_schedule_is_the_cubic_one(initial: float) -> None:
    schedule = GradualSparsity(ratio=0.8, initial=initial, begin=1.0, end=3.0, every=5)
    found = {step: schedule.ratio_at(step, 7) for step in range(40)}
    steps = {step: ratio for step, ratio in found.items() if ratio is not None}
    assert list(steps) == [7, 12, 17, 21]
    for step, ratio in steps.items():
        assert ratio == pytest.approx(0.8 + (initial - 0.8) * (1 - (step - 7) / 14) ** 3)
    assert [schedule.is_complete(epochs) for epochs in (2, 3, 4)] == [False, False, True]


@pytest.mark.parametrize(
    ("pattern", "ratio", "scope"),
    [("single", 0.8, "local"), ("single", 0.8, "global"), ("2:4", None, "local"), ("block:4x1", 0.6, "local")],
)
def test_the_schedule_reaches_its_ratio(tmp_path: Path, pattern: str, ratio: float | None, scope: Any) -> None:
    sparsity_ = GradualSparsity(ratio, pattern, scope, begin=0.5, end=2.5, every=3)
    made = trainer(tmp_path, perceptron(16), sparsity_)
    seen: list[float] = []
    made.progress = lambda label, done, total: seen.append(sparsity(list(rows(made.module.to_graph()).values())))
    graph = made.run()
    reached = sparsity(list(rows(graph).values()))
    assert seen == sorted(seen)
    assert seen[2] == 0 < seen[10] < seen[-1] == reached
    assert sparsity_.final - 4 / 144 * 2 - (1 / 6 if pattern == "2:4" else 0) < reached <= sparsity_.final
    # What the validation liked best before the end was another network.
    assert evaluate(octavo.to_torch(graph), clouds(2, 100), 32) > 0.7


class StopError(Exception):
    pass


def test_an_interrupted_schedule_ends_with_the_same_bits(tmp_path: Path) -> None:
    sparsity_ = GradualSparsity(0.7, begin=0.0, end=2.5, every=2)
    whole = trainer(tmp_path / "whole", perceptron(16), sparsity_)
    expected = str(whole.run())

    def interrupt(label: str, done: int, total: int | None) -> None:
        if label == "epoch 3" and done == 2:
            raise StopError

    with pytest.raises(StopError):
        trainer(tmp_path / "parts", perceptron(16), sparsity_, progress=interrupt).run()
    again = trainer(tmp_path / "parts", perceptron(16), sparsity_)
    assert str(again.run()) == expected
    states = (whole.module.state_dict(), again.module.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    with pytest.raises(UsageError, match="other settings"):
        trainer(tmp_path / "parts", perceptron(16), dataclasses.replace(sparsity_, ratio=0.6)).run()


def test_patience_begins_when_all_zeros_are_there(tmp_path: Path) -> None:
    settings_ = dataclasses.replace(SETTINGS, epochs=12, lr=0.0, patience=2, freeze_norms=0)
    made = trainer(tmp_path, perceptron(16), GradualSparsity(0.5, end=4.0), settings=settings_)
    made.run()
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 7


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"begin": 2.0, "end": 1.0}, "begin <= end"),
        ({"ratio": 0.5, "initial": 0.6}, "initial=0.6"),
        ({"every": 0}, "at least 1 step"),
        ({"ratio": 1.0}, "a share in"),
        ({"pattern": "4"}, "no pattern of zeros"),
        ({"end": 4.0}, "some training after them"),
    ],
)
def test_mistakes_in_a_schedule(tmp_path: Path, options: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError) as caught:
        trainer(tmp_path, perceptron(16), GradualSparsity(**options))
    assert part in str(caught.value)


def test_a_schedule_needs_a_module_with_masks(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no masks"):
        trainer(tmp_path, perceptron(16), GradualSparsity(0.5), module=octavo.to_torch(perceptron(16)))


def test_weights_of_one_bit_have_no_zeros(tmp_path: Path) -> None:
    graph = perceptron(16)
    context = PassContext(calibration=[{"input": clouds(1).inputs[0].numpy()}])
    Pipeline.parse("prepare,observe,calibrate,quantize{weight-bits=1,keep-int8=[3]}").run(graph, context)
    assert list(rows(graph)) == ["3"]
    assert "0 keeps its weights: its grid of one bit has no zero" in sparsify(graph.clone(), "ratio=0.5")
    module = octavo.to_torch(graph, keep_zeros=True)
    trainer(tmp_path, graph, GradualSparsity(0.5, keep=("0",)), module=module)
    with pytest.raises(UsageError, match="can become zero") as error:
        trainer(tmp_path, graph, GradualSparsity(0.5, keep=("3",)), module=module)
    assert "0 keeps its weights: its grid of one bit has no zero" in str(error.value)


PROGRAM = """
import sys
from pathlib import Path
sys.path[:0] = {folders!r}
import torch
from support.sparse import rows, sparsity
from test_sparsify_training import GradualSparsity, perceptron, trainer
if __name__ == "__main__":
    torch.set_num_threads(1)
    graph = trainer(Path({out!r}), perceptron(16), GradualSparsity(0.5, end=2.0, every=3)).run()
    assert sparsity(list(rows(graph).values())) == 0.5
"""


@pytest.mark.slow
def test_processes_that_train_together_have_the_same_zeros(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        PROGRAM.format(folders=[str(folder) for folder in Path(__file__).parents[:2]], out=str(tmp_path / "out"))
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    result = subprocess.run(command, check=False, capture_output=True, timeout=120, text=True)
    assert result.returncode == 0, result.stderr
