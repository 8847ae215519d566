"""C compilers: finding one for a target, and turning a program's C and kernel objects into a library."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...ir.errors import ToolchainError
from .elf import read_elf
from .features import AARCH64, X86_64

_ZIG_TARGETS = {X86_64: "x86_64-linux-gnu.2.28", AARCH64: "aarch64-linux-gnu.2.28"}
_ENVIRONMENT = {X86_64: "OCTAVO_CC_X86_64", AARCH64: "OCTAVO_CC_AARCH64"}
_TRIPLES = {X86_64: "x86_64-linux-gnu", AARCH64: "aarch64-linux-gnu"}

#: The runtime decides what the CPU can do, so it must itself run on any CPU of the architecture. Outlined atomics
#: would leave calls into libgcc in the relocatable object.
_BASELINE = {X86_64: ("-march=x86-64",), AARCH64: ("-march=armv8-a", "-mno-outline-atomics")}

_WARNINGS = ("-Wall", "-Wextra", "-Werror")
_COMPILE = ("-std=gnu11", "-O2", "-g0", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-pthread", *_WARNINGS)
_LINK = ("-Wl,-z,defs", "-Wl,-z,noexecstack", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,--build-id=none", "-s")
_LIBRARIES = ("-lm", "-ldl", "-pthread")


#: TVM puts these unused conversions into every object, in a section of their own; no bundle keeps them.
_HELPERS = frozenset({"__truncsfhf2", "__extendhfsf2"})
_HELPER_SECTION = ".text.tvm.fp16.conv"


@dataclass(frozen=True)
class Toolchain:
    """A C compiler driver that builds for ``architecture``, as the words that start it."""

    architecture: str
    command: tuple[str, ...]

    def baseline_flags(self) -> tuple[str, ...]:
        """Options for the oldest CPU of the architecture. Zig names CPUs its own way, and defaults to that one."""
        zig = any(Path(word).name in ("zig", "ziglang") for word in self.command)
        return () if zig else _BASELINE[self.architecture]

    def run(self, *arguments: str | Path, folder: Path | None = None) -> None:
        """Runs the compiler in ``folder``.

        Raises:
            ToolchainError: it failed; the error carries what it printed.
        """
        words = [*self.command, *map(str, arguments)]
        result = _execute(words, folder)
        if result.returncode:
            raise ToolchainError(
                f"the C compiler failed with status {result.returncode}\n{_tail(result.stderr)}",
                where=shlex.join(words),
                hint=f"set {_ENVIRONMENT[self.architecture]} to another compiler",
            )


def host_architecture() -> str:
    """The architecture of this machine, spelled as Linux does."""
    machine = platform.machine().lower()
    return {"amd64": X86_64, "arm64": AARCH64}.get(machine, machine)


def find_toolchain(architecture: str) -> Toolchain:
    """A compiler for ``architecture``: ``OCTAVO_CC_X86_64`` / ``OCTAVO_CC_AARCH64``, or the first that works.

    Raises:
        ToolchainError: there is none; the error says what to install.
    """
    name = _ENVIRONMENT[architecture]
    chosen = os.environ.get(name, "").strip()
    found = _first_working(architecture, chosen)
    if found is not None:
        return found
    if chosen:
        raise ToolchainError(f"{name} names a C compiler that does not work", where=chosen)
    raise ToolchainError(f"no C compiler for {architecture} found", hint=_advice(architecture))


def compile_unit(toolchain: Toolchain, source: Path, output: Path) -> None:
    """Compiles one C file for the oldest CPU of the architecture. Headers stand beside it."""
    flags = (*_COMPILE, *toolchain.baseline_flags())
    toolchain.run(*flags, "-c", source.name, "-o", output.absolute(), folder=source.parent)


def link_library(toolchain: Toolchain, prefix: str, objects: Sequence[Path], output: Path) -> None:
    """Links a shared library that exports ``PREFIX_*`` and needs the C library alone."""
    script = output.with_suffix(".version")
    script.write_text(f"{{ global: {prefix}_*; local: *; }};\n", encoding="utf-8")
    soname = f"-Wl,-soname,{output.name}"
    try:
        toolchain.run("-shared", soname, f"-Wl,--version-script={script}", *_LINK, "-o", output, *objects, *_LIBRARIES)
    finally:
        script.unlink()


def link_relocatable(toolchain: Toolchain, objects: Sequence[Path], output: Path) -> None:
    """Joins the objects into one that a program can link directly."""
    script = output.with_suffix(".discard")
    script.write_text(f"SECTIONS {{ /DISCARD/ : {{ *({_HELPER_SECTION}) *(.debug*) }} }}\n", encoding="utf-8")
    try:
        toolchain.run("-r", "-nostdlib", "-Wl,-S", f"-Wl,-T,{script}", "-o", output, *objects)
    finally:
        script.unlink()


def check_objects(architecture: str, prefix: str, objects: Sequence[Path]) -> None:
    """Refuses objects of another machine, and global symbols that could clash with another bundle's.

    Raises:
        ToolchainError: names the object and its symbols.
    """
    for path in objects:
        try:
            found = read_elf(path)
        except (OSError, ValueError) as error:
            raise ToolchainError("a kernel object cannot be read", where=str(error)) from error
        if found.machine != architecture:
            raise ToolchainError(f"a kernel object is for {found.machine}, not {architecture}", where=str(path))
        strangers = [
            s.name for s in found.static if s.defined and not s.name.startswith(prefix + "_") and s.name not in _HELPERS
        ]
        if strangers:
            raise ToolchainError(
                f"a kernel object defines symbols that do not begin with {prefix}_: {', '.join(strangers[:5])}",
                where=str(path),
            )


@functools.cache
def _first_working(architecture: str, chosen: str) -> Toolchain | None:
    candidates = [tuple(shlex.split(chosen))] if chosen else _candidates(architecture)
    for command in candidates:
        toolchain = Toolchain(architecture, command)
        if _works(toolchain):
            return toolchain
    return None


def _candidates(architecture: str) -> list[tuple[str, ...]]:
    if host_architecture() == architecture:
        drivers: list[tuple[str, ...]] = [("cc",), ("gcc",), ("clang",)]
    else:
        triple = _TRIPLES[architecture]
        drivers = [(f"{triple}-gcc",), ("clang", f"--target={triple}")]
    found = [words for words in drivers if shutil.which(words[0])]
    if importlib.util.find_spec("ziglang"):
        zig = (sys.executable, "-m", "ziglang", "cc", "-target", _ZIG_TARGETS[architecture], "-fno-sanitize=undefined")
        found.append(zig)
    return found


def _works(toolchain: Toolchain) -> bool:
    """Whether it links a small library for the right machine: a clang without the target's C library does not."""
    with tempfile.TemporaryDirectory(prefix="octavo-cc-") as name:
        source, output = Path(name, "probe.c"), Path(name, "probe.so")
        source.write_text('#include <stdio.h>\nint probe(void) { return puts(""); }\n', encoding="utf-8")
        try:
            toolchain.run("-shared", "-fPIC", source, "-o", output)
            return read_elf(output).machine == toolchain.architecture
        except (ToolchainError, OSError, ValueError):
            return False


def _execute(words: list[str], folder: Path | None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        return subprocess.run(
            words, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False
        )
    except FileNotFoundError as error:
        raise ToolchainError(f"cannot run the C compiler {words[0]}", where=shlex.join(words)) from error


def _tail(text: str, lines: int = 20) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


def _advice(architecture: str) -> str:
    name = _ENVIRONMENT[architecture]
    if host_architecture() == architecture:
        return f"install gcc or clang with the C library's headers, or `pip install ziglang`, or set {name}"
    package = "gcc-aarch64-linux-gnu" if architecture == AARCH64 else "gcc-x86-64-linux-gnu"
    return f"install the Debian package {package}, or `pip install ziglang`, or set {name}"
