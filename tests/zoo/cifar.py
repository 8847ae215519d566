"""A CIFAR-10 network that was trained in Keras: six convolutions with batch norm after the ReLU, three dense layers."""

from __future__ import annotations

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from .packages import package_file

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
    model = CifarCnn()
    path = package_file("cifar-10-model", "cifar_10_model/trained_models/cnn_model.h5")
    with h5py.File(path) as file, torch.no_grad():
        weights = file["model_weights"]

        def put(target: Tensor, layer: str, name: str) -> None:
            value = np.asarray(weights[f"{layer}/{layer}/{name}:0"])
            # Keras keeps kernels as [height, width, in, out] and [in, out].
            value = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T
            target.copy_(torch.from_numpy(np.ascontiguousarray(value)))

        counts: dict[str, int] = {}
        for module in model.modules():
            kinds = {nn.Conv2d: "conv2d", nn.Linear: "dense", nn.BatchNorm2d: "batch_normalization"}
            kind = kinds.get(type(module))
            if kind is None:
                continue
            number = counts.get(kind, 0)
            counts[kind] = number + 1
            layer = f"{kind}_{number}" if number else kind
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                put(module.weight, layer, "gamma")
                put(module.bias, layer, "beta")
                put(module.running_mean, layer, "moving_mean")
                put(module.running_var, layer, "moving_variance")
            elif isinstance(module, nn.Conv2d | nn.Linear):
                assert module.bias is not None
                put(module.weight, layer, "kernel")
                put(module.bias, layer, "bias")
    return model.eval()
