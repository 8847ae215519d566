"""The AMX that kernel tests rely on, the machine's or in software: right products, and the faults of forbidden use.

The emulator needs a processor without tiles: one that has them runs `ldtilecfg` itself and tells nobody.
"""

from __future__ import annotations

import platform
import signal
import subprocess
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parent.parent / "support"
HAS_TILES = "amx_tile" in Path("/proc/cpuinfo").read_text()

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="AMX is an extension of x86-64")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program of tile instructions, with the emulator on a machine that has no tiles."""
    binary = tmp_path_factory.mktemp("amx") / "amx_program"
    tiles = ["-DHARDWARE"] if HAS_TILES else [str(SUPPORT / "amx_emulator.c")]
    options = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run(["cc", *options, str(SUPPORT / "amx_program.c"), *tiles, "-o", str(binary)], check=True)
    return binary


@pytest.mark.parametrize("case", ["products", "stack"])
def test_computes_what_the_instructions_mean(program: Path, case: str) -> None:
    subprocess.run([program, case], check=True)


@pytest.mark.parametrize("case", ["unconfigured", "released", "empty-tile", "shapes", "other-instruction"])
def test_forbidden_use_dies_of_sigill(program: Path, case: str) -> None:
    assert subprocess.run([program, case], check=False).returncode == -signal.SIGILL


@pytest.mark.skipif(HAS_TILES, reason="Linux hands a thread's configuration on to the threads that it starts")
def test_another_threads_configuration_does_not_count(program: Path) -> None:
    assert subprocess.run([program, "thread"], check=False).returncode == -signal.SIGILL


def test_malformed_configuration_dies_of_sigsegv(program: Path) -> None:
    assert subprocess.run([program, "malformed"], check=False).returncode == -signal.SIGSEGV
