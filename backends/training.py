"""A training run from its configuration: graph, data, passes, loss, the loop, and what is written at the end."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed

from ..ir.errors import CalibrationError, ModelError, UsageError
from ..ir.graph import Graph
from ..ir.ops.quantize import FakeQuantize
from ..ir.types import TensorType, format_shape
from ..passes.base import PassContext, ignore_progress, ignore_text
from ..passes.pipeline import Pipeline
from ..passes.training.loop import Samples, Trainer, evaluate
from ..passes.training.losses import Loss, class_axis, make_term, shapes_fit
from ..passes.training.module import TrainableGraph, to_torch
from .api import compile as compile_model
from .bundle.writer import check_destination
from .curve import draw_curves
from .fingerprint import describe_run, find_differences
from .freeze import Progress, Report
from .models import find_model, write_graph
from .open_batch import fixed_batch, trace_open
from .samples import ImageAugment, feeds, read_samples, whole_batches
from .training_config import ModelSection, TrainingConfig

_CALIBRATION_BATCH = 32

Measure = Literal["accuracy", "negative mean squared error"]


@dataclass(frozen=True)
class TrainingResult:
    """What a run made: the files, the validation result before it and at its best, and the log.

    ``measure`` says what the results are; the larger, the better.
    """

    graph: Path
    bundle: Path | None
    measure: Measure
    before: float
    best: float
    best_epoch: int
    history: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


@dataclass(frozen=True)
class _Parts:
    """What a configuration names, read but not yet changed."""

    graph: Graph
    teacher: Graph | None
    train: Samples
    validation: Samples


@dataclass
class TrainingRun:
    """Everything between a configuration and a trained graph.

    Under torchrun every process makes one; they train together, and the first writes the files.
    """

    config: TrainingConfig
    report: Report = ignore_text
    progress: Progress = ignore_progress

    def run(self, *, restart: bool = False) -> TrainingResult:
        """Train, or go on with an interrupted run; then write the graph, and the bundle if one is wanted.

        Args:
            restart: forget what the folder holds of an earlier run.

        Raises:
            ModelError: the network or its teacher cannot be read.
            CalibrationError: the data cannot be read, or does not fit.
            UsageError: the folder holds a run of another configuration, of other code or other data, or parts of this
                one do not fit together.
            BundleError: something that is not a bundle stands where the bundle would be.
        """
        config = self.config
        if config.output.compile is not None:
            check_destination(config.bundle, overwrite=True)
        with _importable(config.path.parent.resolve()), _together() as is_first:
            parts = self._read()
            samples = (parts.train, parts.validation)
            described = describe_run(config, parts.graph, parts.teacher, samples, _world())
            _check_folder(config.folder, described, restart=restart)
            trainer, calibration = self._trainer(parts)
            _wait()
            if is_first:
                _prepare_folder(config.folder, described, restart=restart)
            _wait()
            batch = config.training.batch_size
            before = evaluate(trainer.module, trainer.validation, max(1, batch // _world()))
            measure = _measure(parts.validation)
            self.report(f"before training: validation {before:.4f} ({measure})")
            graph = trainer.run()
            done = torch.load(config.folder / "checkpoint.pt", weights_only=True)["progress"]
            bundle = self._write(graph, calibration) if is_first else None
        best, epoch, history = done["best"], done["best_epoch"], done["history"]
        return TrainingResult(config.graph, bundle, measure, before, best, epoch, history)

    def _read(self) -> _Parts:
        """The network, its teacher and the samples, as the configuration names them."""
        config = self.config
        # Factories that draw weights at random draw the same ones in every process, and after an interruption.
        torch.manual_seed(config.training.seed)
        self.progress("network", 0, None)
        graph = self._trace(config.model)
        teacher = self._trace(config.teacher) if config.teacher else None
        if teacher is not None:
            _check_teacher(graph, teacher)
        inputs = {value.name: value.type for value in graph.inputs}
        check = functools.partial(_check_labels, config, graph.outputs[0].type)
        seed, base = config.training.seed, config.path.parent
        self.progress("data", 0, None)
        train, validation = read_samples(config.data, inputs, base, seed, check=check, report=self.report)
        _check_loss(config, train, validation)
        _check_augment(config, train)
        self.report(f"{len(train)} samples for training, {len(validation)} for validation")
        return _Parts(graph, teacher, train, validation)

    def _trainer(self, parts: _Parts) -> tuple[Trainer, list[dict[str, Any]]]:
        """The loop, ready to run, and batches for passes that calibrate."""
        config, graph, teacher = self.config, parts.graph, parts.teacher
        train, validation = parts.train, parts.validation
        size = fixed_batch(graph) or (fixed_batch(teacher) if teacher else None)
        if size is not None:
            train, validation = self._fit_batches(train, validation, size)
        names = [value.name for value in graph.inputs]
        calibration = feeds(train, names, config.passes.calibration, size or _CALIBRATION_BATCH)
        student = self._student(graph, calibration)
        augment = config.data.augment
        trainer = Trainer(
            student,
            self._loss(graph=student.to_graph(), teacher=teacher),
            train,
            validation,
            config.training,
            config.folder,
            teacher=None if teacher is None else to_torch(teacher).requires_grad_(False),
            augment=ImageAugment(augment) if augment.flip or augment.crop else None,
            report=self.report,
            progress=self.progress,
            sparsity=config.sparsity,
        )
        return trainer, calibration

    def _trace(self, section: ModelSection) -> Graph:
        path = self.config.path.parent / section.source
        graph = trace_open(find_model(str(path) if path.exists() else section.source), section.plan)
        if not graph.inputs:
            raise ModelError("a network without inputs does not train", where=section.source)
        return graph

    def _fit_batches(self, train: Samples, validation: Samples, size: int) -> tuple[Samples, Samples]:
        """Samples for a network that is tied to one batch."""
        batch = self.config.training.batch_size
        if batch != size * _world():
            raise UsageError(
                f"the network takes batches of {size} and no others, and training.batch-size is {batch}",
                where=str(self.config.path),
                expected=f"batch-size = {size * _world()}",
                hint="a network that is exported with a dynamic batch trains with any size",
            )
        fitted = whole_batches(train, batch), whole_batches(validation, size)
        if not all(map(len, fitted)):
            raise CalibrationError(f"there are fewer samples than the network's batch of {size}")
        left = len(train) + len(validation) - sum(map(len, fitted))
        self.report(f"the network is tied to batches of {size}" + (f": {left} sample(s) are left out" if left else ""))
        return fitted

    def _student(self, graph: Graph, calibration: list[dict[str, Any]]) -> TrainableGraph:
        passes = self.config.passes
        context = PassContext(calibration=calibration, report=self.report, progress=self.progress)
        for text in filter(None, (passes.before, passes.quantization)):
            Pipeline.parse(text).run(graph, context)
        if passes.quantization and not _is_quantized(graph):
            raise UsageError(
                "nothing in the network is quantized after passes.quantize",
                where=str(self.config.path),
                hint="octavo inspect MODEL says why; the pipeline must end with quantize",
            )
        zeros = passes.keep_zeros or self.config.sparsity is not None
        return to_torch(graph, learn_scales=bool(passes.quantization), keep_zeros=zeros)

    def _loss(self, graph: Graph, teacher: Graph | None) -> Loss:
        terms = {name: make_term(name, t.options, graph, teacher) for name, t in self.config.loss.items()}
        return Loss(terms, {name: term.weight for name, term in self.config.loss.items()})

    def _write(self, graph: Graph, calibration: list[dict[str, Any]]) -> Path | None:
        output = self.config.output
        self.config.graph.parent.mkdir(parents=True, exist_ok=True)
        write_graph(graph, self.config.graph)
        if output.compile is None:
            return None
        self.report(f"compiles {self.config.bundle}")
        result = compile_model(
            graph,
            output=self.config.bundle,
            target=output.compile,
            mcpu=output.mcpu,
            calibration=None if _is_quantized(graph) else calibration,
            overwrite=True,
            compress=output.compress,
            report=self.report,
            progress=self.progress,
        )
        return result.path


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The entries of a run's log, one for each epoch; none before the first."""
    try:
        return [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError:
        return []


def write_curves(folder: Path, path: Path) -> None:
    """Draw a run's log as an SVG file.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.write_text(draw_curves(read_log(folder)), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the plot cannot be written: {error.strerror}", where=str(path)) from error


# Processes ---------------------------------------------------------------------------------------------------------


def is_first_process() -> bool:
    """Whether this process is the one that prints and writes; torchrun numbers them."""
    return os.environ.get("RANK", "0") == "0"


def _world() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextlib.contextmanager
def _together() -> Generator[bool]:
    """Within, the processes that torchrun started know each other; yields whether this is the first."""
    if _world() == 1:
        yield True
        return
    torch.distributed.init_process_group("gloo")
    try:
        yield is_first_process()
    finally:
        torch.distributed.destroy_process_group()


def _wait() -> None:
    if _world() > 1:
        torch.distributed.barrier()


@contextlib.contextmanager
def _importable(folder: Path) -> Generator[None]:
    """Factories and loaders are found from the configuration's folder."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


# Folders -----------------------------------------------------------------------------------------------------------


def _check_folder(folder: Path, described: dict[str, Any], *, restart: bool) -> None:
    """A checkpoint of another run must not be gone on with."""
    if folder.exists() and not folder.is_dir():
        raise UsageError("there is a file where the folder of the run would be", where=str(folder))
    if restart or not (folder / "checkpoint.pt").exists():
        return
    try:
        before = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    if different := find_differences(before, described):
        raise UsageError(
            f"the folder holds a run with another {', '.join(different)}",
            where=str(folder),
            hint="--restart to begin anew, or another output.folder",
        )


def _prepare_folder(folder: Path, described: dict[str, Any], *, restart: bool) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if restart:
            for name in ("checkpoint.pt", "best.pt", "log.jsonl"):
                (folder / name).unlink(missing_ok=True)
        (folder / "run.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"the folder cannot be written: {error.strerror}", where=str(folder)) from error


# Checks ------------------------------------------------------------------------------------------------------------


def _measure(validation: Samples) -> Measure:
    targets = validation.labels is not None and validation.labels.is_floating_point()
    return "negative mean squared error" if targets else "accuracy"


def _is_quantized(graph: Graph) -> bool:
    return any(isinstance(node.op, FakeQuantize) for node in graph.nodes)


def _check_teacher(graph: Graph, teacher: Graph) -> None:
    """The teacher sees the same batch as the network."""
    own, theirs = ([(v.type.dtype, v.type.shape[1:]) for v in g.inputs] for g in (graph, teacher))
    if own != theirs:
        shown = [", ".join(f"{dtype.value}{format_shape(shape)}" for dtype, shape in types) for types in (theirs, own)]
        raise UsageError(f"samples of the teacher are {shown[0]}", expected=f"{shown[1]}, as for the network")
    batches = [fixed_batch(g) for g in (graph, teacher)]
    if None not in batches and batches[0] != batches[1]:
        what = f"the teacher takes batches of {batches[1]} and no others"
        raise UsageError(what, expected=f"{batches[0]}, as for the network")


def _check_labels(config: TrainingConfig, output: TensorType, labels: torch.Tensor, where: str) -> None:
    """Labels fit the first output: classes that it has, or targets of its shape."""
    shape = (len(labels), *output.shape[1:])
    if labels.is_floating_point():
        if "cross-entropy" in config.loss:
            raise _wrong_kind(labels, "cross-entropy", where)
        if not shapes_fit(shape, labels.shape):
            what = f"targets of shape {format_shape(tuple(labels.shape))}"
            raise CalibrationError(what, where=where, expected=f"such that they fit the output, {output}")
        return
    try:
        axis = class_axis(shape, labels.shape)
    except UsageError as error:
        if "mse" in config.loss:
            raise _wrong_kind(labels, "mse", where) from error
        raise CalibrationError(error.what, where=where, expected=error.expected, hint=error.hint) from error
    classes = shape[axis]
    if not isinstance(classes, int):
        return
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        first = bad.nonzero()[0]
        what = f"label {int(labels[tuple(first)])} of sample {int(first[0])} is no class of the network"
        raise CalibrationError(what, where=where, expected=f"0 to {classes - 1}, as the output {output} says")


def _check_loss(config: TrainingConfig, train: Samples, validation: Samples) -> None:
    """There are labels where they are needed, and they are of the kind that losses compare with."""
    array = f"an array {config.data.labels!r} beside the inputs; data.labels gives another name"
    for name, wants_float in _LABEL_LOSSES.items():
        if name in config.loss and train.labels is None:
            what = f"the training data has no labels, and loss {name} compares with them"
            raise CalibrationError(what, where=", ".join(s.source for s in config.data.sources), expected=array)
        if name in config.loss and train.labels is not None and train.labels.is_floating_point() is not wants_float:
            raise _wrong_kind(train.labels, name, str(config.path))
    if validation.labels is None:
        where = config.data.validation if isinstance(config.data.validation, str) else None
        raise CalibrationError("the validation data has no labels to judge by", where=where, expected=array)


_LABEL_LOSSES = {"cross-entropy": False, "mse": True}
"""Losses that compare with labels, and whether those are floats."""


def _wrong_kind(labels: torch.Tensor, loss: str, where: str) -> CalibrationError:
    found = str(labels.dtype).removeprefix("torch.")
    wanted = "floats, targets of the output's shape" if _LABEL_LOSSES[loss] else "integers, one class each"
    return CalibrationError(f"labels are {found}, and loss {loss} compares with them", where=where, expected=wanted)


def _check_augment(config: TrainingConfig, train: Samples) -> None:
    """What changes images changes some, leaves something of them, and nothing that labels speak of."""
    augment, images = config.data.augment, [x for x in train.inputs if x.ndim == 4]
    if not (augment.flip or augment.crop):
        return
    if not images:
        raise UsageError("data.augment changes images, and the network reads none", where=str(config.path))
    if train.labels is not None and train.labels.ndim > (2 if train.labels.is_floating_point() else 1):
        raise UsageError(
            f"data.augment moves images, and labels of shape {format_shape(tuple(train.labels.shape[1:]))} have places",
            where=str(config.path),
            expected="one class or one list of numbers for each image",
            hint="leave augment out, and let a function return images and labels that are changed alike",
        )
    side = min(min(x.shape[2:]) for x in images)
    if augment.crop >= side:
        what = f"data.augment moves images by up to {augment.crop} pixels, and they have {side}"
        raise UsageError(what, where=str(config.path), expected=f"crop below {side}")
