"""Blocks of zero weights: from which density on the dense kernel is faster, and what whole networks gain."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import octavo
from bundle.programs import require_arm
from kernels.conv_cases import conv_case, conv_spec
from kernels.harness import QEMU_CPUS, Case, bind_kernels, count_instructions
from octavo.backends.bench import interleave, pair_ratio, raised_priority
from octavo.backends.targets import host_levels
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.sparse import SparseConvSpec
from zoo import zoo_model

from .building import build
from .speed import calibration_of

LAYERS: Mapping[str, ConvSpec] = {
    "3x3, 64 to 64, 56x56": conv_spec((56, 56), (64, 64), (3, 3)),
    "3x3, 128 to 128, 28x28": conv_spec((28, 28), (128, 128), (3, 3)),
    "3x3, 256 to 256, 14x14": conv_spec((14, 14), (256, 256), (3, 3)),
    "3x3, 512 to 512, 7x7": conv_spec((7, 7), (512, 512), (3, 3)),
    "3x3 by 2, 64 to 128, 28x28": conv_spec((28, 28), (64, 128), (3, 3), stride_h=2, stride_w=2),
    "1x1, 192 to 32, 28x28": conv_spec((28, 28), (192, 32)),
    "1x1, 64 to 384, 14x14": conv_spec((14, 14), (64, 384)),
    "1x1, 1024 to 256, 14x14": conv_spec((14, 14), (1024, 256)),
    "linear, 384 to 1536, 128 rows": ConvSpec.matmul(128, 384, 1536),
    "linear, 2048 to 1000, 1 row": ConvSpec.matmul(1, 2048, 1000),
}
DENSITIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Shares of blocks that are not zero."""
LEAST_MS = 0.5
"""Milliseconds of one turn: short kernels are called several times."""

NETWORKS = ("resnet18",)
ZEROS = (0.75, 0.9)
NETWORK_CALIBRATION = 8
"""Inputs: ranges hardly matter for times."""
LEVELS = tuple(level for level in ISAS if level in QEMU_CPUS or level in host_levels())
"""ARM levels under QEMU, and those of x86 that this machine has."""


def measure(level: str, rounds: int) -> dict[str, Any]:
    """By layer: the sparse kernel's cost by the dense kernel's at each density, and where they meet.

    On x86 levels cost is processor time, a median over rounds; on ARM levels guest instructions.
    """
    costs = _instructions if level in QEMU_CPUS else _times
    found: dict[str, Any] = {}
    for name, spec in LAYERS.items():
        ratios = costs(level, _cases(level, spec), rounds)
        found[name] = {"ratios": dict(zip(map(str, DENSITIES), ratios, strict=True)), "break_even": meeting(ratios)}
    return found


def measure_network(name: str, rounds: int) -> dict[str, Any]:
    """By share of zeros: the dense network's time by the sparse one's on each level, on one thread, and MB of weights.

    Magnitudes choose the blocks, and nothing is trained: the answers are worth nothing, the times are.
    """
    model = zoo_model(name)
    calibration = calibration_of(model)[:NETWORK_CALIBRATION]
    levels = [level for level in LEVELS if level not in QEMU_CPUS]
    pipelines = {"0": "int8"} | {f"{zeros:g}": f"sparsify{{pattern=block:16x4,ratio={zeros}}},int8" for zeros in ZEROS}
    folders = {
        zeros: build(model, lambda: calibration, features=levels, pipeline=pipeline)
        for zeros, pipeline in pipelines.items()
    }
    found: dict[str, Any] = {
        zeros: {"weights_mb": (folder / "weights.bin").stat().st_size / 1e6, "ratios": {}}
        for zeros, folder in folders.items()
    }
    inputs = model.sample(3)
    for level in levels:
        with ExitStack() as stack:
            stack.enter_context(raised_priority())
            calls: dict[str, Callable[[], object]] = {}
            for zeros, folder in folders.items():
                bundle = stack.enter_context(octavo.load(folder, threads=1, level=level))
                feeds = dict(zip([spec.name for spec in bundle.inputs], inputs, strict=True))
                calls[zeros] = functools.partial(bundle.run, feeds)
            times = interleave(calls, rounds, time.process_time_ns)
        for zeros in folders:
            found[zeros]["ratios"][level] = pair_ratio(times["0"], times[zeros]).as_list()
    return found


def meeting(ratios: Sequence[float]) -> float:
    """The density at which the ratio becomes 1, between measured ones by a line; 1 when it stays below."""
    above = next((at for at, ratio in enumerate(ratios) if ratio > 1), None)
    if above is None:
        return 1.0
    if above == 0:
        return DENSITIES[0] / ratios[0]
    low, high = ratios[above - 1], ratios[above]
    return DENSITIES[above - 1] + (1 - low) / (high - low) * (DENSITIES[above] - DENSITIES[above - 1])


def _cases(level: str, spec: ConvSpec) -> list[Case]:
    """The dense kernel, and the sparse one at every density."""
    isa = ISAS[level]
    dense, _ = conv_case(spec, isa, np.random.default_rng(1))
    return [dense, *(conv_case(spec, isa, np.random.default_rng(1), SparseConvSpec, each)[0] for each in DENSITIES)]


def _instructions(level: str, cases: Sequence[Case], rounds: int) -> list[float]:
    require_arm()
    dense, *sparse = count_instructions(cases, level)
    return [count / dense for count in sparse]


def _times(level: str, cases: Sequence[Case], rounds: int) -> list[float]:
    calls = bind_kernels(cases, level)
    with raised_priority():
        (single,) = interleave({"dense": calls[0]}, 5, time.process_time_ns).values()
        count = max(1, round(LEAST_MS / min(single)))
        repeated = {str(number): _repeated(call, count) for number, call in enumerate(calls)}
        dense, *sparse = interleave(repeated, rounds, time.process_time_ns).values()
    return [pair_ratio(column, dense).median for column in sparse]


def _repeated(call: Callable[[], None], count: int) -> Callable[[], None]:
    def calls() -> None:
        for _ in range(count):
            call()

    return calls
