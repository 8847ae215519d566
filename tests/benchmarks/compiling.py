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

from . import chains
from .speed import calibration_of

NATIVE = "x86, this machine's level"
TARGETS: Mapping[str, Sequence[str]] = {
    NATIVE: ("--mcpu", "native"),
    "x86, all four levels": (),
    "ARM, all three levels": ("--target", "arm-int8"),
}
CHAINS: Mapping[str, int] = {"chain of 500 nodes": 500, "chain of 5,000 nodes": 5000}
"""Nodes of networks that only measure how the cost grows."""

INTERVAL = 0.25
"""Seconds between two looks at the memory."""


def measure(name: str) -> dict[str, Any]:
    """Seconds, the peak memory in MB, and the bundle's size in MB, by target: of a chain for this machine only."""
    with tempfile.TemporaryDirectory(prefix="octavo-compile-") as text:
        scratch = Path(text)
        source, samples = _chain(CHAINS[name], scratch) if name in CHAINS else _network(name)
        calibration = scratch / "calibration.npz"
        arrays: dict[str, Any] = dict(samples)
        np.savez(calibration, **arrays)
        targets = {NATIVE: TARGETS[NATIVE]} if name in CHAINS else TARGETS
        return {title: _compile(source, calibration, scratch / "bundle", options) for title, options in targets.items()}


def _network(name: str) -> tuple[Path, Mapping[str, Any]]:
    """A network's file, and its calibration inputs by name."""
    model = zoo_model(name)
    source = peers.onnx_file(model)
    names = [value.name for value in onnx.load(source, load_external_data=False).graph.input]
    columns = zip(*calibration_of(model), strict=True)
    return source, {name: np.concatenate(column) for name, column in zip(names, columns, strict=True)}


def _chain(length: int, folder: Path) -> tuple[Path, Mapping[str, Any]]:
    source = folder / "chain.onnx"
    onnx.save(chains.chain(length), source)
    return source, {"t0": chains.samples(8)}


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
