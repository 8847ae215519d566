"""Searching for faster kernels: it changes what a bundle takes, never what it answers. No test says how fast."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import octavo
import pytest
import torch
from octavo.backends import tune
from octavo.backends.bench.timing import Ratio
from octavo.backends.job import CompileResult, read_seconds
from octavo.backends.targets import TARGETS, host_levels, tunable_level
from octavo.ir.errors import TargetError, UsageError
from torch import nn

SIZES = ((1, 8, 16, 16), (1, 8, 12, 20))


def network() -> nn.Module:
    """Every kind of kernel that has alternatives."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 64, 1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(64, 64, 3, padding=1, groups=64),
        nn.ConvTranspose2d(64, 24, 2, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24, 10),
    ).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.npy"
    np.save(path, np.random.default_rng(0).normal(size=(2, *SIZES[0][1:])).astype(np.float32))
    return path


Compile = Callable[..., CompileResult]


@pytest.fixture(autouse=True)
def one_alternative(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are tested beside their definition."""
    monkeypatch.setattr(tune, "MOST_ALTERNATIVES", 1)


@pytest.fixture(scope="module")
def compiled(data: Path) -> Compile:
    """Compiles `network` for this machine, in two sizes that share kernels."""
    return lambda output, **options: octavo.compile(
        network(),
        output=output,
        example_inputs=(torch.zeros(SIZES[0]),),
        shapes=[{"input": size} for size in SIZES],
        calibration=data,
        mcpu="native",
        name="net",
        jobs=2,
        **options,
    )


@pytest.fixture(scope="module")
def untuned(compiled: Compile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("untuned") / "net").path


def measured(monkeypatch: pytest.MonkeyPatch, kernel: float, whole: float) -> None:
    """Let every comparison of kernels, and of networks, come out like this."""

    def ratio(first: Any, second: Any) -> Ratio:
        assert min(first) > 0
        assert min(second) > 0
        found = whole if len(first) == tune.FINAL_ROUNDS else kernel
        return Ratio(found, found, found)

    monkeypatch.setattr(tune, "pair_ratio", ratio)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def tuned(compiled: Compile, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> CompileResult:
    """Whatever has an alternative got one."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(tune, "MOST_ALTERNATIVES", 1)
        measured(monkeypatch, kernel=2.0, whole=1.5)
        return compiled(tmp_path_factory.mktemp("tuned") / "net", tune=300.0, cache=cache)


def outputs(folder: Path) -> list[bytes]:
    rng = np.random.default_rng(1)
    with octavo.load(folder) as bundle:
        return [bundle(rng.normal(size=size).astype(np.float32)).tobytes() for size in SIZES]


def found(result: CompileResult) -> Any:
    return result.manifest.made["tuned"]


def test_a_tuned_bundle_answers_with_the_same_bytes(tuned: CompileResult, untuned: Path) -> None:
    assert found(tuned)["replaced"] == found(tuned)["kernels"] >= 5
    assert found(tuned)["measured"] == found(tuned)["alternatives"]
    assert found(tuned)["ratio"] == [1.5, 1.5, 1.5]
    assert outputs(tuned.path) == outputs(untuned)


def test_the_decision_log_says_what_was_replaced(tuned: CompileResult) -> None:
    assert isinstance(tuned.manifest.decisions, list)
    reasons = [str(decision) for decision in tuned.manifest.decisions]
    assert sum("another conv kernel was faster when measured" in reason for reason in reasons) >= 3
    assert sum("another depthwise kernel was faster when measured" in reason for reason in reasons) == 1


def test_a_network_that_is_not_faster_for_certain_stays_as_it_is(
    compiled: Compile, untuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(monkeypatch, kernel=2.0, whole=1.0)
    result = compiled(tmp_path / "net", tune=300.0)
    assert (found(result)["replaced"], found(result)["ratio"]) == (0, [1.0, 1.0, 1.0])
    with octavo.load(untuned) as bundle:
        assert result.manifest.work == bundle.manifest.work


def test_what_was_found_is_used_again(
    compiled: Compile, tuned: CompileResult, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(*_: object) -> None:
        raise AssertionError("everything is known")

    measured(monkeypatch, kernel=2.0, whole=1.5)
    monkeypatch.setattr(tune._Search, "_measure", search)
    copy = compiled(tmp_path / "copy", tune=1.0, cache=cache)
    assert copy.cached, "a search that is done needs no time"
    other = compiled(tmp_path / "other", tune=300.0, cache=cache, labels=[str(index) for index in range(10)])
    assert not other.cached
    assert found(copy) == found(other) == found(tuned)


def test_a_search_without_time_goes_on_the_next_time(compiled: Compile, untuned: Path, tmp_path: Path) -> None:
    result = compiled(tmp_path / "net", tune=0.001, cache=tmp_path / "cache")
    assert (found(result)["measured"], found(result)["replaced"], found(result)["ratio"]) == (0, 0, None)
    assert outputs(result.path) == outputs(untuned)
    assert not (tmp_path / "cache" / "bundles").exists(), "it would be taken for the result of a search"


def test_a_network_without_alternatives_is_compiled_as_it_is(tmp_path: Path) -> None:
    result = octavo.compile(
        nn.Sequential(nn.ReLU(), nn.Flatten()),
        output=tmp_path / "net",
        example_inputs=(torch.zeros(1, 4, 5),),
        calibration=[(np.ones((1, 4, 5), np.float32),)],
        mcpu="native",
        tune=1.0,
    )
    assert (found(result)["kernels"], found(result)["replaced"]) == (0, 0)


SCRIPT = """
import sys
import numpy as np, octavo, torch
sys.path[:0] = sys.argv[3:]
from api.test_tune import network
data = [(np.ones((1, 8, 16, 16), np.float32),)]
example = (torch.zeros(1, 8, 16, 16),)
output, cache = sys.argv[1:3]
octavo.compile(
    network(), output=output, example_inputs=example, calibration=data, mcpu="native", tune=600.0, cache=cache
)
"""


@pytest.mark.slow
def test_an_interrupted_search_leaves_what_it_found_and_nothing_else(tmp_path: Path) -> None:
    scratch, cache = tmp_path / "scratch", tmp_path / "cache"
    scratch.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "out"), str(cache), str(Path(__file__).parents[1])]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, env=environment) as process:
        while not list(cache.rglob("*.json")):
            assert process.poll() is None, "it ended before it could be interrupted"
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode
    assert sorted(tmp_path.iterdir()) == [cache, scratch]
    assert not list(scratch.iterdir())
    assert not list(cache.rglob(".*"))


# Mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "seconds"), [("30", 30), ("30s", 30), ("2m", 120), ("0.5m", 30), ("1.5", 1.5)])
def test_times(text: str, seconds: float) -> None:
    assert read_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "0", "0s", "-3", "banana", "5h", "nan", "inf", "1e999", "3 s x"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match=r"no time to tune for\n.*expected: .*30s"):
        read_seconds(text)


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf")])
def test_the_interface_asks_for_a_time_before_it_begins(tmp_path: Path, seconds: float) -> None:
    with pytest.raises(UsageError, match="no time to tune for"):
        octavo.compile("gone.onnx", output=tmp_path / "net", tune=seconds)


def test_the_best_level_that_is_here_is_tuned() -> None:
    here = host_levels()
    target = next(target for target in TARGETS.values() if any(level.name in here for level in target.levels))
    assert tunable_level(target) == here[-1]


def test_other_machines_cannot_be_tuned_for(tmp_path: Path) -> None:
    other = next(t for t in TARGETS.values() if not any(level.name in host_levels() for level in t.levels))
    with pytest.raises(
        TargetError, match=f"cannot be measured on this machine(.|\n)*target {other.name}(.|\n)*without"
    ):
        octavo.compile("gone.onnx", output=tmp_path / "net", target=other.name, tune=5.0)
