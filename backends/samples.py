"""Labelled samples for training: read from arrays or functions, mixed, split, and changed at random."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..ir.errors import CalibrationError, OctavoError
from ..ir.interpreter import to_torch
from ..ir.types import Dim, TensorType, format_shape
from ..passes.training.loop import Samples
from .arrays import read_all
from .batches import Inputs, convert
from .training_config import Augmentation, DataSection

_FUNCTION = "package.module:function that returns (inputs, labels)"


def read_samples(section: DataSection, inputs: Inputs, base: Path, seed: int) -> tuple[Samples, Samples]:
    """Samples for training and for validation, for a network with these ``inputs``.

    Paths are relative to ``base``. A fraction for validation is drawn by ``seed``.

    Raises:
        CalibrationError: a source cannot be read, or does not fit the network.
    """
    parts = [_read(source.source, section.labels, inputs, base) for source in section.sources]
    train = _mix(parts, [source.weight for source in section.sources])
    if isinstance(section.validation, str):
        return train, _read(section.validation, section.labels, inputs, base)
    held = int(len(train) * section.validation)
    if not 0 < held < len(train):
        raise CalibrationError(
            f"{len(train)} sample(s) cannot be split", expected="some for training, some to hold back"
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


def _read(text: str, labels: str, inputs: Inputs, base: Path) -> Samples:
    if (base / text).exists():
        found, classes = _read_files(base / text, labels, inputs)
    else:
        found, classes = _call(text, inputs)
    arrays = [_fit(name, found[name], type, text) for name, type in inputs.items()]
    counts = {len(a) for a in arrays} | ({len(classes)} if classes is not None else set())
    if len(counts) != 1 or not min(counts):
        shown = ", ".join(str(len(a)) for a in [*arrays, *([] if classes is None else [classes])])
        raise CalibrationError(
            f"inputs and labels have {shown} samples", where=text, expected="the same number of each"
        )
    return Samples(tuple(map(to_torch, arrays)), None if classes is None else _labels(classes, text))


def _read_files(path: Path, labels: str, inputs: Inputs) -> tuple[Mapping[str, np.ndarray], np.ndarray | None]:
    """The arrays of an .npz file, or of all of them in a folder one after another."""
    files = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not files or files[0].suffix != ".npz":
        raise CalibrationError(
            "no samples", where=str(path), expected=f"an .npz file, a folder of them, or {_FUNCTION}"
        )
    parts = [_named(read_all(file), labels, inputs, str(file)) for file in files]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in inputs}
    if all(labels not in part for part in parts):
        return joined, None
    missing = next((file for file, part in zip(files, parts, strict=True) if labels not in part), None)
    if missing is not None:
        raise CalibrationError(f"no array {labels}", where=str(missing), expected="labels in all files, or in none")
    return joined, np.concatenate([part[labels] for part in parts])


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
    module, _, attribute = text.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except OctavoError:
        raise
    except Exception as error:
        raise CalibrationError(f"{text} failed: {type(error).__name__}: {error}", expected=_FUNCTION) from error
    if not isinstance(made, tuple) or len(made) != 2:
        raise CalibrationError(f"{text} returned a {type(made).__name__}", expected="(inputs, labels)")
    given, labels = made
    if not isinstance(given, Mapping):
        given = dict(zip(inputs, given if isinstance(given, tuple | list) else (given,), strict=False))
    missing = [name for name in inputs if name not in given]
    if missing:
        raise CalibrationError(f"{text} returned nothing for {', '.join(missing)}", expected=f"{', '.join(inputs)}")
    return {name: _array(given[name]) for name in inputs}, None if labels is None else _array(labels)


def _array(value: Any) -> np.ndarray:
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)


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
        raise CalibrationError(f"{name} has dtype {array.dtype}", where=where, expected=type.dtype.value)
    if type.dtype.is_float and not np.isfinite(converted).all():
        raise CalibrationError(f"{name} holds values that are not finite", where=where)
    return converted


def _labels(array: np.ndarray, where: str) -> torch.Tensor:
    """Classes as int64, targets as float32."""
    if array.dtype.kind not in "iuf":
        raise CalibrationError(f"the labels have dtype {array.dtype}", where=where, expected="integers or floats")
    return to_torch(array.astype(np.float32 if array.dtype.kind == "f" else np.int64))


def _mix(parts: Sequence[Samples], weights: Sequence[float | None]) -> Samples:
    """All samples; with weights, a source's share of what is drawn is its weight and not its size."""
    inputs = tuple(torch.cat(same) for same in zip(*(part.inputs for part in parts), strict=True))
    labelled = [part.labels for part in parts if part.labels is not None]
    if labelled and len(labelled) < len(parts):
        raise CalibrationError("some sources of training data have labels and some have none")
    try:
        labels = torch.cat(labelled) if labelled else None
    except RuntimeError as error:
        raise CalibrationError("the labels of the sources have different shapes") from error
    chances = [
        torch.full((len(part),), weight / len(part), dtype=torch.float64)
        for part, weight in zip(parts, weights, strict=True)
        if weight is not None
    ]
    return Samples(inputs, labels, torch.cat(chances) if chances else None)


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
