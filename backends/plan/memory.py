"""Arena offsets: storages whose lives do not overlap share bytes."""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable

from .views import Storage

ALIGNMENT = 64


def assign_offsets(storages: Iterable[Storage]) -> int:
    """Give each storage an offset, largest first, at the lowest place free during its life; returns the arena's bytes.

    The greedy-by-size heuristic of Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference"
    (2020). Only storages that some step touches count.
    """
    live = [s for s in storages if s.first is not None]
    by_step: dict[int, list[tuple[int, int]]] = {}
    total = 0
    for storage in sorted(live, key=lambda s: (-s.bytes, s.first or 0)):
        assert storage.first is not None
        steps = range(storage.first, storage.last + 1)
        taken = sorted({span for step in steps for span in by_step.get(step, ())})
        storage.offset = _lowest_gap(taken, storage.bytes)
        end = storage.offset + aligned(storage.bytes)
        for step in steps:
            insort(by_step.setdefault(step, []), (storage.offset, end))
        total = max(total, end)
    return total


def most_alive(storages: Iterable[Storage]) -> int:
    """The most bytes of storages, each aligned, that live during one step: what no placement goes below."""
    alive: dict[int, int] = {}
    for storage in storages:
        if storage.first is not None:
            for step in range(storage.first, storage.last + 1):
                alive[step] = alive.get(step, 0) + aligned(storage.bytes)
    return max(alive.values(), default=0)


def _lowest_gap(taken: list[tuple[int, int]], size: int) -> int:
    offset = 0
    for start, end in taken:
        if offset + size <= start:
            break
        offset = max(offset, end)
    return offset


def aligned(size: int) -> int:
    """``size`` rounded up to the alignment of arena buffers."""
    return -(-size // ALIGNMENT) * ALIGNMENT
