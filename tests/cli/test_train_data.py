"""What ``octavo train`` reads: mistakes in it are found and placed, and a checkpoint is only for the same."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from octavo import trace as octavo_trace
from octavo.backends.fingerprint import describe_run, find_differences
from octavo.backends.samples import read_samples
from octavo.backends.training_config import DataSection, DataSource, read_config
from octavo.ir import Graph
from octavo.ir.errors import CalibrationError
from octavo.ir.types import Dim, DType, TensorType

Octavo = Callable[..., Any]

INPUTS = {"x": TensorType(DType.F32, (Dim("batch"), 3))}

NETS = """
import torch
from atelier.brushes import act


class Net(torch.nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale, self.layer = scale, torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.layer(act(x)) * self.scale


def make():
    return Net(1.0), (torch.zeros(1, 3),)


def make_teacher():
    return Net(torch.load("scale.pt")), (torch.zeros(1, 3),)
"""

DATA = """
import numpy as np


def read():
    x = np.load("x.npy")
    return x, (x[:, 0] > 0).astype(np.int64)
"""

PASS = """
from dataclasses import dataclass
from octavo.passes import Exactness, Pass, register_pass


@register_pass
@dataclass(frozen=True)
class AtelierPass(Pass):
    '''Do nothing.'''

    name = "atelier-pass"
    exactness = Exactness.EXACT

    def apply(self, graph, context):
        return False
"""

CONFIG = """
[model]
source = "atelier_nets:make"
[teacher]
source = "atelier_nets:make_teacher"
[data]
train = ["a/part.npz", "b/part.npz", "atelier_data:read"]
validation = 0.25
[passes]
before = "atelier-pass"
[loss]
cross-entropy = 1.0
logits = 1.0
[training]
epochs = 1
batch-size = 8
"""


def save(
    path: Path, *, seed: int = 0, count: int = 10, x: np.ndarray | None = None, labels: np.ndarray | None = None
) -> None:
    """Points and the half in which each lies, or others."""
    points = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    halves = (points[:, 0] > 0).astype(np.int64)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=points if x is None else x, labels=halves if labels is None else labels)


def trace(module: torch.nn.Module) -> Graph:
    return octavo_trace(module.eval(), (torch.zeros(1, 3),))


def write_atelier(folder: Path) -> None:
    (folder / "atelier").mkdir(exist_ok=True)
    (folder / "atelier" / "brushes.py").write_text("from .paint import act\n")
    (folder / "atelier" / "paint.py").write_text("import torch\nact = torch.relu\n")
    (folder / "atelier_nets.py").write_text(NETS)
    (folder / "atelier_data.py").write_text(DATA)
    (folder / "atelier_pass.py").write_text(PASS)
    np.save(folder / "x.npy", np.random.default_rng(3).normal(size=(12, 3)).astype(np.float32))
    torch.save(1.0, folder / "scale.pt")
    save(folder / "a" / "part.npz", seed=1)
    save(folder / "b" / "part.npz", seed=2)
    (folder / "train.toml").write_text(CONFIG)


def swap(folder: Path) -> None:
    """Files that have one name and lie in two folders change places."""
    save(folder / "a" / "part.npz", seed=2)
    save(folder / "b" / "part.npz", seed=1)


CHANGES: Mapping[str, tuple[str, Callable[[Path], Any]]] = {
    "a factory": ("code of atelier_nets", lambda f: (f / "atelier_nets.py").write_text(NETS + "\n\nMORE = 1\n")),
    "what a factory imports": (
        "code of atelier_nets",
        lambda f: (f / "atelier" / "paint.py").write_text("import torch\nact = torch.tanh\n"),
    ),
    "a loader": ("code of atelier_data", lambda f: (f / "atelier_data.py").write_text(DATA + "\n\nMORE = 1\n")),
    "what a loader reads": ("samples", lambda f: np.save(f / "x.npy", np.ones((12, 3), np.float32))),
    "what a factory reads": ("network of the teacher", lambda f: torch.save(2.0, f / "scale.pt")),
    "files that swap places": ("samples", swap),
    "a pass": ("code of octavo_loaded", lambda f: (f / "atelier_pass.py").write_text(PASS + "\n# other\n")),
}


def test_a_checkpoint_is_for_the_same_code_and_data(
    octavo: Octavo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def train(*options: str) -> Any:
        for name in [name for name in sys.modules if name.partition(".")[0].startswith("atelier")]:
            del sys.modules[name]
        return octavo("train", "train.toml", "--load", "atelier_pass.py", *options)

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    write_atelier(tmp_path)
    assert train().code == 0
    for what, (named, change) in CHANGES.items():
        change(tmp_path)
        result = train()
        assert (result.code, named in result.err, "--restart" in result.err) == (2, True, True), (what, result.err)
        write_atelier(tmp_path)
        assert train().code == 0, what
    assert train("--restart").code == 0


def test_a_checkpoint_is_for_the_same_processes_and_weights(tmp_path: Path) -> None:
    """A network from a file counts with its weights, wherever they are stored."""
    save(tmp_path / "train.npz")
    (tmp_path / "net.octavo").write_text("")
    (tmp_path / "train.toml").write_text('[model]\nsource = "net.octavo"\n[data]\ntrain = "train.npz"\n')
    config = read_config(tmp_path / "train.toml")
    samples = read_samples(config.data, INPUTS, tmp_path, 0)
    one, other = (trace(torch.nn.Linear(3, 40)) for _ in range(2))
    before = describe_run(config, one, one, samples, 1)
    assert find_differences(before, describe_run(config, one, one, samples, 1)) == []
    assert find_differences(before, describe_run(config, one, one, samples, 2)) == ["number of processes"]
    assert find_differences(before, describe_run(config, other, one, samples, 1)) == ["network"]
    assert find_differences(before, describe_run(config, one, other, samples, 1)) == ["network of the teacher"]
    assert find_differences(before, describe_run(config, one, one, samples[::-1], 1)) == ["samples"]
    assert "number of processes" in find_differences({}, before), "a folder that says nothing is of another run"


def test_a_link_imports_what_is_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "linked_nets.py").write_text("import linked_paint\n")
    (tmp_path / "linked_nets.py").symlink_to(tmp_path / "shared" / "linked_nets.py")
    (tmp_path / "linked_paint.py").write_text("COLOR = 1\n")
    save(tmp_path / "train.npz")
    (tmp_path / "train.toml").write_text('[model]\nsource = "linked_nets:make"\n[data]\ntrain = "train.npz"\n')
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("linked_nets")
    config = read_config(tmp_path / "train.toml")
    samples, graph = read_samples(config.data, INPUTS, tmp_path, 0), trace(torch.nn.Linear(3, 2))
    before = describe_run(config, graph, None, samples, 1)
    (tmp_path / "linked_paint.py").write_text("COLOR = 2\n")
    assert find_differences(before, describe_run(config, graph, None, samples, 1)) == ["code of linked_nets"]


# Samples -----------------------------------------------------------------------------------------------------------


def nan_at(*place: int, shape: tuple[int, ...] = (10, 3)) -> np.ndarray:
    array = np.zeros(shape, np.float32)
    array[place] = np.nan
    return array


@pytest.mark.parametrize(
    ("replaced", "part"),
    [
        ({"x": nan_at(4, 1)}, "x holds nan in sample 4"),
        ({"labels": nan_at(7, shape=(10,))}, "labels holds nan in sample 7"),
        ({"labels": np.zeros(9, np.int64)}, "there are 10 of x, 9 of labels"),
        ({"labels": np.array(3)}, "the labels are a single number"),
        ({"labels": np.array(["a"] * 10)}, "labels has dtype <U1"),
        ({"x": np.zeros((10, 4), np.float32)}, "x has shape"),
    ],
)
def test_mistakes_in_samples_name_the_file(tmp_path: Path, replaced: dict[str, np.ndarray], part: str) -> None:
    save(tmp_path / "data" / "a.npz")
    save(tmp_path / "data" / "b.npz", x=replaced.get("x"), labels=replaced.get("labels"))
    with pytest.raises(CalibrationError, match=part) as caught:
        read_samples(DataSection("data"), INPUTS, tmp_path, 0)
    assert caught.value.where == str(tmp_path / "data" / "b.npz")


def test_parts_that_are_not_alike(tmp_path: Path) -> None:
    save(tmp_path / "a.npz")
    save(tmp_path / "b.npz", labels=np.zeros(10, np.float32))
    np.savez(tmp_path / "c.npz", x=np.zeros((10, 3), np.float32))
    for other, part in (("b.npz", "not like those of a.npz: float32"), ("c.npz", "labels in a.npz and none in c.npz")):
        section = DataSection((DataSource("a.npz"), DataSource(other)))
        with pytest.raises(CalibrationError, match=part):
            read_samples(section, INPUTS, tmp_path, 0)


def test_a_folder_lends_its_validation_file(tmp_path: Path) -> None:
    save(tmp_path / "data" / "a.npz", seed=1, count=10)
    save(tmp_path / "data" / "valid.npz", seed=2, count=5)
    lines: list[str] = []
    section = DataSection("data", validation="data/valid.npz")
    train, validation = read_samples(section, INPUTS, tmp_path, 0, report=lines.append)
    assert (len(train), len(validation)) == (10, 5)
    assert lines == ["valid.npz in data: for validation, so training leaves it out"]
    with pytest.raises(CalibrationError, match="validation reads all that training reads"):
        read_samples(DataSection("data/a.npz", validation="data"), INPUTS, tmp_path, 0)


MAPS = """
import torch
from torch import nn


def make():
    return nn.Conv2d(3, 4, 1), (torch.zeros(1, 3, 8, 8),)


def flat():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4)), (torch.zeros(1, 3, 8, 8),)
"""

BRIEF = '[model]\nsource = "train_maps:{}"\n[data]\ntrain = "train.npz"\n[training]\nepochs = 1\nbatch-size = 4\n'


@pytest.mark.parametrize(
    ("net", "labels", "more", "code", "part"),
    [
        ("make", np.zeros((20, 8, 8), np.int64), "", 0, "epoch 1 of 1"),
        (
            "make",
            np.zeros((20, 8, 8), np.int64),
            "[data.augment]\nflip = true\n",
            2,
            "labels of shape [8x8] have places",
        ),
        ("make", np.zeros((20, 8, 7), np.int64), "", 6, "do not fit"),
        ("make", np.zeros((20, 4, 8, 1), np.float32), "[loss]\nmse = 1.0\n", 6, "targets of shape [20x4x8x1]"),
        ("flat", np.zeros(20, np.float32), "", 6, "labels are float32, and loss cross-entropy"),
        ("flat", np.zeros((20, 1), np.float32), "[loss]\nmse = 1.0\n", 6, "targets of shape [20x1]"),
        ("flat", np.arange(20) % 5, "", 6, "label 4 of sample 4 is no class"),
        ("flat", -(np.arange(20) // 7), "", 6, "label -1 of sample 7 is no class"),
        ("flat", np.zeros((20, 4), np.int64), "[loss]\nmse = 1.0\n", 6, "labels are int64, and loss mse"),
    ],
)
def test_labels_and_the_output(
    octavo: Octavo, tmp_path: Path, net: str, labels: np.ndarray, more: str, code: int, part: str
) -> None:
    sys.modules.pop("train_maps", None)
    (tmp_path / "train_maps.py").write_text(MAPS)
    images = np.random.default_rng(0).normal(size=(20, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "train.npz", image=images, labels=labels)
    (tmp_path / "train.toml").write_text(BRIEF.format(net) + more)
    result = octavo("train", tmp_path / "train.toml")
    assert (result.code, part in result.err) == (code, True), result.err
