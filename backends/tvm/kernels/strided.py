"""Loops over strided tensors: how kernels that treat every element alike walk their operands. No tvm."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

#: Tasks that a kernel is divided into, when it has that many independent parts.
TASKS = 16
#: Elements of one task where a single run is divided; a multiple of every block.
RUN = 4096

Strides = tuple[int, ...]


def dense_strides(shape: Sequence[int]) -> Strides:
    """The strides, in elements, of a contiguous row-major tensor."""
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


@dataclass(frozen=True)
class Loops:
    """An iteration space in its simplest form: no axis of size one, none that continues its neighbour.

    Axes are ordered by the distance of their elements in the last operand, which is the output. `strides` has one row
    for each operand. The first `task_axes` axes are divided into tasks; so is the last one, into `runs` runs, where
    the others do not suffice.
    """

    shape: tuple[int, ...]
    strides: tuple[Strides, ...]
    task_axes: int
    runs: int

    @property
    def tasks(self) -> int:
        return math.prod(self.shape[: self.task_axes]) * self.runs

    @property
    def inner(self) -> int:
        """Elements of the last axis."""
        return self.shape[-1]

    @property
    def inner_strides(self) -> Strides:
        """Distance between neighbours of the last axis, for each operand."""
        return tuple(row[-1] for row in self.strides)

    @property
    def contiguous(self) -> bool:
        """Whether every operand's elements are adjacent along the last axis."""
        return all(stride == 1 for stride in self.inner_strides)

    @property
    def scalar(self) -> bool:
        """Whether some operand's last axis is neither contiguous nor constant: one element at a time."""
        return any(stride not in (0, 1) for stride in self.inner_strides) or self.inner_strides[-1] == 0

    def whole_blocks(self, step: int) -> bool:
        """Whether blocks of `step` elements end where every operand does, so that whole vectors stay inside."""
        return self.contiguous and self.inner >= step

    @property
    def one_by_one(self) -> bool:
        """Whether blocks hold a single element."""
        return self.scalar or self.inner == 1


@functools.cache
def plan_loops(shape: Strides, *strides: Strides) -> Loops:
    """The loops over `shape` with operands of these strides; the output comes last."""
    rows = [(size, *(operand[axis] for operand in strides)) for axis, size in enumerate(shape) if size != 1]
    rows.sort(key=lambda row: -row[-1])
    merged: list[tuple[int, ...]] = []
    for row in rows:
        if merged and all(far == row[0] * near for far, near in zip(merged[-1][1:], row[1:], strict=True)):
            row = (merged.pop()[0] * row[0], *row[1:])
        merged.append(row)
    if not merged:
        merged.append((1, *(1 for _ in strides)))
    sizes = tuple(row[0] for row in merged)
    columns = tuple(tuple(row[1 + operand] for row in merged) for operand in range(len(strides)))
    task_axes, outer = 0, 1
    while outer < TASKS and task_axes < len(sizes) - 1:
        outer *= sizes[task_axes]
        task_axes += 1
    runs = 1 if outer >= TASKS else max(1, sizes[-1] // RUN)
    return Loops(sizes, columns, task_axes, runs)


def plan_rows(shape: Strides, *strides: Strides) -> Loops:
    """The loops over rows, of which a kernel treats each as a whole: every one is a task."""
    loops = plan_loops(shape, *strides)
    return Loops((*loops.shape, 1), tuple((*row, 1) for row in loops.strides), len(loops.shape), 1)
