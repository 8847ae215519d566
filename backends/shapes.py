"""Input shapes as text: ``x=1x3x224x224``, and alternatives in braces, ``x=1x3x48x{160,320,640}``."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from ..ir.errors import UsageError

Shapes: TypeAlias = Mapping[str, Sequence[int]]
"""The shape of each input, by name."""

_EXAMPLE = "NAME=1x3x224x224, or NAME=1x3x48x{160,320} for several"


def parse_shapes(texts: Iterable[str]) -> tuple[dict[str, tuple[int, ...]], ...]:
    """The shapes of the inputs, once for each plan; empty without texts.

    The n-th alternative of one input goes with the n-th of every other; an input with one shape keeps it in all plans.

    Raises:
        UsageError: a text is no shape, or two inputs have different numbers of alternatives.
    """
    alternatives: dict[str, list[tuple[int, ...]]] = {}
    for text in texts:
        name, shapes = _parse(text)
        alternatives.setdefault(name, []).extend(shapes)
    counts = {name: len(shapes) for name, shapes in alternatives.items() if len(shapes) > 1}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{name} has {count}" for name, count in counts.items())
        raise UsageError(f"the inputs have different numbers of shapes: {shown}", expected="one, or the same number")
    plans = max(counts.values(), default=1 if alternatives else 0)
    return tuple({name: s[plan if len(s) > 1 else 0] for name, s in alternatives.items()} for plan in range(plans))


def format_shapes(shapes: Shapes) -> str:
    """Shapes as they are given on the command line, e.g. ``x=1x3x224x224``."""
    return " ".join(f"{name}={'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _parse(text: str) -> tuple[str, list[tuple[int, ...]]]:
    name, equals, dimensions = text.rpartition("=")
    if not (equals and name):
        raise UsageError(f"{text!r} names no input", expected=_EXAMPLE)
    if not dimensions:
        return name, [()]
    choices = [_dimension(piece, text) for piece in _split(dimensions, text)]
    return name, list(itertools.product(*choices))


def _split(dimensions: str, text: str) -> list[str]:
    if dimensions.count("{") != dimensions.count("}"):
        raise UsageError(f"{text!r} has a brace without its partner", expected=_EXAMPLE)
    return dimensions.split("x")


def _dimension(piece: str, text: str) -> list[int]:
    words = piece[1:-1].split(",") if piece.startswith("{") and piece.endswith("}") else [piece]
    try:
        sizes = [int(word) for word in words]
    except ValueError:
        raise UsageError(f"{text!r} is not a shape: {piece!r} is no size", expected=_EXAMPLE) from None
    if min(sizes) < 1:
        raise UsageError(f"{text!r} is not a shape: sizes are positive", expected=_EXAMPLE)
    return sizes
