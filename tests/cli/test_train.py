"""``octavo train``: it learns, goes on where it stopped, says every mistake, and trains in several processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import torch
from octavo import trace
from octavo.backends.models import find_model, write_graph
from octavo.backends.open_batch import fixed_batch, open_batch, trace_open
from octavo.backends.samples import ImageAugment, read_samples
from octavo.backends.training_config import Augmentation, DataSection, DataSource, read_config
from octavo.ir import load_graph
from octavo.ir.errors import CalibrationError, UsageError
from octavo.ir.ops.constant import Constant
from octavo.ir.types import Dim, DType, TensorType
from torch import nn

Octavo = Callable[..., Any]

NETS = """
import numpy as np
import torch
from torch import nn


def make(width=16):
    parts = [nn.Conv2d(3, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    parts += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
    parts += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 4)]
    return nn.Sequential(*parts), (torch.zeros(1, 3, 8, 8),)


def large():
    return make(24)


def of_other_images():
    return make()[0], (torch.zeros(1, 3, 9, 9),)


class Stubborn(nn.Module):
    def __init__(self, batch):
        super().__init__()
        self.layer, self.batch = nn.Linear(192, 4), batch

    def forward(self, image):
        mixed = image.reshape(self.batch, 4, 48).permute(1, 0, 2).reshape(self.batch, 192)
        return self.layer(mixed) + image[:1, 0, 0, :4]


def stubborn(batch=1):
    return Stubborn(batch), (torch.zeros(batch, 3, 8, 8),)


def paint(count=240, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, count)
    colors = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]], np.float32)
    noise = random.normal(size=(count, 3, 8, 8)).astype(np.float32)
    return 2 * colors[labels][:, :, None, None] + 0.3 * noise, labels


def fails():
    raise RuntimeError("no paint")
"""

BASE = """
[model]
source = "studio_nets:make"

[data]
train = "train.npz"
validation = "valid.npz"

[training]
epochs = 4
batch-size = 16
lr = 0.02
optimizer = "adam"
"""

TAUGHT = '[teacher]\nsource = "{}"\n[loss]\nlogits = 1.0\n'


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``studio_nets.py``, ``train.npz`` and ``valid.npz``, and a network for pairs of images."""
    folder = tmp_path_factory.mktemp("studio")
    (folder / "studio_nets.py").write_text(NETS)
    scope: dict[str, Any] = {"__name__": "nets"}
    exec(NETS, scope)
    write_graph(trace(*scope["stubborn"](2)), folder / "pair.octavo")
    for name, count, seed in (("train", 240, 0), ("valid", 100, 1)):
        images, labels = scope["paint"](count, seed)
        np.savez(folder / f"{name}.npz", image=images, labels=labels)
    return folder


def write(studio: Path, name: str, text: str = BASE, **replaced: str) -> Path:
    for old, new in replaced.items():
        text = text.replace({"source": '"studio_nets:make"', "epochs": "epochs = 4", "train": '"train.npz"'}[old], new)
    path = studio / f"{name}.toml"
    path.write_text(text)
    return path


def test_a_pruned_network_learns(octavo: Octavo, studio: Path) -> None:
    more = '[passes]\nbefore = "prune-channels{ratio=0.25,multiple=2}"\n[output]\ngraph = "healed.octavo"\n'
    config = write(studio, "pruned", BASE + more)
    plot = studio / "curve.svg"
    result = octavo("train", config, "--plot", plot)
    assert result.code == 0, result.err
    assert "epoch 4 of 4" in result.err
    assert str(studio / "healed.octavo") in result.out
    root = ET.parse(plot).getroot()
    circles = [element for element in root.iter() if element.tag.endswith("circle")]
    assert len(circles) == 8, "two charts of four epochs"
    found = octavo("train", config, "--json").json
    assert found["best"] > max(0.8, found["before"] + 0.2)
    assert found["epochs"] == len(found["history"]) == 4
    assert [entry["epoch"] for entry in found["history"]] == [1, 2, 3, 4], "they count as best_epoch does"
    assert found["history"][found["best_epoch"] - 1]["validation"] == found["best"]
    assert found["measure"] == "accuracy"
    inspected = octavo("opt", studio / "healed.octavo", "-p", "prepare")
    assert inspected.code == 0
    assert "12x3x3x3" in inspected.out, "a quarter of sixteen channels went"
    assert "?batch" in inspected.out


def test_quantization_in_the_loop_ends_in_a_bundle(octavo: Octavo, studio: Path) -> None:
    more = '[passes]\nquantize = true\n[output]\ncompile = "x86-int8"\nmcpu = "native"\n'
    config = write(studio, "quantized", BASE + more, epochs="epochs = 2")
    found = octavo("train", config, "--json").json
    images = np.load(studio / "valid.npz")["image"][:1]
    np.save(studio / "one.npy", images)
    result = octavo("run", found["bundle"], studio / "one.npy", "--json")
    assert result.code == 0, result.err
    assert octavo("inspect", found["bundle"], "--json").code == 0
    assert found["best"] > 0.8


@pytest.mark.parametrize("kept", [False, True])
def test_zeros_are_kept_on_request(octavo: Octavo, studio: Path, kept: bool) -> None:
    more = f'[passes]\nbefore = "sparsify{{ratio=0.5}}"\nkeep-zeros = {str(kept).lower()}\n'
    config = write(studio, f"zeros_{kept}", BASE + more, epochs="epochs = 1")
    assert octavo("train", config).code == 0
    graph = find_model(str(studio / f"zeros_{kept}.run" / "trained.octavo")).trace()
    constants = [node.op.data.numpy() for node in graph.nodes if isinstance(node.op, Constant)]
    assert [np.count_nonzero(w == 0) for w in constants if w.ndim > 1] == ([216, 1152, 32] if kept else [0, 0, 0])


def test_a_float_run_can_end_in_a_bundle(octavo: Octavo, studio: Path) -> None:
    config = write(studio, "float", BASE + '[output]\ncompile = "x86-int8"\nmcpu = "native"\n', epochs="epochs = 1")
    found = octavo("train", config, "--json").json
    assert (Path(found["bundle"]) / "manifest.json").exists()


def test_zeros_come_while_it_trains(octavo: Octavo, studio: Path) -> None:
    text = BASE + "[sparsity]\nratio = 0.5\nend = 2\nevery = 5\n[loss]\ncross-entropy = 1.0\nl1 = { weight = 1e-4 }\n"
    found = octavo("train", write(studio, "sparse", text), "--json").json
    assert found["best_epoch"] > 2, "a network that still has what it is to lose does not compete"
    weights = [x.numpy() for x in load_graph(Path(found["graph"])).constants().values() if len(x.shape) == 4]
    assert len(weights) == 2
    assert all(0.4 < (w == 0).mean() < 0.6 for w in weights)


def test_a_student_of_a_teacher(octavo: Octavo, studio: Path) -> None:
    teacher = octavo("train", write(studio, "teacher", source='"studio_nets:large"'), "--json").json
    text = (
        BASE
        + f"""
[teacher]
source = {json.dumps(Path(teacher["graph"]).relative_to(studio).as_posix())}
[loss]
soft-labels = {{ weight = 1.0, temperature = 2 }}
features = {{ weight = 0.1, pairs = [["2", "2"]] }}
"""
    )
    found = octavo("train", write(studio, "student", text), "--json").json
    assert found["best"] > 0.8
    assert set(found["history"][0]["train"]) == {"loss", "soft-labels", "features"}


def test_every_mistake_is_said_at_once(octavo: Octavo, studio: Path) -> None:
    text = """
[model]
sorce = "studio_nets:make"
[data]
train = "trian.npz"
validation = 1.5
augment = { flop = true, crop = "x" }
[passes]
before = "prune-chanels{ratio=0.5}"
[loss]
cross-entropi = 1.0
soft-labels = { weight = -1, temprature = 3 }
group-lasso = { scales = true }
[training]
batch_size = 3
optimizer = "sdg"
[output]
compile = "x86"
[modell]
"""
    result = octavo("train", write(studio, "wrong", text))
    assert result.code == 2
    expected = [
        "wrong.toml",
        "modell: no such section; did you mean model?",
        "model.sorce: no such key; did you mean source?",
        "model.source: is missing",
        "data.train: there is no file",
        "data.validation: 1.5 is no share",
        "data.augment.flop: no such key; did you mean flip?",
        "data.augment.crop: 'x' does not fit; expected a whole number",
        "passes.before: no pass is named 'prune-chanels'",
        "loss.cross-entropi: no such key; did you mean cross-entropy?",
        "loss.soft-labels: the weight is -1",
        "loss.soft-labels.temprature: no such key; did you mean temperature?",
        "loss.group-lasso.scales: no such key",
        "training.batch_size: no such key; did you mean batch-size?",
        "training.optimizer: 'sdg' does not fit",
        "output.compile: 'x86' does not fit",
    ]
    assert [part for part in expected if part not in result.err] == []


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("a = [", 2, "cannot be read"),
        (BASE.replace("make", "mke"), 3, "no attribute 'mke'"),
        (BASE.replace('"train.npz"', '"studio_nets:fails"'), 6, "no paint"),
        (BASE + "[loss]\nmse = 1.0\n", 6, "targets of the output's shape"),
        (BASE + "[loss]\ncross-entropy = { smoothing = 1.5 }\n", 2, "loss.cross-entropy: smoothing is 1.5"),
        (BASE + "[loss]\ncross-entropy = nan\n", 2, "the weight is nan; expected a finite number above 0"),
        (BASE + "[loss]\ncross-entropy = inf\n", 2, "the weight is inf"),
        (BASE + "[loss]\nsoft-labels = { temperature = 0 }\n", 2, "temperature is 0; expected a number above 0"),
        (BASE + '[teacher]\nsource = "studio_nets:large"\n', 2, "teacher: no loss compares with it"),
        (BASE + '[output]\nbundle = "a.bundle"\n', 2, "no target to compile for"),
        (BASE + '[output]\nfolder = "train.npz"\n', 2, "there is a file where the folder"),
        (BASE.replace('"train.npz"', "[]"), 2, "train names no source"),
        (BASE.replace('"train.npz"', '""'), 2, "data.train: names nothing"),
        (
            BASE.replace('"train.npz"', '[{ source = "train.npz", weight = inf }]'),
            2,
            "the weights of the sources are inf",
        ),
        (BASE.replace('"train.npz"', '"studio_nets:nothing"'), 6, "studio_nets has no function 'nothing'"),
        (BASE.replace('"train.npz"', '"no_nets:make"'), 6, "no_nets cannot be imported"),
        (BASE.replace('"train.npz"', '"studio_nets:make"'), 6, "has shape"),
        (BASE + "[data.augment]\ncrop = 8\n", 2, "expected: crop below 8"),
        (BASE.replace('"train.npz"', '"valid.npz"'), 6, "validation reads all that training reads"),
        (BASE + "[loss]\nlogits = 1.0\n", 2, "there is no section teacher"),
        (BASE.replace('"valid.npz"', '"valid.npz"\nlabels = "classes"'), 6, "data.labels"),
        (BASE + '[passes]\nquantize = "prepare"\n', 2, "nothing in the network is quantized"),
        (BASE.replace("16", "0"), 2, "batch-size is 0"),
        (BASE.replace("make", "stubborn"), 2, "batches of 1 and no others"),
        (BASE + TAUGHT.format("studio_nets:of_other_images"), 2, "samples of the teacher are f32[3x9x9]"),
        (BASE.replace("make", "stubborn") + TAUGHT.format("pair.octavo"), 2, "the teacher takes batches of 2"),
    ],
)
def test_mistakes(octavo: Octavo, studio: Path, text: str, code: int, part: str) -> None:
    result = octavo("train", write(studio, "mistake", text), "--restart")
    assert (result.code, part in result.err) == (code, True), result.err


def test_mistakes_leave_nothing_behind(octavo: Octavo, studio: Path) -> None:
    """Neither a folder, nor a picture; and in JSON a mistake is a document as a result is."""
    config = write(studio, "clean", BASE + '[passes]\nquantize = "prepare"\n')
    result = octavo("train", config, "--json", "--plot", studio / "clean.svg")
    assert (result.code, result.json["error"]["exit_code"]) == (2, 2)
    assert not (studio / "clean.run").exists()
    assert not (studio / "clean.svg").exists()
    result = octavo("train", config, "--plot", studio / "nowhere" / "clean.svg")
    assert (result.code, "no folder for the plot" in result.err) == (2, True)
    result = octavo("train", config, "--plot", studio)
    assert (result.code, "a folder stands where the plot would be" in result.err) == (2, True)
    config = write(studio, "clean", BASE + '[output]\ncompile = "x86-int8"\nbundle = "."\n')
    result = octavo("train", config)
    assert (result.code, "not a bundle" in result.err) == (8, True)
    assert not (studio / "clean.run").exists(), "it is found before training"


def test_what_is_said_off_a_terminal_is_lines(octavo: Octavo, studio: Path) -> None:
    """One for each epoch on stderr, and nothing that moves a cursor; stdout has the result alone."""
    result = octavo("train", write(studio, "said", epochs="epochs = 2"), "--json")
    assert result.json["epochs"] == 2
    lines = result.err.splitlines()
    assert lines[0] == "240 samples for training, 100 for validation"
    assert lines[1].startswith("before training: validation ")
    assert lines[1].endswith("(accuracy)")
    assert [line.partition(":")[0] for line in lines[2:]] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert {character for character in result.err if not character.isprintable()} == {"\n"}
    again = octavo("train", studio / "said.toml")
    assert "nothing is left to train after epoch 2 of 2" in again.err


def test_a_folder_of_another_run_is_not_gone_on_with(octavo: Octavo, studio: Path) -> None:
    assert octavo("train", write(studio, "other", epochs="epochs = 1")).code == 0
    config = write(studio, "other", epochs="epochs = 2")
    result = octavo("train", config)
    assert result.code == 2
    assert "another training" in result.err
    assert octavo("train", config, "--restart").code == 0


def run_alone(config: Path, *launcher: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, "octavo.cli", "train", str(config)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_an_interrupted_run_ends_with_the_same_bits(studio: Path) -> None:
    augmented = BASE + "[data.augment]\nflip = true\ncrop = 1\n"
    whole, parts = (write(studio, name, augmented, epochs="epochs = 40") for name in ("whole", "parts"))
    process = run_alone(whole)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    log = studio / "parts.run" / "log.jsonl"
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        known = len(log.read_text().splitlines()) if log.exists() else 0
        process = run_alone(parts)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not (log.exists() and len(log.read_text().splitlines()) > known + 1):
            time.sleep(0.02)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert "Traceback" not in errors
        assert code < 0 or "the same command goes on" in errors
        assert len(log.read_text().splitlines()) < 40
    process = run_alone(parts)
    _, errors = process.communicate(timeout=120)
    assert "goes on after epoch" in errors
    for name in ("trained.octavo", "trained.safetensors"):
        assert (studio / "whole.run" / name).read_bytes() == (studio / "parts.run" / name).read_bytes()


@pytest.mark.slow
def test_two_processes(studio: Path) -> None:
    config = write(studio, "together", BASE + '[teacher]\nsource = "studio_nets:large"\n' + PROJECTED)
    process = run_alone(config, "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert out.count("validation") == 1, "the first process alone prints"
    assert errors.count("epoch 4 of 4") == 1
    last = json.loads((studio / "together.run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["validation"] > 0.7


PROJECTED = '[loss]\ncross-entropy = 1.0\nfeatures = { weight = 0.1, pairs = [["2", "2"]] }\n'


# Models ------------------------------------------------------------------------------------------------------------


def test_batches_get_a_name_in_every_kind_of_model(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The .pt2 file was exported with a batch of one, the factory's example has one; the ONNX file names it."""
    monkeypatch.chdir(work)
    for text in ("tiny.onnx", "tiny.pt2", "tiny_factory:make"):
        graph = trace_open(find_model(text), None)
        assert fixed_batch(graph) is None, text
        assert isinstance(graph.outputs[0].type.shape[0], Dim)


def test_a_flatten_to_a_batch_of_one_is_opened() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(module, (torch.zeros(1, 3, 8, 8),))
    import octavo

    graph = octavo.trace(program)
    assert fixed_batch(graph) == 1
    opened = open_batch(graph)
    assert opened is not None
    x = torch.randn(5, 3, 8, 8)
    assert torch.allclose(octavo.to_torch(opened)(x), module(x), atol=1e-5)


def test_a_network_that_mixes_its_samples_stays_as_it_is() -> None:
    """Also one of which copies of a sample would not tell: their mean is the sample."""

    class Mixing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x.mean(0, keepdim=True)

    class Own(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + x.mean(1, keepdim=True)

    import octavo

    assert open_batch(octavo.trace(Mixing(), (torch.randn(1, 4),))) is None
    assert open_batch(octavo.trace(Own(), (torch.randn(1, 4),))) is not None


# Data --------------------------------------------------------------------------------------------------------------

INPUTS = {"image": TensorType(DType.F32, (Dim("batch"), 3, 8, 8))}


def test_sources_are_mixed_by_weight(studio: Path) -> None:
    section = DataSection((DataSource("train.npz", 1.0), DataSource("valid.npz", 3.0)), validation=0.25)
    train, validation = read_samples(section, INPUTS, studio, 0)
    assert (len(train), len(validation)) == (255, 85)
    assert train.weights is not None
    first = train.inputs[0].mean((1, 2, 3))
    known = torch.from_numpy(np.load(studio / "train.npz")["image"]).mean((1, 2, 3))
    own = torch.isin(first, known)
    ratio = train.weights[own].mean() / train.weights[~own].mean()
    assert float(ratio) == pytest.approx((1 / 240) / (3 / 100))


def test_some_weights_are_not_enough() -> None:
    with pytest.raises(UsageError, match="a weight for each"):
        DataSection((DataSource("a", 1.0), DataSource("b")))


def test_data_that_does_not_fit(studio: Path) -> None:
    with pytest.raises(CalibrationError, match="has shape"):
        read_samples(DataSection("train.npz"), {"image": TensorType(DType.F32, (Dim("n"), 3, 9, 8))}, studio, 0)
    with pytest.raises(CalibrationError, match="no array for left, right"):
        read_samples(DataSection("train.npz"), dict.fromkeys(("left", "right"), INPUTS["image"]), studio, 0)


def test_augmentation_is_the_generators() -> None:
    x = torch.arange(4 * 3 * 8 * 8.0).reshape(4, 3, 8, 8)
    augment = ImageAugment(Augmentation(flip=True, crop=2))
    (first,), (again,), (other,) = (augment((x,), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert set(first.flatten().tolist()) <= set(x.flatten().tolist())
    (same,) = ImageAugment(Augmentation())((x,), torch.Generator())
    assert torch.equal(same, x)
    (flipped,) = ImageAugment(Augmentation(flip=True))((x,), torch.Generator().manual_seed(0))
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(flipped, x, strict=True))


def test_defaults(studio: Path) -> None:
    config = read_config(write(studio, "defaults"))
    assert config.folder == studio / "defaults.run"
    assert config.graph == config.folder / "trained.octavo"
    assert list(config.loss) == ["cross-entropy"]
