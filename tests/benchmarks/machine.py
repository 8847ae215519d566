"""What was measured on: the CPU, and the versions of what takes part."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from octavo.backends.targets import host_levels

from .building import ROOT

_PACKAGES = ("apache-tvm", "nncf", "onnxruntime", "openvino", "torch")


def describe() -> dict[str, Any]:
    """CPU model, levels, how many CPUs and how busy they were, versions, and the commit."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    commit = subprocess.run(
        ["git", "-C", ROOT, "rev-parse", "--short", "HEAD"], check=False, capture_output=True, text=True
    )
    return {
        "cpu": model or platform.machine(),
        "cpus": len(os.sched_getaffinity(0)),
        "levels": list(host_levels()),
        "load": round(os.getloadavg()[0], 1),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "commit": commit.stdout.strip(),
    }


def _version(package: str) -> str | None:
    """None where it is not installed: only speed needs all of them."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
