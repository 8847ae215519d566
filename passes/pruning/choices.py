"""How many channels each group loses so that an amount falls to a goal."""

from __future__ import annotations

import bisect
import heapq
from collections.abc import Callable, Sequence

import numpy as np

from .amounts import Amount, Counts, Ranking

Left = Callable[[Counts], float]
"""The amount that remains."""


def below(rankings: Sequence[Ranking], bar: float) -> Counts:
    """Every unit that scores less than ``bar`` and may go."""
    return tuple(ranking.allowed(int(np.count_nonzero(ranking.scores < bar))) for ranking in rankings)


def same_share(rankings: Sequence[Ranking], left: Left, goal: float) -> Counts:
    """The same share of every group: no more of it than the goal takes, so within one unit of each group."""
    shares = [_shares(ranking) for ranking in rankings]
    steps = np.unique(np.concatenate(shares))

    def counts_at(step: int) -> Counts:
        within = [np.searchsorted(own, steps[step - 1], "right") if step else 0 for own in shares]
        return tuple(ranking.allowed(int(count)) for ranking, count in zip(rankings, within, strict=True))

    return _first(counts_at, len(steps), left, goal)


def in_one_order(rankings: Sequence[Ranking], left: Left, goal: float) -> Counts:
    """The units with the lowest scores of all groups, within one unit; equal scores go from all groups alike."""
    groups = np.repeat(np.arange(len(rankings)), [len(ranking.units) for ranking in rankings])
    shares = np.concatenate([_shares(ranking) for ranking in rankings])
    scores = np.concatenate([ranking.scores for ranking in rankings])
    groups = groups[np.lexsort((shares, scores))]

    def counts_at(step: int) -> Counts:
        first = np.bincount(groups[:step], minlength=len(rankings))
        return tuple(ranking.allowed(int(count)) for ranking, count in zip(rankings, first, strict=True))

    return _first(counts_at, len(groups), left, goal)


def greedy(rankings: Sequence[Ranking], amount: Amount, goal: float) -> Counts:
    """Again and again the fewest units that a group can lose, from the group with the least score for what they save.

    What a group saves falls, and the scores of its units rise, while others go. So a price that was found earlier is a
    lower bound of today's, and only groups that seem cheapest are priced again (Minoux, "Accelerated Greedy Algorithms
    for Maximizing Submodular Set Functions", 1978).
    """
    counts = [0] * len(rankings)
    left = amount.left(tuple(counts))

    def offer(number: int) -> tuple[float, int, int, float] | None:
        count = rankings[number].next(counts[number])
        if count is None:
            return None
        saved = amount.saved(tuple(counts), number, count)
        lost = float(rankings[number].scores[counts[number] : count].sum())
        return (lost / saved if saved > 0 else np.inf), number, count, saved

    queue = [found for number in range(len(rankings)) if (found := offer(number))]
    heapq.heapify(queue)
    while queue and left > goal:
        found = offer(heapq.heappop(queue)[1])
        assert found is not None
        if queue and found > queue[0]:
            heapq.heappush(queue, found)
            continue
        _, number, counts[number], saved = found
        left -= saved
        if following := offer(number):
            heapq.heappush(queue, following)
    return tuple(counts)


def _shares(ranking: Ranking) -> np.ndarray:
    """The share of its group (float64, up to 1) that has gone with each unit."""
    return np.arange(1, len(ranking.units) + 1) / len(ranking.units)


def _first(counts_at: Callable[[int], Counts], steps: int, left: Left, goal: float) -> Counts:
    """The counts of the first step from 0 on that leaves no more than ``goal``, or else those of the last."""
    return counts_at(bisect.bisect_left(range(steps), True, key=lambda step: left(counts_at(step)) <= goal))
