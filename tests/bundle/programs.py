"""C programs that use a bundle: compiling and running them, natively or under QEMU."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bundle.toys import Toy
from octavo.backends.bundle.link import Toolchain, find_toolchain, host_architecture
from octavo.ir.errors import ToolchainError
from support.missing import MissingError

HERE = Path(__file__).parent
STRICT = ("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror")
SYSTEM = ("-lm", "-ldl", "-pthread")


@dataclass(frozen=True)
class Program:
    """A compiled driver with its input and expected output."""

    binary: Path
    files: tuple[Path, Path]
    runner: tuple[str, ...] = ()

    def run(self, mode: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.runner, self.binary, mode, *self.files],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def check(self, mode: str, **environment: str) -> str:
        """Runs a mode that must succeed; returns what it printed."""
        result = self.run(mode, **environment)
        assert result.returncode == 0, f"{mode}: status {result.returncode}\n{result.stdout}{result.stderr}"
        return result.stdout.strip()


def build_driver(toy: Toy, folder: Path, scratch: Path, toolchain: Toolchain, *flags: str) -> Program:
    """Compiles driver.c against the shared library of the bundle in ``folder``."""
    inputs, outputs, binary = scratch / "input.raw", scratch / "expected.raw", scratch / "driver"
    toy.input().tofile(inputs)
    toy.expected(toy.input()).tofile(outputs)
    names = (f"-DPREFIX={toy.prefix}", f'-DHEADER="{toy.prefix}.h"', f"-I{folder}")
    library = (f"-L{folder}", f"-l{toy.prefix}", f"-Wl,-rpath,{folder}")
    toolchain.run(*STRICT, *flags, *names, HERE / "driver.c", "-o", binary, *library, *SYSTEM)
    return Program(binary, (inputs, outputs), _runner(toy.architecture))


def require_arm() -> Toolchain:
    """A compiler for aarch64.

    Raises:
        MissingError: there is none, or no QEMU to run what it makes.
    """
    try:
        toolchain = find_toolchain("aarch64")
    except ToolchainError as error:
        raise MissingError(str(error), "OCTAVO_REQUIRE_ARM") from error
    if host_architecture() != "aarch64" and not shutil.which("qemu-aarch64"):
        raise MissingError("qemu-aarch64 is not installed (Debian package qemu-user)", "OCTAVO_REQUIRE_ARM")
    return toolchain


def _runner(architecture: str) -> tuple[str, ...]:
    if architecture == host_architecture():
        return ()
    return ("qemu-aarch64", "-L", os.environ.get("OCTAVO_ARM_SYSROOT", "/usr/aarch64-linux-gnu"))
