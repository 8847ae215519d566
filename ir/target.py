"""What a pass may know of a target: name, ISA levels, features, widths. No code generation lives here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .op import Op
from .types import TensorType


@dataclass(frozen=True)
class IsaLevel:
    """One instruction set level that a bundle carries kernels for."""

    name: str
    features: tuple[str, ...]
    vector_bytes: int
    channel_multiple: int
    """Output channels come in tiles of this many; fewer waste lanes."""


@dataclass(frozen=True)
class Target:
    """A family of CPUs, and the levels to generate code for, best last."""

    name: str
    architecture: str
    levels: tuple[IsaLevel, ...]


class CostModel(Protocol):
    """Latency in nanoseconds of an op on operands and results of these types: measured or modelled, given to passes."""

    def __call__(
        self, op: Op, inputs: Sequence[TensorType], outputs: Sequence[TensorType], level: IsaLevel
    ) -> float: ...
