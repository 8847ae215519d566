"""Zeros that come little by little while a network trains."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...ir.errors import UsageError
from ..pruning.sparsity import Scope, final_ratio, parse_pattern
from .module import TrainableGraph


@dataclass(frozen=True)
class GradualSparsity:
    """A schedule that makes a share of the weights zero: fast at first, ever slower as fewer are left to choose from.

    Zhu and Gupta, "To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model Compression", 2017:
    s_t = s_f + (s_i - s_f) (1 - (t - t_0) / T)^3, with t counted in steps of the optimizer.

    Args:
        ratio, pattern, scope, keep: what the zeros are at the end, as for the pass ``sparsify``; by magnitude.
        initial: the share of zeros to begin with, s_i.
        begin, end: when the first and the last zeros come, in epochs; fractions are parts of an epoch.
        every: how many steps lie between two choices. The last one comes at ``end`` whatever this is.

    Raises:
        UsageError: an option is out of its range.
    """

    ratio: float | None = None
    pattern: str = "single"
    scope: Scope = "local"
    keep: tuple[str, ...] = ()
    initial: float = 0.0
    begin: float = 0.0
    end: float = 1.0
    every: int = 100

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.end:
            raise UsageError(f"zeros come from epoch {self.begin} to {self.end}", expected="0 <= begin <= end")
        if not 0 <= self.initial <= self.final:
            raise UsageError(f"initial={self.initial}", expected=f"a share in [0, {self.final}]")
        if self.every < 1:
            raise UsageError(f"every={self.every}", expected="at least 1 step")

    @property
    def final(self) -> float:
        """The share of zeros at the end, s_f."""
        return final_ratio(parse_pattern(self.pattern), self.ratio)

    def ratio_at(self, step: int, steps: int) -> float | None:
        """The share of zeros to choose before a step, counted from 0; None before a step that changes nothing.

        ``steps`` is how many an epoch has.
        """
        first, last = math.floor(self.begin * steps), math.floor(self.end * steps)
        if step == last:
            return self.final
        if not first <= step < last or (step - first) % self.every:
            return None
        return self.final + (self.initial - self.final) * (1 - (step - first) / (last - first)) ** 3

    def is_complete(self, epochs: int) -> bool:
        """Whether all zeros are there after that many epochs."""
        return epochs > self.end

    def check(self, module: TrainableGraph) -> None:
        """Say before training what :meth:`apply` would say in it.

        Raises:
            UsageError: the module does not keep zeros, ``keep`` names no layer, or no layer fits the pattern.
        """
        self._sparsify(module, 0.0)

    def apply(self, module: TrainableGraph, step: int, steps: int) -> None:
        """Make weights zero if the schedule says so before this step; ``steps`` is how many an epoch has.

        Raises:
            UsageError: as of :meth:`check`.
        """
        ratio = self.ratio_at(step, steps)
        if ratio is not None:
            self._sparsify(module, ratio)

    def _sparsify(self, module: TrainableGraph, ratio: float) -> None:
        module.sparsify(ratio, parse_pattern(self.pattern), self.scope, self.keep)
