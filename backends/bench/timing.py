"""Taking turns: every runner meets the same state of the machine, and ratios of one turn are what is reported."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import numpy as np

Call = Callable[[], object]
Turn = Callable[[], int]
"""Runs once and returns its nanoseconds."""
Clock = Callable[[], int]

#: Seconds after which threads of other runners sleep and one's own are awake. Those of ONNX Runtime look for work a
#: million times before they sleep: 50 ms on a Zen 5, in which whoever comes next has one CPU instead of two.
SETTLING = 0.1


@dataclass(frozen=True)
class Timing:
    """Latencies of one runner in milliseconds, in the order they were measured."""

    name: str
    milliseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return float(np.median(self.milliseconds))

    @property
    def best(self) -> float:
        return min(self.milliseconds)

    def percentile(self, percent: float) -> float:
        """The latency that ``percent`` of the runs do not exceed."""
        return float(np.percentile(self.milliseconds, percent))


@dataclass(frozen=True)
class Ratio:
    """The median of other / octavo over pairs of neighbouring runs and its 95 % interval; above 1 octavo is faster."""

    median: float
    low: float
    high: float

    def as_list(self) -> list[float]:
        """The median and the ends of the interval, as reports keep them."""
        return [self.median, self.low, self.high]


def pair_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """The median of the pairs' ratios and its distribution-free 95 % interval (order statistics of a binomial)."""
    ratios = np.sort(np.asarray(numerator, np.float64) / np.asarray(denominator, np.float64))
    count = len(ratios)
    margin = 1.96 * math.sqrt(count) / 2
    low, high = max(0, math.floor(count / 2 - margin)), min(count - 1, math.ceil(count / 2 + margin))
    return Ratio(float(np.median(ratios)), float(ratios[low]), float(ratios[high]))


def clock_for(threads: int) -> Clock:
    """What times a runner of so many threads, in nanoseconds.

    One thread is best timed by the processor time of its process, which leaves out what other processes take.
    """
    return time.process_time_ns if threads == 1 else time.perf_counter_ns


def settling_for(threads: int) -> float:
    """Seconds that a runner of so many threads works before its turn counts."""
    return 0.0 if threads == 1 else SETTLING


def timed(call: Call, clock: Clock, settling: float = 0.0) -> int:
    """Nanoseconds of a call that is not the first, after ``settling`` seconds of them.

    The first finds the caches full of somebody else's weights. Threads of the runner before still spin, and a virtual
    machine has to wake a processor for another thread: the fast runner's calls that count must not be among those that
    meet this, where a slow one's are over with its first.
    """
    call()
    end = time.perf_counter() + settling
    while time.perf_counter() < end:
        call()
    start = clock()
    call()
    return clock() - start


def take_turns(
    turns: Mapping[str, Turn], rounds: int, progress: Callable[[int], None] = lambda done: None
) -> dict[str, list[float]]:
    """Milliseconds of every turn, ``rounds`` times one after the other, forwards and backwards."""
    columns: dict[str, list[float]] = {name: [] for name in turns}
    names = list(turns)
    gc.disable()
    try:
        for done in range(rounds):
            for name in names if done % 2 == 0 else reversed(names):
                columns[name].append(turns[name]() / 1e6)
            progress(done + 1)
    finally:
        gc.enable()
    return columns


def interleave(calls: Mapping[str, Call], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Milliseconds by ``clock`` of calls within this process that take turns, each called once before."""
    for call in calls.values():
        call()
    return take_turns({name: partial(timed, call, clock) for name, call in calls.items()}, rounds)


def warm_up(turns: Mapping[str, Turn], seconds: float) -> None:
    """Let each turn run for so long, once at least."""
    for turn in turns.values():
        end = time.perf_counter() + seconds
        turn()
        while time.perf_counter() < end:
            turn()


@contextmanager
def raised_priority() -> Generator[None]:
    """Other processes get out of the way, where the system allows to ask for that. Threads and children inherit it."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)
