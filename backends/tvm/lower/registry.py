"""Which op is lowered by which function, and which ops are refused for a written reason."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from ....ir.graph import Node
from ....ir.op import Op
from ...plan.builder import PlanBuilder
from ...plan.moves import Border

Lower = Callable[[PlanBuilder, Node], None]
Borders = Callable[[PlanBuilder, Node], Border | None]


@dataclass(frozen=True)
class Lowering:
    """``lower`` adds the kernel calls of a node; ``border`` says what border it wants around its first operand.

    A ``view`` lowering only names elements that lie somewhere already.
    """

    lower: Lower
    border: Borders | None = None
    view: bool = False


LOWERINGS: dict[type[Op], Lowering] = {}
LowerFunction = TypeVar("LowerFunction", bound=Lower)


def lowers(
    *ops: type[Op], border: Borders | None = None, view: bool = False
) -> Callable[[LowerFunction], LowerFunction]:
    """Register the lowering of ops."""

    def register(function: LowerFunction) -> LowerFunction:
        LOWERINGS.update(dict.fromkeys(ops, Lowering(function, border, view)))
        return function

    return register


FAMILIES = (
    "chains",
    "elementwise",
    "floats",
    "image",
    "index",
    "local_response",
    "logic",
    "movement",
    "normalize",
    "pool",
    "quantize",
    "recurrent",
    "resize",
    "sampling",
    "scan",
    "weighted",
)
"""The modules of this folder that register lowerings."""


def find_lowering(op: Op) -> Lowering | None:
    """The lowering of an op, or None when it has no kernel."""
    for family in FAMILIES:
        importlib.import_module(f".{family}", __package__)
    return LOWERINGS.get(type(op))
