"""Python processes that work for this one: they import what it can import, and end when it says so."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from .closing import Closing

# Ctrl-C reaches the whole terminal; the parent decides what becomes of its children.
_START = (
    "import sys, signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "from {module} import {function}; {function}(*sys.argv[1:])"
)


def child_command(module: str, function: str, *words: str) -> list[str]:
    """The command line of a Python process that calls a module's function with these words."""
    return [sys.executable, "-c", _START.format(module=module, function=function), *words]


def child_environment(changes: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of this process, with the modules that it can import."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **(changes or {})}


def private_stdout() -> BinaryIO:
    """In a child: the pipe to its parent. What a library prints goes to standard error from now on."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


class ChildProcess(Closing):
    """A process with pipes to its standard input and output, that calls ``function`` of ``module`` with ``words``.

    Its temporary files lie in ``scratch``, which is removed with it: a process that is killed cannot do so.
    """

    def __init__(self, module: str, function: str, *words: str, environment: Mapping[str, str] | None = None) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="octavo-child-")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self.scratch = Path(self._scratch.name)
        self._process = subprocess.Popen(
            child_command(module, function, *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=child_environment({"TMPDIR": self._scratch.name, **(environment or {})}),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self.stdin, self.stdout = self._process.stdin, self._process.stdout

    def wait(self) -> tuple[int, list[str]]:
        """Wait for its end: the exit status and the lines that it wrote on standard error."""
        status = self._process.wait()
        self._errors.seek(0)
        return status, self._errors.read().decode(errors="replace").strip().splitlines()

    def kill(self) -> None:
        """End it in the middle of its work."""
        self._process.kill()

    def close(self) -> None:
        """End it and remove what it leaves behind."""
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        self._scratch.cleanup()
