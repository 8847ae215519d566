"""Where a network's time goes on every instruction set level, kernel by kernel, beside the limits of the machine."""

from __future__ import annotations

from typing import Any

from octavo.backends.bench.profile import KernelProfile, NetworkProfile, profile
from octavo.backends.targets import host_levels
from zoo import zoo_model

from .building import build
from .speed import calibration_of

MODELS = ("mobilenet_v2", "efficientnet_lite0", "resnet18", "resnet50")
RUNS = 50


def measure(name: str) -> dict[str, Any]:
    """By level the peak of its instruction in GMAC/s, and each kernel's time on one thread and what limits it."""
    model, levels = zoo_model(name), host_levels()
    folder = build(model, lambda: calibration_of(model), features=levels)
    return {level: _level(profile(folder, runs=RUNS, level=level)) for level in levels}


def _level(found: NetworkProfile) -> dict[str, Any]:
    return {"peak": found.machine.peak, "kernels": [_kernel(found, kernel) for kernel in found.kernels]}


def _kernel(found: NetworkProfile, kernel: KernelProfile) -> dict[str, Any]:
    return {
        "layer": kernel.label,
        "kind": f"{kernel.work.kernel} {kernel.work.instruction}".strip(),
        "us": kernel.nanoseconds / 1e3,
        "macs": kernel.work.macs,
        "bytes": kernel.bytes_moved,
        "peak_share": found.peak_share(kernel),
        "bound": kernel.limits.bound,
        "reached": kernel.reached,
    }
