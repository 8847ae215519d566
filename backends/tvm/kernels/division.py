"""How a kernel's work is divided into tasks, so that threads that take equal numbers of them finish together. No tvm.

The runtime gives thread i of n the tasks from ``i * tasks // n`` on. Threads that are done help the others, but by
whole tasks, and with a cache that has nothing of them: equal shares stay the best.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

Option = TypeVar("Option")

#: Tasks a kernel is divided into, when it has that many independent parts, and how many are no use.
TASKS, MOST_TASKS = 16, 64
#: Numbers of threads that a division is made for.
THREADS = (1, 2, 4)
#: What it costs to begin a task, of all the work.
TASK_COST = 0.0005


def sizes(count: int, part: int) -> list[int]:
    """The sizes of the parts of `count`, of which only the last is smaller than `part`."""
    whole, rest = divmod(count, part)
    return [part] * whole + [rest] * bool(rest)


def parts(count: int, fewest: int = 1) -> list[int]:
    """Sizes of even parts of `count`, from `fewest` parts on to more than are any use."""
    return list(dict.fromkeys(-(-count // number) for number in range(fewest, max(fewest, MOST_TASKS) + 1)))


def lost(costs: Sequence[float], work: float) -> float:
    """What tasks of these costs, in their order, take longer than equal shares of `work` would, as a share of it."""
    ends = np.concatenate([[0], np.cumsum(costs)])
    slowest = [np.diff(ends[len(costs) * np.arange(threads + 1) // threads]).max() * threads for threads in THREADS]
    return float(np.mean(slowest)) / work - 1


def best_division(options: Iterable[tuple[Option, Sequence[float]]], work: float) -> Option:
    """The option, given with the costs of its tasks, that loses least; one of `TASKS` tasks where there are so many."""
    found = [(len(costs), lost(costs, work) + TASK_COST * len(costs), option) for option, costs in options]
    enough = min(TASKS, max(count for count, _, _ in found))
    return min((item for item in found if item[0] >= enough), key=lambda item: item[1])[2]
