"""Running a bundle on files: inputs that fit its signature, and the largest outputs with their labels."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..ir.errors import CalibrationError, InputError
from ..ir.types import DType, TensorType
from .data import open_data
from .preprocess import IMAGE_SUFFIXES, Preprocess

if TYPE_CHECKING:
    from .bundle.manifest import Manifest
    from .bundle.program import Signature

LABELS_FILE = "labels.txt"


def input_types(signature: Signature) -> dict[str, TensorType]:
    """The inputs of one plan of a bundle."""
    return {spec.name: TensorType(DType.from_numpy(np.dtype(spec.dtype)), spec.shape) for spec in signature.inputs}


def preprocessing_of(manifest: Manifest, given: str | None) -> Preprocess | None:
    """The preprocessing asked for, else the one the bundle was made with."""
    if given is not None:
        return Preprocess.parse(given)
    return None if manifest.preprocessing is None else Preprocess.from_json(manifest.preprocessing)


def read_inputs(path: Path, manifest: Manifest, preprocess: Preprocess | None) -> Mapping[str, np.ndarray]:
    """One batch for a bundle from an image, .npy or .npz file: its first, for the plan whose shapes it fits.

    Raises:
        InputError: the file cannot be read, or fits no plan.
    """
    if path.suffix.lower() in IMAGE_SUFFIXES and preprocess is None:
        raise InputError(
            "the bundle does not say how images become inputs", where=str(path), hint="--preprocess imagenet"
        )
    refused: list[CalibrationError] = []
    for signature in manifest.signatures:
        try:
            return next(iter(open_data(path, input_types(signature), preprocess=preprocess)))
        except CalibrationError as error:
            refused.append(error)
    first = refused[0]
    expected = " or ".join(dict.fromkeys(error.expected for error in refused if error.expected))
    raise InputError(first.what, where=first.where, expected=expected or None, hint=first.hint) from first


def fitting_plan(manifest: Manifest, data: str, preprocess: Preprocess | None) -> Signature:
    """The first plan that the first batch of the data fits; the first of all when it fits none."""
    for signature in manifest.signatures:
        with contextlib.suppress(CalibrationError):
            if next(iter(open_data(data, input_types(signature), preprocess=preprocess, limit=1))):
                return signature
    return manifest.signatures[0]


def read_bundle_labels(folder: Path) -> tuple[str, ...]:
    """The class names in a bundle; empty when it has none."""
    try:
        return tuple((folder / LABELS_FILE).read_text(encoding="utf-8").splitlines())
    except FileNotFoundError:
        return ()


def top(values: np.ndarray, count: int) -> list[tuple[int, float]]:
    """(index, value) of the largest elements, largest first; the lower index first among equals."""
    flat = values.reshape(-1)
    order = np.argsort(-flat.astype(np.float64), kind="stable")[:count]
    return [(int(i), flat[i].item()) for i in order]
