"""What a pass is: a frozen value whose fields are its options, with one method that changes a graph."""

from __future__ import annotations

import enum
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from ..ir.graph import Graph
from ..ir.target import CostModel, Target

Feeds = Mapping[str, np.ndarray]
"""One batch: an array for every graph input, by name."""

Ranges = Mapping[str, tuple[float, float]]
"""(low, high) of values, by the key of their observer."""


class Exactness(enum.Enum):
    """What a pass may do to the numbers; the pipeline can hold it to its word."""

    EXACT = "exact"
    """The same bits."""
    CLOSE = "close"
    """Float rounding only."""
    LOSSY = "lossy"
    """Another function that should still serve: quantization, pruning."""


@dataclass(frozen=True)
class Remark:
    """Why a rewrite pattern left a candidate alone."""

    pattern: str
    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.pattern} left {self.where}: {self.reason}"


def ignore_text(line: str) -> None:
    """A sink for reports nobody asked for."""


def ignore_progress(label: str, done: int, total: int | None) -> None:
    """A progress callback for runs nobody watches."""


@dataclass(frozen=True)
class PassContext:
    """What passes may need beyond the graph.

    Args:
        calibration: batches of inputs. It may be iterated more than once, so pass a list or an object with
            ``__iter__``, not a generator.
        target: the CPUs to compile for, when known.
        cost: measured or modelled latency of nodes, when known.
        ranges: ranges the user fixed, by observer key; they replace what calibration finds.
        report: receives one line for the user at a time.
        progress: receives (label, done, total or None) while something long runs.
        explain: receives the reasons why patterns did not match; None when nobody asks.
    """

    calibration: Iterable[Feeds] | None = None
    target: Target | None = None
    cost: CostModel | None = None
    ranges: Ranges = field(default_factory=dict)
    report: Callable[[str], None] = ignore_text
    progress: Callable[[str, int, int | None], None] = ignore_progress
    explain: Callable[[Remark], None] | None = None


@dataclass(frozen=True)
class Pass(ABC):
    """Base of all passes.

    Subclasses are frozen dataclasses: every field is an option, with a default where there is a sensible one. The
    first line of the docstring is the help text.
    """

    name: ClassVar[str]
    exactness: ClassVar[Exactness]
    interface: ClassVar[bool] = False
    """Whether it changes what the network takes; such passes come first in a pipeline."""

    @abstractmethod
    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Change the graph in place; return whether anything changed.

        Raises:
            PassError: the graph cannot be treated; ``where`` names the node.
        """

    @classmethod
    def summary(cls) -> str:
        """The first line of the docstring."""
        return (inspect.getdoc(cls) or "").partition("\n")[0]
