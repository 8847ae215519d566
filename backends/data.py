"""Calibration and evaluation data: files, folders or Python iterables become batches that fit a network's inputs.

Everything is read while iterating, one batch in memory at a time, and can be iterated again. How arrays become batches
is said in :mod:`.batches`.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..ir.errors import CalibrationError, InputError
from .arrays import ARRAY_SUFFIXES, ArrayReader, open_arrays
from .batches import Feeds, Inputs, Piece, Stacker, batch_limit, batch_size, count, split
from .preprocess import IMAGE_SUFFIXES, Preprocess

Source: TypeAlias = "str | Path | Iterable[Any] | Callable[[], Iterable[Any]]"

_READABLE = "an .npz or .npy file, a folder of such files or of images, or a .txt or .json list of files"


class Batches(Protocol):
    """Batches of inputs by name; may be iterated any number of times."""

    def __iter__(self) -> Iterator[Feeds]: ...

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read; none for data in memory."""
        ...


def open_data(
    source: Source, inputs: Inputs, *, preprocess: Preprocess | None = None, limit: int | None = None
) -> Batches:
    """Batches for a network with these ``inputs``.

    Args:
        source: a path (see the module), several paths, or an iterable whose items are batches: an array (for a
            network of one input), a tuple of arrays in the order of the inputs, or a dict by name; torch tensors serve
            as arrays. A function that returns an iterator serves too.
        preprocess: how images become inputs; needed for images only.
        limit: use at most this many samples.

    Raises:
        CalibrationError: nothing there, or nothing of a known kind. Files are checked while iterating, which raises
            the same error and names the file.
    """
    if limit is not None and limit < 1:
        raise CalibrationError(f"a limit of {limit} samples", expected="at least 1")
    if isinstance(source, str | Path):
        found = _find_files(Path(source))
        return FileBatches(Path(source), tuple(found), dict(inputs), preprocess, limit)
    if isinstance(source, Sequence) and source and all(isinstance(item, str | os.PathLike) for item in source):
        files = tuple(Path(item) for item in source)
        _check_listed(files, "the calibration files")
        return FileBatches(files[0].parent, files, dict(inputs), preprocess, limit)
    if callable(source):
        return MemoryBatches(source, dict(inputs), limit)
    if iter(source) is source:
        raise CalibrationError(
            "the calibration data is an iterator, which can be read only once",
            hint="pass a list, or a function that returns a new iterator",
        )
    return MemoryBatches(lambda: source, dict(inputs), limit)


# Files -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileBatches:
    """Batches read from files, in the order of their names."""

    source: Path
    files: tuple[Path, ...]
    inputs: Inputs
    preprocess: Preprocess | None = None
    limit: int | None = None

    def __iter__(self) -> Iterator[Feeds]:
        batches = Stacker(self.inputs).stack(self._pieces())
        empty = True
        for batch in itertools.islice(batches, batch_limit(self.inputs, self.limit)):
            empty = False
            yield batch
        if empty:
            size = batch_size(self.inputs)
            raise CalibrationError(
                "the data makes no batch", where=str(self.source), expected=f"at least {size} sample(s)"
            )

    def __len__(self) -> int:
        """Number of batches, from the headers of the files."""
        whole = single = 0
        for path in self.files:
            if path.suffix.lower() in IMAGE_SUFFIXES:
                single += 1
                continue
            with open_arrays(path) as arrays:
                batches, samples = count(_name_arrays(arrays, self.inputs, str(path)), self.inputs, str(path))
            whole, single = whole + batches, single + samples
        total = whole + single // max(1, batch_size(self.inputs))
        limit = batch_limit(self.inputs, self.limit)
        return total if limit is None else min(total, limit)

    def _pieces(self) -> Iterator[Piece]:
        for path in self.files:
            yield from self._images(path) if path.suffix.lower() in IMAGE_SUFFIXES else self._arrays(path)

    def _images(self, path: Path) -> Iterator[Piece]:
        name = _only_input(self.inputs, path)
        if self.preprocess is None:
            raise CalibrationError(
                "images need preprocessing", where=str(path), hint="--preprocess imagenet, or resize=...,mean=..."
            )
        try:
            array = self.preprocess.load(path)
        except InputError as error:
            raise CalibrationError(error.what, where=error.where) from error
        yield Piece({name: array[0]}, complete=False, where=str(path))

    def _arrays(self, path: Path) -> Iterator[Piece]:
        with open_arrays(path) as arrays:
            named = _name_arrays(arrays, self.inputs, str(path))
            yield from split(named, self.inputs, str(path))


def _find_files(source: Path) -> list[Path]:
    if source.is_dir():
        files = sorted(p for p in source.rglob("*") if _is_visible(p, source) and _is_data(p) and p.is_file())
        if not files:
            raise CalibrationError("the folder holds no data", where=str(source), expected=".npz, .npy or image files")
        _check_kinds(files, source)
        return files
    if not source.exists():
        raise CalibrationError("no such file or folder", where=str(source), expected=_READABLE)
    if source.suffix.lower() in (".txt", ".json"):
        return _read_list(source)
    if not _is_data(source):
        raise CalibrationError("no kind of data that octavo knows", where=str(source), expected=_READABLE)
    return [source]


def _is_data(path: Path) -> bool:
    return path.suffix.lower() in ARRAY_SUFFIXES | IMAGE_SUFFIXES


def _is_visible(path: Path, root: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(root).parts)


def _check_kinds(files: Sequence[Path], where: Path) -> None:
    images = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    if images and len(images) < len(files):
        other = next(p for p in files if p not in set(images))
        raise CalibrationError(
            f"images and arrays are mixed: {images[0].name}, {other.name}",
            where=str(where),
            hint="move them apart, or name the files in a .txt list",
        )


def _read_list(path: Path) -> list[Path]:
    """Paths from a list, relative to its folder: one a line (``#`` starts a comment), or a JSON array."""
    try:
        text = path.read_text(encoding="utf-8")
        names = json.loads(text) if path.suffix.lower() == ".json" else _lines(text)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CalibrationError(f"the list of files cannot be read: {reason}", where=str(path)) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise CalibrationError("not a list of files", where=str(path), expected='for example ["a.png", "b.png"]')
    if not names:
        raise CalibrationError("the list of files is empty", where=str(path))
    files = [path.parent / name for name in names]
    _check_listed(files, str(path))
    return files


def _check_listed(files: Iterable[Path], where: str) -> None:
    for file in files:
        if not file.is_file() or not _is_data(file):
            what = "is not there" if not file.exists() else "is of no kind that octavo reads"
            raise CalibrationError(f"{file} {what}", where=where, expected=".npz, .npy or image files")


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def _only_input(inputs: Inputs, path: Path) -> str:
    if len(inputs) != 1:
        what = f"one array or image for {len(inputs)} inputs"
        raise CalibrationError(what, where=str(path), expected=f"an .npz file with {', '.join(inputs)}")
    return next(iter(inputs))


def _name_arrays(arrays: Mapping[str, ArrayReader], inputs: Inputs, where: str) -> dict[str, ArrayReader]:
    """The array of each input: by name, by position (``arr_0``), or the only one. Other arrays are left alone."""
    if all(name in arrays for name in inputs):
        return {name: arrays[name] for name in inputs}
    positional = {name: f"arr_{position}" for position, name in enumerate(inputs)}
    if all(key in arrays for key in positional.values()):
        return {name: arrays[key] for name, key in positional.items()}
    if len(arrays) == 1 and len(inputs) == 1:
        return dict(zip(inputs, arrays.values(), strict=True))
    missing = [name for name in inputs if name not in arrays]
    raise CalibrationError(
        f"no array for {', '.join(missing)}",
        where=where,
        expected=f"arrays {', '.join(inputs)}; the file has {', '.join(arrays) or 'none'}",
    )


# Iterables ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryBatches:
    """Batches from a Python iterable."""

    make: Callable[[], Iterable[Any]]
    inputs: Inputs
    limit: int | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return ()

    def __iter__(self) -> Iterator[Feeds]:
        batches = Stacker(self.inputs).stack(self._pieces())
        empty = True
        for batch in itertools.islice(batches, batch_limit(self.inputs, self.limit)):
            empty = False
            yield batch
        if empty:
            raise CalibrationError("the calibration data is empty", hint="pass at least one batch")

    def _pieces(self) -> Iterator[Piece]:
        for position, item in enumerate(self.make()):
            where = f"item {position} of the data"
            arrays = {name: ArrayReader.of(_as_array(x, where)) for name, x in self._name(item, where).items()}
            yield from split(arrays, self.inputs, where)

    def _name(self, item: Any, where: str) -> dict[str, Any]:
        if isinstance(item, Mapping):
            missing = [name for name in self.inputs if name not in item]
            if missing:
                what = f"no array for {', '.join(missing)}"
                raise CalibrationError(what, where=where, expected=f"keys {', '.join(self.inputs)}")
            return {name: item[name] for name in self.inputs}
        # What follows the inputs in a tuple are labels.
        arrays = list(item) if isinstance(item, tuple | list) else [item]
        if len(arrays) < len(self.inputs):
            what = f"{len(arrays)} array(s) for {len(self.inputs)} inputs"
            raise CalibrationError(what, where=where, expected=f"one for each of {', '.join(self.inputs)}")
        return dict(zip(self.inputs, arrays, strict=False))


def _as_array(value: Any, where: str) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise CalibrationError(f"not an array: {error}", where=where) from error
    if array.dtype == object:
        raise CalibrationError(f"a {type(value).__name__} is not an array", where=where)
    return array
