"""The example of compression runs from its folder alone, here with fewer epochs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "docs" / "compression"


@pytest.mark.nightly
@pytest.mark.models
def test_the_example_runs(tmp_path: Path) -> None:
    folder = shutil.copytree(EXAMPLE, tmp_path / "example", ignore=shutil.ignore_patterns("*.run", "__pycache__"))
    for config in folder.glob("*.toml"):
        fewer = re.sub(r"epochs = \d+", "epochs = 2", config.read_text(encoding="utf-8"))
        config.write_text(re.sub(r"end = \d+", "end = 1", fewer), encoding="utf-8")
    done = subprocess.run([sys.executable, "compress.py"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = {line.split("│")[1].strip(): line.split("│")[2:-1] for line in done.stdout.splitlines() if "│" in line}
    assert list(rows) == [
        "float, in torch",
        "int8 after training",
        "half of the MACs, int8 in training",
        "90 % zeros, shared values, coded",
    ]
    right, stored, smaller, _ = (float(cell.strip(" x")) for cell in rows["90 % zeros, shared values, coded"])
    assert right > 50
    assert stored < 15
    assert smaller > 20
