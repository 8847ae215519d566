"""How many channels each group loses so that an amount falls to a goal."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

import numpy as np

from .amounts import Amount, Counts, Ranking

HALVINGS = 24
"""How often the search for the right share halves its interval."""

Left = Callable[[Counts], float]
"""The amount that remains."""


def below(rankings: Sequence[Ranking], bar: float) -> Counts:
    """Every unit that scores less than ``bar`` and may go."""
    return tuple(ranking.allowed(int(np.count_nonzero(ranking.scores < bar))) for ranking in rankings)


def same_share(rankings: Sequence[Ranking], left: Left, goal: float) -> Counts:
    """The same share of every group."""
    return _search(lambda share: tuple(r.allowed(int(share * len(r.units))) for r in rankings), left, goal)


def one_bar(rankings: Sequence[Ranking], left: Left, goal: float) -> Counts:
    """The units with the lowest scores of all groups."""
    scores = np.concatenate([ranking.scores for ranking in rankings])
    return _search(lambda share: below(rankings, float(np.quantile(scores, share))), left, goal)


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


def _search(counts_at: Callable[[float], Counts], left: Left, goal: float) -> Counts:
    """The smallest share from 0 to 1 at which no more than ``goal`` is left, or else all that may go."""
    low, high = 0.0, 1.0
    known: dict[Counts, float] = {}
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        counts = counts_at(middle)
        if counts not in known:
            known[counts] = left(counts)
        if known[counts] <= goal:
            high = middle
        else:
            low = middle
    return counts_at(high)
