"""What a compilation costs: wall time, memory of all its processes together, and the size of the bundle."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from zoo import peers, zoo_model

from .speed import calibration_of

NATIVE = "x86, this machine's level"
TARGETS: Mapping[str, Sequence[str]] = {
    NATIVE: ("--mcpu", "native"),
    "x86, all four levels": (),
    "ARM, all three levels": ("--target", "arm-int8"),
}
INTERVAL = 0.25
"""Seconds between two looks at the memory."""


def measure(name: str) -> dict[str, Any]:
    """Seconds, the peak memory in MB, and the bundle's size in MB, by target."""
    model = zoo_model(name)
    source = peers.onnx_file(model)
    with tempfile.TemporaryDirectory(prefix="octavo-compile-") as text:
        scratch = Path(text)
        given = scratch / "calibration.npz"
        columns = zip(*calibration_of(model), strict=True)
        graph = onnx.load(source, load_external_data=False).graph
        names = [value.name for value in graph.input]
        arrays: dict[str, Any] = {name: np.concatenate(column) for name, column in zip(names, columns, strict=True)}
        np.savez(given, **arrays)
        return {title: _compile(source, given, scratch / "bundle", options) for title, options in TARGETS.items()}


def _compile(source: Path, calibration: Path, output: Path, options: Sequence[str]) -> dict[str, float]:
    octavo = (sys.executable, "-c", "from octavo.cli.main import main; main()")
    words = [*octavo, "compile", str(source), "--calib", str(calibration), "-o", str(output), "--no-cache", *options]
    start, peak = time.perf_counter(), 0.0
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_megabytes, _family(process.pid))))
            time.sleep(INTERVAL)
    seconds = time.perf_counter() - start
    assert process.returncode == 0, f"octavo compile ended with {process.returncode}"
    size = sum(file.stat().st_size for file in output.iterdir()) / 1e6
    shutil.rmtree(output)
    return {"seconds": seconds, "memory_mb": peak, "bundle_mb": size}


def _family(pid: int) -> Iterator[int]:
    """A process and its descendants that are alive."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))
    except OSError:
        return


def _megabytes(pid: int) -> float:
    """Proportional set size: pages that processes share count once in a sum."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
