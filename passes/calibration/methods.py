"""The calibration methods by name: what each remembers of a stream of activations, and the range it suggests."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

from ...ir.errors import UsageError
from .elements import Elements
from .histogram import Histogram
from .masks import MASK_ROOM
from .thresholds import Bounds, entropy_bounds, mse_bounds, percentile_bounds


class Statistic(ABC):
    """What calibration remembers of one value; constant memory, however much data comes."""

    def __init__(self) -> None:
        self.seen = False
        self.masked = False

    def update(self, elements: Elements) -> None:
        """Take in one batch."""
        self.masked |= elements.masked
        if elements:
            self.add(elements)
            self.seen = True

    @abstractmethod
    def add(self, elements: Elements) -> None:
        """Take in at least one element."""

    def result(self, symmetric: bool) -> Bounds:
        """The range found; where there were masks of minus infinity it leaves room for a number that stands for it."""
        low, high = self.bounds(symmetric)
        return (low - max(high - low, MASK_ROOM), high) if self.masked else (low, high)

    @abstractmethod
    def bounds(self, symmetric: bool) -> Bounds:
        """The range (low, high) that everything seen, masks apart, suggests."""


class MinMax(Statistic):
    """Everything seen."""

    def __init__(self) -> None:
        super().__init__()
        self.range: Bounds = (math.inf, -math.inf)

    def add(self, elements: Elements) -> None:
        self.range = min(self.range[0], elements.low), max(self.range[1], elements.high)

    def bounds(self, symmetric: bool) -> Bounds:
        return self.range


class MovingAverage(Statistic):
    """Exponential moving average of each batch's extremes; a new batch weighs ``momentum`` (default 0.1)."""

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum = momentum
        self.range: Bounds = (0.0, 0.0)

    def add(self, elements: Elements) -> None:
        if not self.seen:
            self.range = elements.low, elements.high
            return
        a, b = self.range
        self.range = a + self.momentum * (elements.low - a), b + self.momentum * (elements.high - b)

    def bounds(self, symmetric: bool) -> Bounds:
        return self.range


class Distribution(Statistic):
    """A histogram, and a rule that reads a range from it. When ``weighted``, important channels count more in it."""

    def __init__(self, rule: Callable[[Histogram, bool], Bounds], *, weighted: bool = False) -> None:
        super().__init__()
        self.rule = rule
        self.weighted = weighted
        self.histogram = Histogram()

    def add(self, elements: Elements) -> None:
        self.histogram.update(elements, weighted=self.weighted)

    def bounds(self, symmetric: bool) -> Bounds:
        return self.rule(self.histogram, symmetric)


def _percentile(percent: float = 99.99) -> Statistic:
    return Distribution(lambda histogram, _: percentile_bounds(histogram, percent))


METHODS: dict[str, Callable[..., Statistic]] = {
    "minmax": MinMax,
    "moving-average": MovingAverage,
    "percentile": _percentile,
    "mse": lambda: Distribution(mse_bounds, weighted=True),
    "entropy": lambda: Distribution(entropy_bounds),
}
_PARAMETERS = {"moving-average": (0.0, 1.0), "percentile": (50.0, 100.0)}
"""The number a method may take, after a colon: above the first, at most the second."""


def new_statistic(method: str) -> Statistic:
    """The statistic that ``method`` spells, e.g. ``percentile:99.9``.

    Raises:
        UsageError: no such method, or its number is out of range.
    """
    name, colon, number = method.partition(":")
    make = METHODS.get(name)
    if make is None:
        close = difflib.get_close_matches(name, METHODS, 1)
        raise UsageError(
            f"no calibration method is named {name!r}",
            expected=f"one of {', '.join(METHODS)}",
            hint=f"did you mean {close[0]}?" if close else None,
        )
    if not colon:
        return make()
    return make(_parameter(name, number))


def new_statistics(methods: str) -> dict[str, Statistic]:
    """The statistic of each alternative in ``methods``, e.g. ``mse|percentile:99.9``, in that order.

    Raises:
        UsageError: as :func:`new_statistic`.
    """
    return {method: new_statistic(method) for method in methods.split("|")}


def _parameter(name: str, number: str) -> float:
    if name not in _PARAMETERS:
        raise UsageError(f"calibration method {name} takes no number", expected=name)
    least, most = _PARAMETERS[name]
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not least < value <= most:
        raise UsageError(f"{name}:{number} is out of range", expected=f"a number above {least:g}, at most {most:g}")
    return value
