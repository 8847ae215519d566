"""Find the range of every observed value by running the graph on calibration data."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ..ir.errors import CalibrationError, InputError
from ..ir.graph import Graph, Node, Value
from ..ir.interpreter import run_graph
from ..ir.ops.norm import Softmax
from ..ir.ops.quantize import Observer
from .base import Exactness, Feeds, Pass, PassContext
from .calibration.importance import Importance, importance_of
from .calibration.methods import Statistic, new_statistic
from .calibration.ranges import check_names
from .registry import register_pass

SOFTMAX_DEPTH = 12.0
"""Elements this far below the largest of their softmax weigh less than 1e-5, whatever they are exactly."""


@register_pass
@dataclass(frozen=True)
class Calibrate(Pass):
    """Run the graph on calibration batches and write the range found into every observer.

    Batches stream through; what is remembered of each value has constant size. ``batches`` bounds how many are used
    (all of them by default). Ranges the user gave replace what the data says; when they cover every value, no data
    is needed.
    """

    batches: int | None = None

    name: ClassVar[str] = "calibrate"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Set the bounds of all observers.

        Raises:
            CalibrationError: no data, data that does not fit the inputs, or NaN in an activation.
            UsageError: a given range names no observed value.
        """
        observers = {n.output: n for n in graph.nodes if isinstance(n.op, Observer)}
        check_names(context.ranges, [_observer(n).key for n in observers.values()])
        wanted: dict[Value, Statistic] = {}
        for value, node in observers.items():
            op = _observer(node)
            if op.key in context.ranges:
                node.op = dataclasses.replace(op, bounds=context.ranges[op.key])
            else:
                wanted[value] = new_statistic(op.method)
        if wanted:
            self._run(graph, wanted, context)
        for value, statistic in wanted.items():
            _write_bounds(observers[value], statistic)
        return bool(observers)

    def _run(self, graph: Graph, wanted: dict[Value, Statistic], context: PassContext) -> None:
        if context.calibration is None:
            raise CalibrationError(
                f"{len(wanted)} values need a range, and there is no calibration data",
                hint="give calibration inputs, or a range for every value",
            )
        total = len(context.calibration) if isinstance(context.calibration, Sized) else None
        total = self.batches if total is None else min(total, self.batches or total)
        importance = {value: importance_of(value) for value in wanted}
        done = 0
        for done, feeds in enumerate(self._limited(context.calibration), 1):
            _run_batch(graph, feeds, wanted, importance, done)
            context.progress("calibrate", done, total)
        if not done:
            raise CalibrationError("the calibration data is empty", expected="at least one batch")

    def _limited(self, batches: Iterable[Feeds]) -> Iterable[Feeds]:
        return itertools.islice(batches, self.batches)


def _run_batch(
    graph: Graph,
    feeds: Feeds,
    wanted: dict[Value, Statistic],
    importance: dict[Value, Importance | None],
    number: int,
) -> None:
    axes = {value: _softmax_axis(value) for value in wanted}

    def observe(value: Value, tensor: torch.Tensor) -> None:
        statistic = wanted.get(value)
        if statistic is not None:
            axis = axes[value]
            statistic.update(tensor if axis is None else _above_underflow(tensor, axis), importance[value])

    try:
        run_graph(graph, feeds, observe)
    except InputError as error:
        raise CalibrationError(
            f"calibration batch {number} does not fit: {error.what}", expected=error.expected
        ) from error
    except FloatingPointError:
        raise _nan_error(graph, feeds, number) from None


def _softmax_axis(value: Value) -> int | None:
    """The axis along which all users of ``value`` are softmax; None when some are not."""
    axes = {user.op.axis if isinstance(user.op, Softmax) else None for user in value.users}
    return axes.pop() if len(axes) == 1 else None


def _above_underflow(x: torch.Tensor, axis: int) -> torch.Tensor:
    """``x`` without what softmax turns into nothing: masks of -10000 would take the whole grid."""
    return torch.maximum(x, x.amax(axis, keepdim=True) - SOFTMAX_DEPTH)


def _nan_error(graph: Graph, feeds: Feeds, number: int) -> CalibrationError:
    """Name the first value that holds a NaN, by running the batch once more."""
    for name, array in feeds.items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            return CalibrationError(f"input {name} of calibration batch {number} holds NaN", where=name)
    culprits: list[Value] = []

    def look(value: Value, tensor: torch.Tensor) -> None:
        if not culprits and tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            culprits.append(value)

    run_graph(graph, feeds, look)
    producer = culprits[0].producer if culprits else None
    what = f"{producer.op.name} makes NaN" if producer else "an activation is NaN"
    return CalibrationError(
        f"{what} from calibration batch {number}",
        where=producer.where if producer else None,
        hint="check the weights for NaN, and the preprocessing of the data",
    )


def _write_bounds(node: Node, statistic: Statistic) -> None:
    op = _observer(node)
    if not statistic.seen:
        raise CalibrationError(
            f"no finite element of %{op.key} was ever seen",
            where=node.where,
            hint=f"give its range: {op.key}=MIN:MAX",
        )
    low, high = statistic.result(op.symmetric)
    node.op = dataclasses.replace(op, bounds=(low, high))


def _observer(node: Node) -> Observer:
    assert isinstance(node.op, Observer)
    return node.op
