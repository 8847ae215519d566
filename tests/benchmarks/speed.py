"""Latency of bundles in turn with ONNX Runtime and OpenVINO, so that all meet the same state of the machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import octavo
from octavo.backends.bench import pair_ratio, raised_priority
from octavo.backends.bench.peers import ONEDNN_ISA, RUNTIMES, PeerFiles, check_installed, chosen_peers
from octavo.backends.bench.session import start_runners
from octavo.backends.bench.timing import Turn, clock_for, settling_for, take_turns, timed, warm_up
from octavo.backends.targets import host_levels
from octavo.ir.errors import ModelError
from zoo import ZooModel, peers, zoo_model
from zoo.registry import Inputs

from .building import build
from .subjects import SUBJECTS

MODELS: Mapping[str, str] = {
    "mobilenet_v2": "MobileNetV2",
    "efficientnet_lite0": "EfficientNet-Lite0",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "resnext50": "ResNeXt-50 32x4d",
    "convnext_tiny": "ConvNeXt-T",
    "vgg19": "VGG-19",
    "densenet121": "DenseNet-121",
    "squeezenet": "SqueezeNet",
    "inception_v2": "Inception v2",
    "ppocr_cls": "PP-OCRv4 line direction",
    "ppocr_rec": "PP-OCRv4 recognition",
    "ppocr_det": "PP-OCRv4 detection",
    "page_orientation": "page orientation",
    "crepe_tiny": "CREPE tiny",
    "minilm_l6": "MiniLM-L6",
}
ALONE = "one thread"
"""The runner that is the bundle on one thread, where others have more."""
CALIBRATION = 100
"""Calls for calibration, the same number for both compilers."""


def measure(
    name: str, *, rounds: int, threads: Sequence[int], levels: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """One record for each number of threads.

    Args:
        rounds: how often every runner has its turn.
        levels: instruction set levels of the bundle; by default all that this machine has.
    """
    for runtime in RUNTIMES:
        check_installed(runtime)
    model = zoo_model(name)
    chosen = [level for level in host_levels() if levels is None or level in levels]
    calibration = calibration_of(model)
    folder = build(model, lambda: calibration, features=chosen)
    files = peers.files(model, calibration)
    return [_measure(folder, files, model.sample(3), chosen, count, rounds) for count in threads]


def calibration_of(model: ZooModel) -> list[Inputs]:
    """Inputs like those of the accuracy benchmark; the untrained networks have only what the zoo draws."""
    subject = SUBJECTS.get(model.name)
    return subject.calibration() if subject else model.inputs(16)


def held(peer: str, level: str) -> str:
    """The name of a peer that uses no instructions beyond a level."""
    return f"{peer} at {level}"


def _own(stack: ExitStack, folder: Path, inputs: Inputs, level: str, threads: int) -> Callable[[], Any]:
    """Runs the bundle."""
    bundle = stack.enter_context(octavo.load(folder, threads=threads, level=level))
    return bundle.bind(dict(zip([spec.name for spec in bundle.inputs], inputs, strict=True))).run


def _measure(
    folder: Path, files: PeerFiles, inputs: Inputs, levels: Sequence[str], count: int, rounds: int
) -> dict[str, Any]:
    clock = clock_for(count)
    turns: dict[str, Turn] = {}
    versus: dict[str, Sequence[str]] = {}
    with ExitStack() as stack:
        # Before anything starts threads or processes: they inherit it.
        stack.enter_context(raised_priority())
        for level in levels:
            turns[level] = partial(timed, _own(stack, folder, inputs, level, count), clock, settling_for(count))
        if count > 1:
            turns[ALONE] = partial(timed, _own(stack, folder, inputs, levels[-1], 1), clock, settling_for(count))
        free, failures = start_runners(stack, chosen_peers(tuple(RUNTIMES), files.ops), files, inputs, count, None)
        versus |= {peer.name: levels for peer in free}
        turns |= {peer.name: runner.turn for peer, runner in free.items()}
        for level in (level for level in levels if level in ONEDNN_ISA):
            slower = chosen_peers(("openvino",), files.ops, level)
            try:
                limited, failed = start_runners(stack, slower, files, inputs, count, level)
            except ModelError as error:
                limited, failed = {}, dict.fromkeys((peer.name for peer in slower), error.what)
            versus |= {held(peer.name, level): [level] for peer in limited}
            turns |= {held(peer.name, level): runner.turn for peer, runner in limited.items()}
            failures |= {held(peer, level): reason for peer, reason in failed.items()}
        warm_up(turns, 0)
        times = take_turns(turns, rounds)
    return {
        "threads": count,
        "rounds": rounds,
        "level": levels[-1],
        "runners": {name: {"median_ms": float(np.median(t)), "best_ms": min(t)} for name, t in times.items()},
        "ratios": {
            f"{peer}/{level}": pair_ratio(times[peer], times[level]).as_list()
            for peer in versus
            for level in versus[peer]
        },
        "failures": failures,
        **({"second_thread": pair_ratio(times[ALONE], times[levels[-1]]).as_list()} if count > 1 else {}),
    }
