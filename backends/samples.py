"""Labelled samples for training: read from arrays or functions, mixed, split, and changed at random."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..ir.errors import CalibrationError, OctavoError
from ..ir.interpreter import to_torch
from ..ir.types import Dim, TensorType, format_shape
from ..passes.base import ignore_text
from ..passes.training.loop import Samples
from .arrays import read_all
from .batches import Inputs, convert
from .freeze import Report
from .training_config import Augmentation, DataSection, DataSource

_FUNCTION = "package.module:function that returns (inputs, labels)"

LabelCheck = Callable[[torch.Tensor, str], None]
"""Raises an error that names the given place when labels do not serve."""


def ignore_labels(labels: torch.Tensor, where: str) -> None:
    """Takes any labels."""


def read_samples(
    section: DataSection,
    inputs: Inputs,
    base: Path,
    seed: int,
    *,
    check: LabelCheck = ignore_labels,
    report: Report = ignore_text,
) -> tuple[Samples, Samples]:
    """Samples for training and for validation, for a network with these ``inputs``.

    Paths are relative to ``base``. A fraction for validation is drawn by ``seed``. Files that validation names are no
    part of a training folder.

    Raises:
        CalibrationError: a source cannot be read, or does not fit the network, or validation reads what training
            reads. Mistakes in samples name the file and the first sample.
    """
    reader = _Reader(section.labels, inputs, check)
    apart = _files_of(section.validation, base) if isinstance(section.validation, str) else []
    parts = []
    for source in section.sources:
        files = _leave_out(source.source, _files_of(source.source, base), section.validation, apart, report)
        parts.append(reader.read(source.source, base, files))
    train = _mix(parts, section.sources)
    if isinstance(section.validation, str):
        return train, reader.read(section.validation, base, apart)
    held = int(len(train) * section.validation)
    if not 0 < held < len(train):
        raise CalibrationError(
            f"{len(train)} sample(s) cannot be split: validation = {section.validation:g} holds back {held}",
            expected="some for training, some to hold back",
        )
    order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
    return select(train, order[held:].sort().values), select(train, order[:held].sort().values)


def select(samples: Samples, index: torch.Tensor) -> Samples:
    """Some of the samples, with their weights."""
    inputs, labels = samples.at(index)
    return Samples(inputs, labels, None if samples.weights is None else samples.weights[index])


def whole_batches(samples: Samples, size: int) -> Samples:
    """The samples without those that would make an incomplete last batch."""
    return select(samples, torch.arange(len(samples) // size * size))


def feeds(samples: Samples, names: Sequence[str], count: int, size: int) -> list[dict[str, np.ndarray]]:
    """The first ``count`` samples as batches of ``size`` for passes that calibrate."""
    batches = torch.split(torch.arange(min(count, len(samples))), size)
    whole = [index for index in batches if len(index) == size] or list(batches)
    return [dict(zip(names, (x.numpy() for x in samples.at(index)[0]), strict=True)) for index in whole]


# Sources -----------------------------------------------------------------------------------------------------------


def _files_of(text: str, base: Path) -> list[Path]:
    """The files of a source, in the order of their names; none of a function."""
    path = base / text
    if not path.exists():
        return []
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files or files[0].suffix != ".npz":
        what = "no .npz files are in the folder" if path.is_dir() else f"{path.name} is no .npz file"
        raise CalibrationError(what, where=str(path), expected=f"an .npz file, a folder of them, or {_FUNCTION}")
    return files


def _leave_out(
    text: str, files: Sequence[Path], validation: str | float, apart: Sequence[Path], report: Report
) -> list[Path]:
    """The files of a source of training data without those that validation reads."""
    held = {path.resolve() for path in apart}
    left = [path for path in files if path.resolve() not in held]
    if text == validation or (files and not left):
        hint = "validation = 0.1 holds back a tenth of the samples"
        raise CalibrationError("validation reads all that training reads", where=text, hint=hint)
    if out := [path.name for path in files if path not in left]:
        report(f"{', '.join(out)} in {text}: for validation, so training leaves it out")
    return left


@dataclass(frozen=True)
class _Reader:
    """Reads the samples of a source, whose labels have a name in files and pass a check."""

    labels: str
    inputs: Inputs
    check: LabelCheck

    def read(self, text: str, base: Path, files: Sequence[Path]) -> Samples:
        """The samples of a function, or of the files of a path one after another."""
        if not files:
            found, classes = _call(text, self.inputs)
            return self._samples(found, classes, text)
        parts = []
        for file in files:
            arrays = _named(read_all(file), self.labels, self.inputs, str(file))
            parts.append(self._samples(arrays, arrays.get(self.labels), str(file)))
        return _join(parts, [str(file) for file in files])

    def _samples(self, found: Mapping[str, np.ndarray], labels: np.ndarray | None, where: str) -> Samples:
        arrays = [_fit(name, found[name], type, where) for name, type in self.inputs.items()]
        counts = {name: len(array) for name, array in zip(self.inputs, arrays, strict=True)}
        if labels is not None:
            if not labels.ndim:
                raise CalibrationError("the labels are a single number", where=where, expected="one for each sample")
            counts[self.labels] = len(labels)
        if len(set(counts.values())) != 1 or not min(counts.values()):
            shown = ", ".join(f"{count} of {name}" for name, count in counts.items())
            raise CalibrationError(f"there are {shown}", where=where, expected="the same number of each, at least one")
        return Samples(tuple(map(to_torch, arrays)), None if labels is None else self._labels(labels, where))

    def _labels(self, array: np.ndarray, where: str) -> torch.Tensor:
        """Classes as int64, targets as float32."""
        if array.dtype.kind not in "iuf":
            raise CalibrationError(f"{self.labels} has dtype {array.dtype}", where=where, expected="integers or floats")
        if array.dtype.kind == "f":
            _check_finite(self.labels, array, where)
        labels = to_torch(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))
        self.check(labels, where)
        return labels


def _join(parts: Sequence[Samples], names: Sequence[str]) -> Samples:
    """The samples of all parts, one after another; messages call these by their names."""
    first = parts[0]
    for part, name in zip(parts, names, strict=True):
        if (part.labels is None) != (first.labels is None):
            with_labels, without = (name, names[0]) if first.labels is None else (names[0], name)
            what = f"there are labels in {with_labels} and none in {without}"
            raise CalibrationError(what, expected="labels in all of the data, or in none")
        pairs = list(zip((*part.inputs, part.labels), (*first.inputs, first.labels), strict=True))
        for one, other in ((one, other) for one, other in pairs if one is not None and other is not None):
            if one.shape[1:] != other.shape[1:] or one.dtype != other.dtype:
                shown = [f"{str(x.dtype).removeprefix('torch.')}{list(x.shape[1:])}" for x in (one, other)]
                what = f"samples and labels of {name} are not like those of {names[0]}"
                raise CalibrationError(f"{what}: {shown[0]} and {shown[1]}", expected="one shape and type")
    labels = [part.labels for part in parts if part.labels is not None]
    inputs = tuple(torch.cat(same) for same in zip(*(part.inputs for part in parts), strict=True))
    return Samples(inputs, torch.cat(labels) if labels else None)


def _named(arrays: Mapping[str, np.ndarray], labels: str, inputs: Inputs, where: str) -> dict[str, np.ndarray]:
    """Arrays by the names of the inputs, by position, or the only one beside the labels."""
    own = {labels: arrays[labels]} if labels in arrays else {}
    rest = {name: array for name, array in arrays.items() if name != labels}
    if all(name in rest for name in inputs):
        return own | {name: rest[name] for name in inputs}
    positional = {name: f"arr_{position}" for position, name in enumerate(inputs)}
    if all(key in rest for key in positional.values()):
        return own | {name: rest[key] for name, key in positional.items()}
    if len(rest) == len(inputs) == 1:
        return own | dict(zip(inputs, rest.values(), strict=True))
    missing = ", ".join(name for name in inputs if name not in rest)
    listed = ", ".join(arrays) or "none"
    raise CalibrationError(
        f"no array for {missing}",
        where=where,
        expected=f"{', '.join(inputs)}; the file has {listed}",
        hint=None if labels in arrays else f"data.labels says what the labels are called, and there is no {labels}",
    )


def _call(text: str, inputs: Inputs) -> tuple[Mapping[str, np.ndarray], np.ndarray | None]:
    function = _find_function(text)
    try:
        made = function()
    except OctavoError:
        raise
    except Exception as error:
        raise CalibrationError(f"{text} failed: {type(error).__name__}: {error}", expected=_FUNCTION) from error
    if not isinstance(made, tuple) or len(made) != 2:
        shown = f"a tuple of {len(made)}" if isinstance(made, tuple) else type(made).__name__
        raise CalibrationError(f"{text} returned {shown}", expected="a tuple of two: inputs and labels")
    given, labels = made
    if not isinstance(given, Mapping):
        given = dict(zip(inputs, given if isinstance(given, tuple | list) else (given,), strict=False))
    missing = [name for name in inputs if name not in given]
    if missing:
        raise CalibrationError(f"{text} returned nothing for {', '.join(missing)}", expected=f"{', '.join(inputs)}")
    return {name: _array(given[name], text) for name in inputs}, None if labels is None else _array(labels, text)


def _find_function(text: str) -> Callable[[], Any]:
    module, _, attribute = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except OctavoError:
        raise
    except Exception as error:
        what = f"{module} cannot be imported: {type(error).__name__}: {error}"
        hint = "functions are found from the folder of the configuration"
        raise CalibrationError(what, where=text, hint=hint) from error
    if not callable(found):
        raise CalibrationError(f"{module} has no function {attribute!r}", where=text, expected=_FUNCTION)
    function: Callable[[], Any] = found
    return function


def _array(value: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"a {type(value).__name__} is no array: {error}", where=where) from error


def _fit(name: str, array: np.ndarray, type: TensorType, where: str) -> np.ndarray:
    """The array in the input's element type."""
    rows = type.shape[1:]
    fits = array.ndim == type.rank and all(
        isinstance(want, Dim) or want == have for want, have in zip(rows, array.shape[1:], strict=True)
    )
    if not fits:
        shown = f"samples, then {format_shape(rows)}"
        raise CalibrationError(f"{name} has shape {format_shape(array.shape)}", where=where, expected=shown)
    converted = convert(array, type.dtype)
    if converted is None:
        hint = "scale and normalize the data as the network wants it" if type.dtype.is_float else None
        raise CalibrationError(f"{name} has dtype {array.dtype}", where=where, expected=type.dtype.value, hint=hint)
    if type.dtype.is_float:
        _check_finite(name, converted, where)
    return converted


def _check_finite(name: str, array: np.ndarray, where: str) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        samples = int(bad.reshape(len(array), -1).any(1).sum())
        what = f"{name} holds {array[first]} in sample {first[0]}"
        more = f", and values that are not finite in {samples - 1} more" if samples > 1 else ""
        raise CalibrationError(f"{what}{more}", where=where, expected="finite numbers")


def _mix(parts: Sequence[Samples], sources: Sequence[DataSource]) -> Samples:
    """All samples; where sources have weights, the share of what is drawn from one is its weight and not its size."""
    joined = _join(parts, [source.source for source in sources])
    chances = [
        torch.full((len(part),), source.weight / len(part), dtype=torch.float64)
        for part, source in zip(parts, sources, strict=True)
        if source.weight is not None
    ]
    return Samples(joined.inputs, joined.labels, torch.cat(chances) if chances else None)


# Augmentation ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ImageAugment:
    """Mirrors and moves the images of a batch, ``float[n, c, h, w]``, each by its own chance.

    All inputs that are images are changed alike: they may be views of one scene.
    """

    options: Augmentation

    def __call__(self, inputs: tuple[torch.Tensor, ...], generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        count, crop = len(inputs[0]), self.options.crop
        flipped = (torch.rand(count, generator=generator) < 0.5) & self.options.flip
        offsets = torch.randint(2 * crop + 1, (2, count, 1), generator=generator)
        return tuple(self._change(x, flipped, offsets) if x.ndim == 4 else x for x in inputs)

    def _change(self, x: torch.Tensor, flipped: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
        x = torch.where(flipped[:, None, None, None], x.flip(3), x)
        if not self.options.crop:
            return x
        padded = F.pad(x, [self.options.crop] * 4)
        rows, columns = offsets[0] + torch.arange(x.shape[2]), offsets[1] + torch.arange(x.shape[3])
        samples = torch.arange(len(x))[:, None, None]
        moved = padded[samples, :, rows[:, :, None], columns[:, None, :]]
        return moved.permute(0, 3, 1, 2).contiguous()
