"""Guest instructions of one inference on ARM CPUs, counted by QEMU: repeatable on a machine that is not ARM."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.programs import require_arm
from kernels.harness import instruction_plugin
from octavo.backends.bench.profile import read_work
from octavo.backends.bundle.manifest import read_manifest
from octavo.backends.job import prefix_of
from zoo import zoo_model

from .building import build
from .speed import calibration_of

MODELS = ("mobilenet_v2", "resnet18")
CPUS: Mapping[str, str] = {"cortex-a53": "neon", "neoverse-n1": "dotprod", "max": "i8mm"}
"""QEMU's CPUs, and the level that a fat bundle takes on each."""


@dataclass(frozen=True)
class _Count:
    """Instructions of a process, and of each step of the bundle that it runs, by the name of the step's layer."""

    total: int
    steps: Sequence[tuple[str, int]]


def measure(name: str, cpus: Sequence[str] = tuple(CPUS)) -> dict[str, Any]:
    """By CPU the ``millions`` of instructions, and for each kernel the name of its layer, its own and its MACs."""
    model = zoo_model(name)
    folder = build(model, lambda: calibration_of(model), target="arm-int8")
    manifest = read_manifest(folder)
    with tempfile.TemporaryDirectory(prefix="octavo-arm-") as scratch:
        count = _counter(folder, prefix_of(name), Path(scratch))
        found: dict[str, Any] = {}
        for cpu in cpus:
            # The first run also fills what later runs find there.
            short, long = count(cpu, 2), count(cpu, 3)
            works = read_work(manifest, CPUS[cpu], 0, folder)
            kernels = [
                {"layer": layer, "instructions": more - less, "macs": work.macs}
                for (layer, less), (_, more), work in zip(short.steps, long.steps, works, strict=True)
            ]
            found[cpu] = {"millions": round((long.total - short.total) / 1e6, 3), "kernels": kernels}
        return found


def _counter(folder: Path, prefix: str, scratch: Path) -> Callable[[str, int], _Count]:
    """Build the program and the plugin; the function returned counts a process that runs the bundle some times."""
    program, plugin = scratch / "repeat", instruction_plugin(scratch)
    require_arm().run(
        "-O1", "-static", f"-I{folder}", f'-DHEADER="{prefix}.h"', f"-DNAME(x)={prefix}_##x",
        Path(__file__).with_name("repeat.c"), folder / f"{prefix}.o", "-lm", "-ldl", "-pthread", "-o", program,
    )  # fmt: skip

    def count(cpu: str, times: int) -> _Count:
        words = (program, folder / "weights.bin", str(times))
        total, result = run_counted(cpu, f"{plugin},steps=on", words, os.environ)
        steps = {int(step): int(number) for step, number in re.findall(r"step (\d+) (\d+)", result.stderr)}
        layers = result.stdout.splitlines()
        return _Count(total, [(layer, steps[step]) for step, layer in enumerate(layers)])

    return count


def run_counted(
    cpu: str, plugin: str, words: Sequence[str | Path], environment: Mapping[str, str]
) -> tuple[int, subprocess.CompletedProcess[str]]:
    """The instructions of a guest process on a CPU, and what it wrote; `words` are QEMU's after the plugin."""
    command = ["qemu-aarch64", "-plugin", plugin, *words]
    result = subprocess.run(command, check=False, capture_output=True, text=True, env={**environment, "QEMU_CPU": cpu})
    total = re.search(r"^instructions (\d+)", result.stderr, re.MULTILINE)
    if result.returncode or not total:
        raise RuntimeError(f"on {cpu} the guest ended with status {result.returncode}: {result.stderr.strip()}")
    return int(total[1]), result
