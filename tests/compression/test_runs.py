"""Every stage runs; a run goes on to the same bits; what it leaves behind says how it came about."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from octavo.backends.freeze import is_frozen
from octavo.ir.errors import UsageError
from octavo.ir.interpreter import run_graph
from octavo.passes import Pipeline
from octavo.passes.training.module import TrainableGraph

from compression import __main__ as command
from compression import evaluation, networks
from compression.data import DATASETS, Dataset, Pictures, training_samples, unseen_samples
from compression.experiments import STAGES
from compression.records import Store
from compression.runner import MixedPrecision, Runner

FEW = 96


def stripes(seed: int) -> Pictures:
    """Ten classes of grey, noisy pictures: a bright stripe in one of ten places."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 10, 400)
    pixels = random.integers(0, 120, (400, 28, 28))
    for image, label in zip(pixels, labels, strict=True):
        image[:, 4 + 2 * label : 6 + 2 * label] += 130
    return pixels.astype(np.uint8), labels


def unread() -> Pictures:
    raise AssertionError("the test images were read")


STRIPES = Dataset(lambda: stripes(0), lambda: stripes(1), 120, mean=0.3, deviation=0.2, shift=1, mirror=False)
HIDDEN = dataclasses.replace(STRIPES, test=unread)


def runner(folder: Path, dataset: Dataset = HIDDEN, **options: Any) -> Runner:
    return Runner(Store.within(folder), FEW, datasets=dict.fromkeys(DATASETS, dataset), **options)


def test_stages_fit_together() -> None:
    for name, stage in STAGES.items():
        before = list(STAGES)[: list(STAGES).index(name)]
        assert set(stage.needs) <= set(before), "a stage comes after what it needs"
        assert all(STAGES[need].dataset == stage.dataset for need in stage.needs)
        assert str(Pipeline.parse(stage.before)) == str(Pipeline.parse(str(Pipeline.parse(stage.before))))
        assert bool(stage.teacher) == any(term.name != "cross-entropy" for term in stage.loss)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stages share what they need."""
    return tmp_path_factory.mktemp("store")


FIELDS = {
    "stage", "seed", "settings", "parents", "code", "surroundings", "history", "seconds", "cost", "validation",
    "test", "checkpoint",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_every_stage_runs(name: str, shared: Path) -> None:
    stage = STAGES[name]
    record = runner(shared).run(name, 0)
    assert record == runner(shared).store.read(name, 0)
    assert set(record) == FIELDS
    assert record["test"] is None
    assert len(record["history"]) == (2 if stage.settings else 0)
    assert set(record["parents"]) == set(stage.needs)
    frozen = is_frozen(runner(shared).store.graph(name, 0))
    assert frozen == ("lower-integer" in str(Pipeline.parse(f"{stage.before},{stage.after}".strip(","))))
    assert record["validation"]["by"].startswith("bundle" if frozen else "torch")
    if stage.keep_zeros:
        assert record["cost"]["zeros"] >= 0.86, "training leaves zeros alone"
    if "share" in stage.before:
        assert stage.parent
        assert record["validation"]["coded_bytes"] < 0.25 * runner(shared).run(stage.parent, 0)["cost"]["parameters"]
    if "prune" in stage.before:
        whole = runner(shared).run("baseline", 0)["cost"]
        assert 0.4 * whole["macs"] < record["cost"]["macs"] <= 0.5 * whole["macs"]


def test_a_record_says_how_it_came_about(tmp_path: Path) -> None:
    made = runner(tmp_path)
    record = made.run("lenet-300-100", 7)
    assert set(record) == FIELDS
    assert record["settings"]["settings"]["seed"] == record["seed"] == 7
    assert record["settings"]["limit"] == FEW
    assert len(record["code"]) == len(record["checkpoint"]) == 64
    assert {"torch", "numpy", "octavo", "python"} <= set(record["surroundings"]["packages"])
    cost = record["cost"]
    assert (cost["macs"], cost["parameters"], cost["bytes"]) == (266_200, 266_610, 4 * 266_610)
    assert record["validation"]["images"] == FEW
    assert made.store.seeds("lenet-300-100") == [7]
    assert made.store.seeds("lenet") == []


def test_the_test_images_are_read_once(tmp_path: Path) -> None:
    runner(tmp_path).run("lenet-300-100", 0)
    record = runner(tmp_path, STRIPES).evaluate("lenet-300-100", 0)
    assert record["test"]["images"] == FEW
    assert runner(tmp_path).evaluate("lenet-300-100", 0) == record
    with pytest.raises(AssertionError, match="were read"):
        runner(tmp_path).evaluate("lenet-300-100", 0, again=True)
    assert runner(tmp_path, STRIPES).evaluate("lenet-300-100", 0, again=True)["test"] == record["test"]


class StopError(Exception):
    pass


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path: Path) -> None:
    name = "lenet-300-100-sparse"

    def interrupt(label: str, done: int, total: int | None) -> None:
        if label == "epoch 2":
            raise StopError

    whole = runner(tmp_path / "whole").run(name, 0)
    for step in range(2):  # in the parent, then in the stage itself
        with pytest.raises(StopError):
            runner(tmp_path / "parts", progress=interrupt).run(name, 0)
        if step == 0:
            runner(tmp_path / "parts").run("lenet-300-100", 0)
    lines: list[str] = []
    record = runner(tmp_path / "parts", report=lines.append).run(name, 0)
    assert "goes on after epoch 1 of 2" in lines
    assert (record["checkpoint"], record["parents"]) == (whole["checkpoint"], whole["parents"])
    assert record["validation"] == whole["validation"]
    assert record["history"][0]["validation"] == whole["history"][0]["validation"]


def test_a_run_is_made_again_when_what_decides_it_changed(tmp_path: Path) -> None:
    name = "lenet-300-100"
    first = runner(tmp_path).run(name, 0)
    assert runner(tmp_path).run(name, 0) == first
    retitled = {name: dataclasses.replace(STAGES[name], title="another")}
    assert runner(tmp_path, stages=retitled).run(name, 0) == first
    settings = STAGES[name].settings
    assert settings is not None
    slower = {name: dataclasses.replace(STAGES[name], settings=dataclasses.replace(settings, lr=1e-4))}
    assert runner(tmp_path, stages=slower).run(name, 0)["checkpoint"] != first["checkpoint"]


def test_a_checkpoint_of_another_run_is_not_evaluated(tmp_path: Path) -> None:
    made = runner(tmp_path, STRIPES)
    with pytest.raises(UsageError, match="has not been run for seed 0"):
        made.evaluate("lenet-300-100", 0)
    made.run("lenet-300-100", 0)
    made.store.save("lenet-300-100", 0, networks.make("lenet-300-100", 1))
    with pytest.raises(UsageError, match="is not the one"):
        made.evaluate("lenet-300-100", 0)


def test_networks_are_timed_in_turn_with_the_plain_one(shared: Path) -> None:
    made = runner(shared)
    for name in ("ptq-int8", "pruned50-int8"):
        made.run(name, 0)
    made.time(0, (1, 2), 3)
    for timing, batch in zip(made.store.timings(), (1, 2), strict=True):
        assert (timing["batch"], timing["seed"], timing["rounds"]) == (batch, 0, 3)
        assert {"ptq-int8", "pruned50-int8"} <= set(timing["stages"])
        assert "baseline" not in timing["stages"], "it is not frozen"
        assert timing["stages"]["ptq-int8"]["faster"] == [1.0, 1.0, 1.0]
    with pytest.raises(UsageError, match="ptq-int8 has not been run for seed 5"):
        made.time(5, (1,), 3)


def test_a_frozen_network_is_measured_by_its_bundle(tmp_path: Path) -> None:
    made = runner(tmp_path)
    made.run("lenet-300-100-shared", 0)
    graph = made.store.graph("lenet-300-100-shared", 0)
    samples = unseen_samples(STRIPES, 130)
    (answers,) = run_graph(graph, {graph.inputs[0].name: samples.inputs[0].numpy()}).values()
    assert samples.labels is not None
    found = evaluation.measure(graph, samples)
    assert found["accuracy"] == np.mean(answers.argmax(1) == samples.labels.numpy())
    assert found["images"] == 130, "one and a part of the bundle's batches"
    assert 15_000 < found["coded_bytes"] < 60_000


def test_mixed_precision_answers_nearly_the_same() -> None:
    graph = networks.make("resnet20", 0)
    x = training_samples(STRIPES, 8)[0].inputs[0]
    with torch.no_grad():
        (exact,), _ = TrainableGraph(graph).eval()(x, names=())
        (mixed,), _ = MixedPrecision(graph).eval()(x, names=())
    assert mixed.dtype == torch.float32
    assert 0 < float((mixed - exact).abs().max()) < 0.05 * float(exact.abs().max())


@pytest.fixture
def _no_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("compression.data.FASHION", tmp_path)


@pytest.mark.usefixtures("_no_data")
def test_mistakes_on_the_command_line() -> None:
    with pytest.raises(SystemExit, match=r"no stage is named basline; there are baseline"):
        command.main(["run", "basline"])
    with pytest.raises(SystemExit, match=r"(?s)Fashion-MNIST is not installed.*apt-get install"):
        command.main(["run", "baseline", "--smoke", "--seeds", "99"])
