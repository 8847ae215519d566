"""The software AMX that kernel tests rely on: right products, and the faults that hardware would raise."""

from __future__ import annotations

import platform
import signal
import subprocess
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parent.parent / "support"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the AMX emulator decodes x86-64 instructions")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiles the emulator together with a program of tile instructions."""
    binary = tmp_path_factory.mktemp("amx") / "amx_program"
    sources = [str(SUPPORT / "amx_program.c"), str(SUPPORT / "amx_emulator.c")]
    subprocess.run(
        ["cc", "-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", *sources, "-pthread", "-o", str(binary)],
        check=True,
    )
    return binary


@pytest.mark.parametrize("case", ["products", "stack"])
def test_computes_what_the_instructions_mean(program: Path, case: str) -> None:
    subprocess.run([program, case], check=True)


@pytest.mark.parametrize("case", ["unconfigured", "released", "thread", "empty-tile", "shapes", "other-instruction"])
def test_forbidden_use_dies_of_sigill(program: Path, case: str) -> None:
    assert subprocess.run([program, case], check=False).returncode == -signal.SIGILL


def test_malformed_configuration_dies_of_sigsegv(program: Path) -> None:
    assert subprocess.run([program, "malformed"], check=False).returncode == -signal.SIGSEGV
