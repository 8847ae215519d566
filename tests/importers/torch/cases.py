"""Small modules that together use what torch.nn and the tensor functions offer: a table for the import tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Made = nn.Module | Callable[..., Any]


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


@dataclass(frozen=True)
class Case:
    """A module, made under a fixed seed, and the shapes (floats) or tensors it is called with."""

    name: str
    make: Callable[[], Made]
    inputs: tuple[Shape | Tensor, ...]
    tolerance: float = 2e-5

    def module(self) -> nn.Module:
        torch.manual_seed(hash_name(self.name))
        made = self.make()
        module = made if isinstance(made, nn.Module) else Call(made)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.normal_()
                part.running_var.uniform_(0.5, 2.0)
        return module.eval()

    def tensors(self) -> tuple[Tensor, ...]:
        torch.manual_seed(hash_name(self.name) + 1)
        return tuple(i.clone() if isinstance(i, Tensor) else torch.randn(i) for i in self.inputs)


def hash_name(name: str) -> int:
    """A seed that stays the same between processes."""
    return sum((i + 1) * ord(c) for i, c in enumerate(name))


def cases(*shapes: Shape | Tensor, **made: Callable[[], Made]) -> list[Case]:
    """One case for each named maker, all with the same inputs."""
    return [Case(name, make, shapes) for name, make in made.items()]


def functions(*shapes: Shape | Tensor, **functions: Callable[..., Any]) -> list[Case]:
    """One case for each named function, all with the same inputs."""
    return [Case(name, partial(Call, function), shapes) for name, function in functions.items()]
