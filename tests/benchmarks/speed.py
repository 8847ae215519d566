"""Latency of bundles in turn with ONNX Runtime, so that all meet the same state of the machine."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import numpy as np
import octavo
from octavo.backends.bench import pair_ratio
from octavo.backends.targets import host_levels
from zoo import ZooModel, peers, zoo_model
from zoo.registry import Inputs

from .building import build
from .subjects import SUBJECTS

MODELS: Mapping[str, str] = {
    "mobilenet_v2": "MobileNetV2",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "ppocr_cls": "PP-OCRv4 line direction",
    "ppocr_rec": "PP-OCRv4 recognition",
    "ppocr_det": "PP-OCRv4 detection",
    "page_orientation": "page orientation",
    "crepe_tiny": "CREPE tiny",
    "minilm_l6": "MiniLM-L6",
}
CALIBRATION = 100
"""Calls for calibration, the same number for both compilers."""

Call = Callable[[], object]


def measure(
    name: str, *, rounds: int, threads: Sequence[int], levels: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One record for each number of threads.

    Args:
        rounds: how often every runner has its turn.
        levels: instruction set levels of the bundle; by default all that this machine has.
    """
    model = zoo_model(name)
    chosen = [level for level in host_levels() if levels is None or level in levels]
    calibration = calibration_of(model)
    folder = build(model, lambda: calibration, features=chosen)
    inputs = model.sample(3)
    return [_measure(model, folder, calibration, inputs, chosen, count, rounds) for count in threads]


def calibration_of(model: ZooModel) -> list[Inputs]:
    """Inputs like those of the accuracy benchmark; the untrained networks have only what the zoo draws."""
    subject = SUBJECTS.get(model.name)
    return subject.calibration() if subject else model.inputs(16)


def _measure(
    model: ZooModel,
    folder: Any,
    calibration: list[Inputs],
    inputs: Inputs,
    levels: Sequence[str],
    count: int,
    rounds: int,
) -> dict[str, Any]:
    with ExitStack() as stack:
        # Before anything starts threads: they inherit it.
        stack.enter_context(raised_priority())
        calls: dict[str, Call] = {}
        for level in levels:
            bundle = stack.enter_context(octavo.load(folder, threads=count, level=level))
            feeds = dict(zip([spec.name for spec in bundle.inputs], inputs, strict=True))
            calls[level] = _bind(bundle.run, feeds)
        calls["int8"] = _bind(peers.answers, peers.int8_session(model, calibration, count), inputs)
        calls["float"] = _bind(peers.answers, peers.float_session(model, count), inputs)
        clock = time.process_time_ns if count == 1 else time.perf_counter_ns
        times = interleave(calls, rounds, clock)
    best = levels[-1]
    record: dict[str, Any] = {"threads": count, "rounds": rounds, "level": best, "runners": {}}
    for runner, column in times.items():
        record["runners"][runner] = {"median_ms": float(np.median(column)), "best_ms": min(column)}
    record["ratios"] = {
        f"{peer}/{level}": _ratio(times[peer], times[level]) for level in levels for peer in ("int8", "float")
    }
    return record


def _bind(function: Callable[..., object], *arguments: Any) -> Call:
    return lambda: function(*arguments)


def _ratio(numerator: Sequence[float], denominator: Sequence[float]) -> list[float]:
    ratio = pair_ratio(numerator, denominator)
    return [ratio.median, ratio.low, ratio.high]


@contextmanager
def raised_priority() -> Generator[None]:
    """Other processes get out of the way, where the system allows to ask for that."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def interleave(calls: Mapping[str, Call], rounds: int, clock: Callable[[], int]) -> dict[str, list[float]]:
    """Milliseconds of every call, ``rounds`` times in turn, forwards and backwards.

    ``clock`` gives nanoseconds: one thread is best timed by the processor time of the process, which leaves out what
    other processes take. A turn is two calls, of which the second counts: the first finds the caches full of somebody
    else's weights, and threads of the runner before that still spin.
    """
    columns: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    gc.disable()
    try:
        for turn in range(rounds):
            for name in list(calls) if turn % 2 == 0 else list(calls)[::-1]:
                calls[name]()
                start = clock()
                calls[name]()
                columns[name].append((clock() - start) / 1e6)
    finally:
        gc.enable()
    return columns
