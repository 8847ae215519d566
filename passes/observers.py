"""Observers of a pipeline: they verify, time, print and compare numerics between passes, so that passes need not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..ir.errors import PassError, VerifyError
from ..ir.graph import Graph, Value
from ..ir.op import Stage
from ..ir.text import print_graph
from ..ir.verifier import verify
from .base import Exactness, Feeds, Pass


class PipelineObserver:
    """Base of all observers; each method does nothing until a subclass says otherwise."""

    def before(self, pass_: Pass, graph: Graph) -> None:
        """Called before a pass runs."""

    def after(self, pass_: Pass, graph: Graph, changed: bool, seconds: float) -> None:
        """Called after a pass ran, with what it reported and how long it took."""

    def finish(self, graph: Graph) -> None:
        """Called when the pipeline is done."""


@dataclass(frozen=True)
class Verify(PipelineObserver):
    """Runs the verifier after every pass."""

    stage: Stage | None = None

    def after(self, pass_: Pass, graph: Graph, changed: bool, seconds: float) -> None:
        try:
            verify(graph, self.stage)
        except VerifyError as error:
            raise PassError(
                f"the graph is invalid after {pass_.name}: {error.what}", where=error.where, expected=error.expected
            ) from error


@dataclass
class Time(PipelineObserver):
    """How long each pass took; ``report`` receives the table at the end."""

    report: Callable[[str], None] | None = None
    rows: list[tuple[str, float, bool, int]] = field(default_factory=list)
    """(pass, seconds, changed, nodes after it)."""

    def after(self, pass_: Pass, graph: Graph, changed: bool, seconds: float) -> None:
        self.rows.append((pass_.name, seconds, changed, len(graph)))

    def finish(self, graph: Graph) -> None:
        if self.report:
            self.report(self.table())

    def table(self) -> str:
        """The passes with milliseconds, share and node counts."""
        total = sum(seconds for _, seconds, _, _ in self.rows)
        width = max([len(name) for name, *_ in self.rows], default=4)
        lines = [f"{'pass':<{width}}  {'ms':>9}  share  nodes"]
        for name, seconds, changed, nodes in self.rows:
            share = seconds / total if total else 0.0
            tail = "" if changed else "  (unchanged)"
            lines.append(f"{name:<{width}}  {seconds * 1e3:9.1f}  {share:5.0%}  {nodes:5}{tail}")
        return "\n".join([*lines, f"{'total':<{width}}  {total * 1e3:9.1f}"])


@dataclass(frozen=True)
class Print(PipelineObserver):
    """Prints the graph around passes: ``before`` and ``after`` name them, ``*`` stands for all."""

    report: Callable[[str], None]
    before_passes: frozenset[str] = frozenset()
    after_passes: frozenset[str] = frozenset({"*"})

    def before(self, pass_: Pass, graph: Graph) -> None:
        self._print("before", self.before_passes, pass_, graph)

    def after(self, pass_: Pass, graph: Graph, changed: bool, seconds: float) -> None:
        self._print("after", self.after_passes, pass_, graph)

    def _print(self, when: str, names: frozenset[str], pass_: Pass, graph: Graph) -> None:
        if "*" in names or pass_.name in names:
            self.report(f"// {when} {pass_.name}\n{print_graph(graph)}")


@dataclass
class NumericsCheck(PipelineObserver):
    """Translation validation: runs the graph before and after each pass and holds the pass to its exactness.

    An exact pass must keep every bit of the outputs, a close one every element within ``tolerance`` of the output's
    largest magnitude. What lossy passes cost is reported. ``feeds`` are for the network behind the passes that change
    what it takes, which are not checked.

    Raises:
        PassError: a pass broke its word; names the pass and the first value that diverged.
    """

    feeds: Sequence[Feeds]
    tolerance: float = 1e-4
    report: Callable[[str], None] | None = None
    _graph: Graph | None = None
    _outputs: list[dict[str, np.ndarray]] = field(default_factory=list)

    def before(self, pass_: Pass, graph: Graph) -> None:
        from ..ir.interpreter import run_graph

        if pass_.interface:
            return
        if self._graph is None:
            self._outputs = [run_graph(graph, feeds) for feeds in self.feeds]
        self._graph = graph.clone()

    def after(self, pass_: Pass, graph: Graph, changed: bool, seconds: float) -> None:
        from ..ir.interpreter import run_graph

        if pass_.interface:
            return
        outputs = [run_graph(graph, feeds) for feeds in self.feeds]
        for feeds, old, new in zip(self.feeds, self._outputs, outputs, strict=True):
            for name in old:
                self._compare(pass_, graph, feeds, name, (old[name], new[name]))
        self._outputs = outputs

    def _compare(self, pass_: Pass, graph: Graph, feeds: Feeds, name: str, pair: tuple[np.ndarray, np.ndarray]) -> None:
        if pass_.exactness is Exactness.LOSSY:
            if self.report:
                self.report(f"{pass_.name}: {name} {describe_error(*pair)}")
        elif not agree(*pair, 0.0 if pass_.exactness is Exactness.EXACT else self.tolerance):
            value = self._first_divergence(pass_, graph, feeds)
            raise PassError(
                f"{pass_.name} claims to be {pass_.exactness.value} but changed output {name}: {describe_error(*pair)}",
                where=f"first diverging value %{value.name}, made at {_origin(value)}" if value else None,
            )

    def _first_divergence(self, pass_: Pass, graph: Graph, feeds: Feeds) -> Value | None:
        """The first value, in the order of the new graph, that the old graph has too and that differs."""
        assert self._graph is not None
        old = _values_by_name(self._graph, feeds)
        tolerance = 0.0 if pass_.exactness is Exactness.EXACT else self.tolerance
        diverging: list[Value] = []

        def look(value: Value, array: np.ndarray) -> None:
            before = old.get(value.name)
            if before is None or diverging or before.shape != array.shape or before.dtype != array.dtype:
                return
            if not agree(before, array, tolerance):
                diverging.append(value)

        _observe(graph, feeds, look)
        return diverging[0] if diverging else None


def agree(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    """Equal, NaN included; floats within ``tolerance`` of the largest finite magnitude of ``a``."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if tolerance == 0.0 or a.dtype.kind in "iub":
        return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == "f"))
    x, y = a.astype(np.float64), b.astype(np.float64)
    magnitude = np.abs(x[np.isfinite(x)]).max(initial=0.0)
    return bool(np.allclose(x, y, rtol=0.0, atol=tolerance * max(magnitude, 1e-6), equal_nan=True))


def sqnr(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal to quantization-noise ratio in decibels; infinite when nothing differs."""
    x, y = reference.astype(np.float64), other.astype(np.float64)
    noise = float(np.square(x - y).sum())
    signal = float(np.square(x).sum())
    if noise == 0.0:
        return float("inf")
    return 10.0 * float(np.log10(signal / noise)) if signal else float("-inf")


def describe_error(a: np.ndarray, b: np.ndarray) -> str:
    """How far ``b`` is from ``a``, for people."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return f"{b.dtype}{list(b.shape)} instead of {a.dtype}{list(a.shape)}"
    worst = np.abs(a.astype(np.float64) - b.astype(np.float64)).max(initial=0.0)
    return f"SQNR {sqnr(a, b):.1f} dB, largest error {worst:.3g}"


def _values_by_name(graph: Graph, feeds: Feeds) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def keep(value: Value, array: np.ndarray) -> None:
        found[value.name] = array

    _observe(graph, feeds, keep)
    return found


def _observe(graph: Graph, feeds: Feeds, look: Callable[[Value, np.ndarray], None]) -> None:
    from ..ir.interpreter import run_graph, to_numpy

    run_graph(graph, feeds, lambda value, tensor: look(value, to_numpy(tensor)))


def _origin(value: Value) -> str:
    return value.producer.where if value.producer else "the graph's inputs"
