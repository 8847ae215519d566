"""How an array becomes batches of a network's input of shape ``(b, ...)``; ``b`` is 1 where the batch is symbolic.

- One more dimension than the input: the leading axis counts batches.
- As many dimensions: the leading axis counts samples, taken ``b`` at a time (an incomplete last batch is left out).
- One dimension less: it is one sample, and ``b`` of them make a batch.

An array that makes a single batch is repeated beside inputs that make more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from ..ir.errors import CalibrationError
from ..ir.types import DType, TensorType, format_shape
from .arrays import ArrayReader

Feeds: TypeAlias = dict[str, np.ndarray]
Inputs: TypeAlias = Mapping[str, TensorType]

PIXELS = "the network takes bytes, of an image its pixels as they are: with --preprocess, layout=NHWC,dtype=uint8"


@dataclass(frozen=True)
class Piece:
    """A whole batch, or one sample of a batch to be stacked."""

    arrays: Feeds
    complete: bool
    where: str


@dataclass(frozen=True)
class Stacker:
    """Checks pieces and stacks single samples to batches."""

    inputs: Inputs

    def stack(self, pieces: Iterable[Piece]) -> Iterator[Feeds]:
        size = batch_size(self.inputs)
        waiting: list[Feeds] = []
        for piece in pieces:
            checked = {name: _check(name, piece.arrays[name], type, piece) for name, type in self.inputs.items()}
            if piece.complete:
                yield checked
                continue
            waiting.append(checked)
            if len(waiting) == size:
                yield {name: np.stack([sample[name] for sample in waiting]) for name in self.inputs}
                waiting = []


def batch_size(inputs: Inputs) -> int:
    """Samples in a batch: the leading dimension of the first input, 1 where it is symbolic."""
    first = next(iter(inputs.values()), None)
    leading = first.shape[0] if first and first.shape else 1
    return leading if isinstance(leading, int) else 1


def batch_limit(inputs: Inputs, limit: int | None) -> int | None:
    """How many batches ``limit`` samples make, at least one."""
    return None if limit is None else max(1, limit // max(1, batch_size(inputs)))


def split(arrays: Mapping[str, ArrayReader], inputs: Inputs, where: str) -> Iterator[Piece]:
    """The batches, or the single sample, in arrays of the same file or item."""
    kinds = _kinds(arrays, inputs, where)
    if set(kinds.values()) == {"sample"}:
        yield Piece({name: a.read(0, None) for name, a in arrays.items()}, complete=False, where=where)
        return
    counts = {name: _count(arrays[name].shape, inputs[name], kind) for name, kind in kinds.items()}
    for index in range(_total(counts, where)):
        batch = {name: _take(arrays[name], inputs[name], kinds[name], min(index, counts[name] - 1)) for name in inputs}
        yield Piece(batch, complete=True, where=where)


def count(arrays: Mapping[str, ArrayReader], inputs: Inputs, where: str) -> tuple[int, int]:
    """How many whole batches, and how many single samples, :func:`split` would make."""
    kinds = _kinds(arrays, inputs, where)
    if set(kinds.values()) == {"sample"}:
        return 0, 1
    return _total({name: _count(arrays[name].shape, inputs[name], kind) for name, kind in kinds.items()}, where), 0


def _total(counts: Mapping[str, int], where: str) -> int:
    several = {count for count in counts.values() if count != 1}
    if len(several) > 1:
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise CalibrationError(f"the inputs have different numbers of batches: {shown}", where=where)
    return several.pop() if several else 1


_Kind = Literal["batches", "samples", "sample"]


def _kinds(arrays: Mapping[str, ArrayReader], inputs: Inputs, where: str) -> dict[str, _Kind]:
    return {name: _kind(arrays[name].shape, type, name, where) for name, type in inputs.items()}


def _kind(shape: tuple[int, ...], type: TensorType, name: str, where: str) -> _Kind:
    rows = type.shape[1:]
    if len(shape) == type.rank + 1 and _fits(shape[1:], type.shape):
        return "batches"
    if len(shape) == type.rank and _fits(shape[1:], rows):
        return "samples"
    if type.rank and len(shape) == type.rank - 1 and _fits(shape, rows):
        return "sample"
    what = f"the array for {name} has shape {format_shape(shape)}"
    raise CalibrationError(what, where=where, expected=format_shape(type.shape), hint=_hint(type))


def _fits(shape: tuple[int, ...], wanted: Sequence[object]) -> bool:
    same_rank = len(shape) == len(wanted)
    return same_rank and all(not isinstance(w, int) or w == n for n, w in zip(shape, wanted, strict=True))


def _rows(type: TensorType) -> int:
    leading = type.shape[0] if type.shape else 1
    return leading if isinstance(leading, int) else 1


def _count(shape: tuple[int, ...], type: TensorType, kind: _Kind) -> int:
    if kind == "sample" or not shape:
        return 1
    return shape[0] if kind == "batches" else shape[0] // max(1, _rows(type))


def _take(array: ArrayReader, type: TensorType, kind: _Kind, index: int) -> np.ndarray:
    if kind == "batches":
        return np.asarray(array.read(index, index + 1)[0])
    if kind == "sample":
        return np.repeat(array.read(0, None)[np.newaxis], _rows(type), axis=0)
    if not array.shape:
        return array.read(0, None)
    rows = _rows(type)
    return array.read(index * rows, (index + 1) * rows)


def _check(name: str, array: np.ndarray, type: TensorType, piece: Piece) -> np.ndarray:
    """The array in the input's element type; raises when shape, dtype or values do not fit."""
    wanted = type.shape if piece.complete else type.shape[1:]
    if not _fits(array.shape, wanted):
        what = f"the data for {name} has shape {format_shape(array.shape)}"
        raise CalibrationError(what, where=piece.where, expected=format_shape(wanted), hint=_hint(type))
    converted = convert(array, type.dtype)
    if converted is None:
        hint = "scale and normalize the data as in training" if type.dtype.is_float else _hint(type)
        raise CalibrationError(
            f"the data for {name} has dtype {array.dtype}", where=piece.where, expected=type.dtype.value, hint=hint
        )
    if type.dtype.is_float:
        _check_finite(name, converted, piece)
    return converted


def _hint(type: TensorType) -> str | None:
    return PIXELS if type.dtype is DType.U8 else None


def convert(array: np.ndarray, dtype: DType) -> np.ndarray | None:
    """The array in another element type when that keeps its meaning: floats among floats, integers that fit."""
    if array.dtype == dtype.numpy:
        return array
    kinds = (array.dtype.kind, "f" if dtype.is_float else dtype.numpy.kind)
    if kinds[0] in "fV" and kinds[1] == "f":
        with np.errstate(over="ignore"):
            return array.astype(dtype.numpy)
    if kinds[0] in "iu" and kinds[1] in "iu":
        limits: Any = np.iinfo(dtype.numpy.name)
        if not array.size or (int(array.min()) >= limits.min and int(array.max()) <= limits.max):
            return array.astype(dtype.numpy)
    return None


def _check_finite(name: str, array: np.ndarray, piece: Piece) -> None:
    bad = ~np.isfinite(array)
    if bad.any():
        place = [int(i) for i in np.argwhere(bad)[0]]
        what = f"the data for {name} holds {int(bad.sum())} value(s) that are not finite, the first at {place}"
        raise CalibrationError(what, where=piece.where)
