"""Find the range of every observed value by running the graph on calibration data."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sized
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
from .calibration.elements import Elements
from .calibration.importance import Importance, importance_of
from .calibration.methods import Statistic, new_statistics
from .calibration.ranges import check_names
from .calibration.selection import Outputs, Samples, choose_method, set_bounds
from .calibration.thresholds import Bounds
from .registry import register_pass

Statistics = Mapping[str, Statistic]
"""What is remembered of one value, by method."""

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
        observers = [n for n in graph.nodes if isinstance(n.op, Observer)]
        check_names(context.ranges, [_observer(n).key for n in observers])
        wanted: dict[Value, Statistics] = {}
        for node in observers:
            op = _observer(node)
            if op.key in context.ranges:
                node.op = dataclasses.replace(op, bounds=context.ranges[op.key])
            else:
                wanted[node.output] = new_statistics(op.method)
        if wanted:
            samples = self._run(graph, wanted, context)
            _write_bounds(graph, wanted, samples, context)
        return bool(observers)

    def _run(self, graph: Graph, wanted: dict[Value, Statistics], context: PassContext) -> Samples:
        if context.calibration is None:
            raise CalibrationError(
                f"{len(wanted)} values need a range, and there is no calibration data",
                hint="give calibration inputs, or a range for every value",
            )
        total = len(context.calibration) if isinstance(context.calibration, Sized) else None
        total = self.batches if total is None else min(total, self.batches or total)
        importance = {value: importance_of(value) for value in wanted}
        samples = Samples(total)
        compete = any(len(statistics) > 1 for statistics in wanted.values())
        done = 0
        for done, feeds in enumerate(self._limited(context.calibration), 1):
            outputs = _run_batch(graph, feeds, wanted, importance, done)
            if compete:
                samples.offer(done - 1, feeds, outputs)
            context.progress("calibrate", done, total)
        if not done:
            raise CalibrationError("the calibration data is empty", expected="at least one batch")
        return samples

    def _limited(self, batches: Iterable[Feeds]) -> Iterable[Feeds]:
        return itertools.islice(batches, self.batches)


def _run_batch(
    graph: Graph,
    feeds: Feeds,
    wanted: dict[Value, Statistics],
    importance: dict[Value, Importance | None],
    number: int,
) -> Outputs:
    axes = {value: _softmax_axis(value) for value in wanted}

    def observe(value: Value, tensor: torch.Tensor) -> None:
        if value in wanted:
            axis = axes[value]
            x = tensor if axis is None else _above_underflow(tensor, axis)
            elements = Elements.of(x, importance[value])
            for statistic in wanted[value].values():
                statistic.update(elements)

    try:
        return run_graph(graph, feeds, observe)
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


def _write_bounds(graph: Graph, wanted: dict[Value, Statistics], samples: Samples, context: PassContext) -> None:
    """Give every observer its range; where methods compete, that of the best."""
    candidates = {node: _ranges(node, statistics) for value, statistics in wanted.items() if (node := value.producer)}
    first, *others = dict.fromkeys(method for ranges in candidates.values() for method in ranges)
    if others:
        found = choose_method(graph, candidates, samples, context.progress)
        first = next(iter(found))
        figures = ", ".join(f"{method} {sqnr:.1f} dB" for method, sqnr in found.items())
        context.report(f"ranges by {first}: {figures} at the outputs of {len(samples.kept)} calibration batches")
    set_bounds(candidates, first)


def _ranges(node: Node, statistics: Statistics) -> dict[str, Bounds]:
    op = _observer(node)
    if not all(statistic.seen for statistic in statistics.values()):
        raise CalibrationError(
            f"no finite element of %{op.key} was ever seen",
            where=node.where,
            hint=f"give its range: {op.key}=MIN:MAX",
        )
    return {method: statistic.result(op.symmetric) for method, statistic in statistics.items()}


def _observer(node: Node) -> Observer:
    assert isinstance(node.op, Observer)
    return node.op
