"""What a pass may know of a target: name, ISA levels, features, widths. No code generation lives here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .graph import Node


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
    """Latency of a node in nanoseconds on a target: measured or modelled, injected into passes."""

    def __call__(self, node: Node, level: IsaLevel) -> float: ...
