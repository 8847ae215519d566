"""Guest instructions of one inference on ARM CPUs, counted by QEMU: repeatable on a machine that is not ARM."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.programs import require_arm
from kernels.harness import instruction_plugin
from octavo.backends.job import prefix_of
from zoo import zoo_model

from .building import build
from .speed import calibration_of

MODELS = ("mobilenet_v2", "resnet18")
CPUS: Mapping[str, str] = {"cortex-a53": "neon", "neoverse-n1": "dotprod", "max": "i8mm"}
"""QEMU's CPUs, and the level that a fat bundle takes on each."""


def measure(name: str, cpus: Sequence[str] = tuple(CPUS)) -> dict[str, Any]:
    """Millions of instructions by CPU."""
    model = zoo_model(name)
    folder = build(model, lambda: calibration_of(model), target="arm-int8")
    with tempfile.TemporaryDirectory(prefix="octavo-arm-") as scratch:
        count = _counter(folder, prefix_of(name), Path(scratch))
        # The first run also fills what later runs find there.
        return {cpu: round((count(cpu, 3) - count(cpu, 2)) / 1e6, 3) for cpu in cpus}


def _counter(folder: Path, prefix: str, scratch: Path) -> Callable[[str, int], int]:
    """Build the program and the plugin; the function returned counts a process that runs the bundle some times."""
    program, plugin = scratch / "repeat", instruction_plugin(scratch)
    require_arm().run(
        "-O1", "-static", f"-I{folder}", f'-DHEADER="{prefix}.h"', f"-DNAME(x)={prefix}_##x",
        Path(__file__).with_name("repeat.c"), folder / f"{prefix}.o", "-lm", "-ldl", "-pthread", "-o", program,
    )  # fmt: skip

    def count(cpu: str, times: int) -> int:
        words = ["qemu-aarch64", "-plugin", str(plugin), str(program), str(folder / "weights.bin"), str(times)]
        environment = os.environ | {"QEMU_CPU": cpu}
        result = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
        found = re.search(r"instructions (\d+)", result.stderr)
        assert found, result.stderr
        return int(found[1])

    return count
