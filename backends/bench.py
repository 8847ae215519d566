"""How fast a bundle runs, alone or interleaved with ONNX Runtime so that both meet the same state of the machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import ModelError, ToolchainError
from .bundle.loader import Bundle, load
from .bundle.program import Signature

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Latencies of one runner in milliseconds, in the order they were measured."""

    name: str
    threads: int
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


@dataclass(frozen=True)
class BenchResult:
    """Timings at one number of threads; ``ratio`` only beside another runner."""

    threads: int
    level: str
    octavo: Timing
    other: Timing | None = None
    ratio: Ratio | None = None


def random_inputs(signature: Signature, seed: int = 0) -> dict[str, np.ndarray]:
    """Normal floats, and small non-negative integers: token ids and masks stay in range."""
    random = np.random.default_rng(seed)
    feeds: dict[str, np.ndarray] = {}
    for spec in signature.inputs:
        dtype = np.dtype(spec.dtype)
        drawn = random.normal(size=spec.shape) if dtype.kind == "f" else random.integers(0, 2, spec.shape)
        feeds[spec.name] = np.asarray(drawn).astype(dtype)
    return feeds


def bench(
    path: Path,
    *,
    threads: int = 1,
    runs: int = 50,
    warmup: float = 0.5,
    against: Path | None = None,
    level: str | None = None,
    plan: int = 0,
    progress: Callable[[int], None] = lambda done: None,
) -> BenchResult:
    """Time a bundle, and ONNX Runtime on the model ``against`` in turn with it.

    Args:
        runs: measured runs of each.
        warmup: seconds of unmeasured runs before.
        plan: which of the bundle's input shapes to use.

    Raises:
        ModelError: ONNX Runtime cannot load or run the model.
        ToolchainError: ONNX Runtime is not installed.
    """
    with load(path, threads=threads, level=level) as bundle:
        feeds = random_inputs(bundle.manifest.signatures[plan])
        calls: list[Call] = [lambda: bundle.run(feeds)]
        if against is not None:
            calls.append(_onnxruntime(against, feeds, threads))
        _warm_up(calls, warmup)
        columns = _measure(calls, runs, progress)
        return _result(bundle, threads, columns)


def _result(bundle: Bundle, threads: int, columns: Sequence[Sequence[float]]) -> BenchResult:
    octavo = Timing("octavo", threads, tuple(columns[0]))
    if len(columns) == 1:
        return BenchResult(threads, bundle.level, octavo)
    other = Timing("onnxruntime", threads, tuple(columns[1]))
    return BenchResult(threads, bundle.level, octavo, other, pair_ratio(columns[1], columns[0]))


def pair_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> Ratio:
    """The median of the pairs' ratios and its distribution-free 95 % interval (order statistics of a binomial)."""
    ratios = np.sort(np.asarray(numerator, np.float64) / np.asarray(denominator, np.float64))
    count = len(ratios)
    margin = 1.96 * math.sqrt(count) / 2
    low, high = max(0, math.floor(count / 2 - margin)), min(count - 1, math.ceil(count / 2 + margin))
    return Ratio(float(np.median(ratios)), float(ratios[low]), float(ratios[high]))


def _warm_up(calls: Sequence[Call], seconds: float) -> None:
    for call in calls:
        end = time.perf_counter() + seconds
        call()
        while time.perf_counter() < end:
            call()


def _measure(calls: Sequence[Call], runs: int, progress: Callable[[int], None]) -> list[list[float]]:
    columns: list[list[float]] = [[] for _ in calls]
    for done in range(runs):
        # Whoever comes second finds other caches: take turns.
        order = range(len(calls)) if done % 2 == 0 else reversed(range(len(calls)))
        for index in order:
            start = time.perf_counter_ns()
            calls[index]()
            columns[index].append((time.perf_counter_ns() - start) / 1e6)
        progress(done + 1)
    return columns


def _onnxruntime(path: Path, feeds: Mapping[str, np.ndarray], threads: int) -> Call:
    try:
        import onnxruntime
    except ImportError as error:
        raise ToolchainError("ONNX Runtime is not installed", hint="pip install onnxruntime") from error
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    try:
        session: Any = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]
        # Inputs go by position: octavo spells names as identifiers.
        given = dict(zip(names, feeds.values(), strict=True))
        session.run(None, given)
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"ONNX Runtime does not run the model: {reason}", where=str(path)) from error
    return lambda: session.run(None, given)
