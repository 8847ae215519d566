"""Where a bundle's time goes: each kernel's time beside the limits of the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import UsageError
from ..bundle.loader import load
from ..bundle.manifest import Manifest
from ..bundle.program import Work
from .roofline import Limits, Machine, limits, measure_machine
from .session import random_inputs
from .timing import raised_priority


@dataclass(frozen=True)
class KernelProfile:
    """A step of a network: what it does, and the median and the least of its times in nanoseconds."""

    label: str
    work: Work
    nanoseconds: float
    best: float
    limits: Limits

    @property
    def bytes_moved(self) -> int:
        return self.work.read + self.work.written + self.work.constants

    @property
    def gmacs(self) -> float:
        """Thousand million multiply-accumulates per second."""
        return self.work.macs / self.nanoseconds

    @property
    def intensity(self) -> float:
        """Multiply-accumulates for each byte moved."""
        return self.work.macs / max(1, self.bytes_moved)

    @property
    def reached(self) -> float:
        """The share of the time that the limits explain."""
        return self.limits.nanoseconds / self.nanoseconds


@dataclass(frozen=True)
class NetworkProfile:
    """The kernels of one plan on one level in the order they run."""

    level: str
    machine: Machine
    kernels: Sequence[KernelProfile]

    @property
    def nanoseconds(self) -> float:
        return sum(kernel.nanoseconds for kernel in self.kernels)

    @property
    def macs(self) -> int:
        return sum(kernel.work.macs for kernel in self.kernels)

    def peak_share(self, kernel: KernelProfile) -> float:
        """Of what the kernel's own instruction reaches on this machine; 0 without multiplications."""
        return kernel.gmacs / self.machine.peaks.get(kernel.work.instruction, self.machine.peak)


def profile(
    path: Path,
    *,
    threads: int = 1,
    runs: int = 50,
    level: str | None = None,
    plan: int = 0,
    progress: Callable[[str, int, int | None], None] = lambda label, done, total: None,
) -> NetworkProfile:
    """Measure the machine, then every kernel of a bundle on random inputs.

    Args:
        runs: after a tenth as many that do not count.
        level: one of the bundle's levels.
        plan: which of the bundle's input shapes to use.

    Raises:
        UsageError: the bundle was made before bundles said what their kernels do.
        ToolchainError: there is no C compiler for the measurement of the machine.
    """
    with raised_priority(), load(path, threads=threads, level=level) as bundle:
        works = read_work(bundle.manifest, bundle.level, plan, path)
        progress("measuring the machine", 0, None)
        machine = measure_machine(bundle.level, threads)
        feeds = random_inputs(bundle.manifest.signatures[plan])
        rows: list[list[int]] = []
        labels: list[str] = []
        warm = runs // 10 + 1
        for number in range(runs + warm):
            steps = bundle.profile(feeds)
            labels = [step.label for step in steps]
            rows.append([step.nanoseconds for step in steps])
            progress("kernels", number + 1, runs + warm)
        times = np.asarray(rows[warm:], np.float64).reshape(runs, len(labels))
    footprint = sum(work.constants for work in works) + max(work.read + work.written for work in works)
    return NetworkProfile(
        bundle.level,
        machine,
        tuple(
            KernelProfile(label, work, max(1.0, float(np.median(t))), float(t.min()), limits(work, machine, footprint))
            for label, work, t in zip(labels, works, times.T, strict=True)
        ),
    )


def read_work(manifest: Manifest, level: str, plan: int, where: Path) -> tuple[Work, ...]:
    """What each step of a plan does, from a bundle's manifest.

    Raises:
        UsageError: it does not say.
    """
    recorded: Any = manifest.work
    try:
        return tuple(Work(**step) for step in recorded[level][plan])
    except (TypeError, KeyError, IndexError) as error:
        raise UsageError(
            "the bundle does not say what its kernels do", where=str(where), hint="compile it again with this octavo"
        ) from error
