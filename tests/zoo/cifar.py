"""A CIFAR-10 network that was trained in Keras: six convolutions with batch norm after the ReLU, three dense layers."""

from __future__ import annotations

from itertools import count
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .packages import package_file

KERAS: dict[type[nn.Module], str] = {
    nn.Conv2d: "conv2d",
    nn.Linear: "dense",
    nn.BatchNorm2d: "batch_normalization",
}
NAMES = {
    ("conv2d", "kernel"): "weight",
    ("conv2d", "bias"): "bias",
    ("dense", "kernel"): "weight",
    ("dense", "bias"): "bias",
    ("batch_normalization", "gamma"): "weight",
    ("batch_normalization", "beta"): "bias",
    ("batch_normalization", "moving_mean"): "running_mean",
    ("batch_normalization", "moving_variance"): "running_var",
}
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CifarCnn(nn.Module):
    """float32 [N, 3, 32, 32] with values 0..255 to scores [N, 10]; the last layer has a ReLU, as it was trained."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for number, outputs in enumerate((64, 64, 128, 128, 64, 64), 1):
            layers += [nn.Conv2d(channels, outputs, 3), nn.ReLU(), nn.BatchNorm2d(outputs, eps=1e-3)]
            layers += [nn.MaxPool2d(2)] if number in (2, 4) else []
            channels = outputs
        self.features = nn.Sequential(*layers)
        dense = (nn.Linear(64, 1024), nn.Linear(1024, 512), nn.Linear(512, 10))
        self.head = nn.Sequential(*(module for linear in dense for module in (linear, nn.ReLU())))

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(x).flatten(1))
        return scores


def cifar10_cnn() -> nn.Module:
    """The network with its trained weights, which Keras keeps as [height, width, in, out] and [in, out]."""
    model = CifarCnn()
    with h5py.File(package_file("cifar-10-model", "cifar_10_model/trained_models/cnn_model.h5")) as file:
        weights: Any = file["model_weights"]
        numbers = {kind: count() for kind in KERAS.values()}
        for module in model.modules():
            kind = KERAS.get(type(module))
            if kind is None:
                continue
            number = next(numbers[kind])
            layer = f"{kind}_{number}" if number else kind
            values = {name.removesuffix(":0"): np.asarray(value) for name, value in weights[layer][layer].items()}
            own = module.state_dict()
            module.load_state_dict(own | {NAMES[kind, name]: _torch_order(v) for name, v in values.items()})
    return model.eval()


def _torch_order(value: NDArray[np.float32]) -> Tensor:
    ordered = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
    return torch.from_numpy(np.ascontiguousarray(ordered))
