"""What octavo knows: targets, passes, ops, its version and its help; and how little it imports to say so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import octavo as package
import pytest
from octavo.backends.targets import CPUS, TARGETS
from octavo.ir.op import all_ops
from octavo.passes.registry import all_passes

Octavo = Callable[..., Any]


def test_help_lists_every_command_and_exit_code(octavo: Octavo) -> None:
    result = octavo("--help")
    assert result.code == 0
    for word in ("compile", "run", "inspect", "opt", "compare", "bench", "passes", "targets", "ops", "verify"):
        assert f" {word} " in result.out
    assert "Exit codes" in result.out


@pytest.mark.parametrize("command", ["compile", "run", "inspect", "opt", "compare", "bench", "passes", "verify"])
def test_every_command_explains_itself(octavo: Octavo, command: str) -> None:
    result = octavo(command, "-h")
    assert result.code == 0
    assert "Usage: octavo" in result.out


def test_version(octavo: Octavo) -> None:
    assert octavo("--version").out == f"octavo {package.__version__}\n"


def test_targets(octavo: Octavo) -> None:
    text = octavo("targets").out
    listed = octavo("targets", "--json").json
    assert [t["name"] for t in listed["targets"]] == list(TARGETS)
    assert {cpu for t in listed["targets"] for level in t["levels"] for cpu in level["cpus"]} == set(CPUS)
    for target in TARGETS.values():
        assert all(level.name in text for level in target.levels)


def test_passes(octavo: Octavo) -> None:
    listed = octavo("passes", "--json").json
    assert {p["name"] for p in listed["passes"]} >= {cls.name for cls in all_passes()}
    assert "int8" in listed["pipelines"]
    assert "lower-integer" in octavo("passes").out


def test_one_pass_shows_its_options(octavo: Octavo) -> None:
    text = octavo("passes", "quantize").out
    assert "per-channel|per-tensor" in text
    assert octavo("passes", "quantise").code == 2


def test_ops(octavo: Octavo) -> None:
    listed = octavo("ops", "--json").json["ops"]
    assert [op["name"] for op in listed] == [op.name for op in all_ops()]
    assert "qconv" in octavo("ops").out


def run_python(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False, **options
    )


HEAVY = ("torch", "onnx", "tvm", "PIL")


@pytest.mark.parametrize("arguments", [["--help"], ["targets"], ["--version"], ["run", "x", "y.npz"], ["verify", "x"]])
def test_quick_commands_import_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from octavo.cli.main import run
run({arguments!r})
print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)
"""
    assert run_python(code).stderr.splitlines()[-1] == "[]"


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    script = Path(sys.executable).parent / "octavo"
    command = [str(script)] if script.exists() else [sys.executable, "-c", "from octavo.cli.main import main; main()"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as pipe:
        done = subprocess.run([*command, "targets", "--json"], stdout=pipe, stderr=subprocess.PIPE, check=False)
    assert done.stderr == b""
    assert done.returncode in (1, 141)
