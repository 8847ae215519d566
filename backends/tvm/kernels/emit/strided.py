"""Emission of the loops of `Loops`. Imports tvm."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tvm import tirx

from ...builder import Builder, Expr, i64
from ..strided import RUN, Loops

#: Emits a block: the element index of its start in every operand, and how many elements it has.
Body = Callable[[list[Expr], int], None]


def emit_loops(
    b: Builder, loops: Loops, step: int, body: Body, *, broadcasts: bool = False, unit: int | None = None
) -> None:
    """All tasks of a kernel: `body` for blocks of `step` elements along the last axis, or of one if it is scattered.

    `broadcasts` says that the body knows what to do with an operand that is constant along the last axis.
    The last block of a longer run is moved back to end with it, so blocks may overlap: operands must not change. It is
    smaller, of as many `unit` as it needs, where half a block is enough.
    """
    with b.tasks() as task, ExitStack() as stack:
        task, run = b.split(task, loops.runs)
        starts = task_starts(b, loops, task)
        for axis in range(loops.task_axes, len(loops.shape) - 1):
            index = stack.enter_context(b.loop(0, loops.shape[axis]))
            starts = [_moved(b, start, index, row[axis]) for start, row in zip(starts, loops.strides, strict=True)]
        if loops.scalar or not (broadcasts or loops.contiguous):
            step = 1
        _run(b, loops, starts, run, step, unit, body)


def task_starts(b: Builder, loops: Loops, task: Expr) -> list[Expr]:
    """Where a task begins in every operand."""
    starts: list[Expr] = [i64(0)] * len(loops.strides)
    for axis in range(loops.task_axes):
        behind = math.prod(loops.shape[axis + 1 : loops.task_axes])
        index = task if behind == 1 else tirx.floordiv(task, i64(behind))
        if axis:
            index = tirx.floormod(index, i64(loops.shape[axis]))
        index = b.let(index)
        starts = [_moved(b, start, index, row[axis]) for start, row in zip(starts, loops.strides, strict=True)]
    return starts


def _moved(b: Builder, start: Expr, index: Expr, stride: int) -> Expr:
    return b.let(start + index * stride) if stride else start


def _run(b: Builder, loops: Loops, starts: Sequence[Expr], run: Expr, step: int, unit: int | None, body: Body) -> None:
    """One run, or part number `run` of a long one; the last part takes what is left."""
    count = loops.inner

    def block(position: Expr, size: int) -> None:
        body([_moved(b, start, position, s) for start, s in zip(starts, loops.inner_strides, strict=True)], size)

    if count <= step:
        block(i64(0), count)
        return
    tail = -(-(count % step) // unit) * unit if unit and count % step <= step // 2 else 0
    blocks = count // step if tail else -(-count // step)
    first, last = i64(0), i64(blocks)
    if loops.runs > 1:
        first = b.let(run * (RUN // step))
        last = b.let(tirx.Select(run == loops.runs - 1, i64(blocks), first + RUN // step))
    with b.loop(first, last) as number:
        block(number * step if tail else block_start(b, number, step, count), step)
    if tail:
        with b.when(run == loops.runs - 1):
            block(i64(count - tail), tail)


def block_start(b: Builder, number: Expr, step: int, count: int) -> Expr:
    """Where block `number` of `step` elements begins; the last one is moved back to end with the `count` elements."""
    if count <= step:
        return i64(0)
    return b.let(number * step if count % step == 0 else tirx.Min(number * step, i64(count - step)))
