"""Code generation in long-lived child processes.

TVM takes seconds to import, and LLVM aborts the whole process on an instruction the target lacks. So kernels are
compiled in children: a child that dies becomes a `CodegenError` that names the kernel, and is replaced.
"""

from __future__ import annotations

import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Self

from .kernels.base import KernelSpec

#: Symbol and specification of a kernel to compile.
Kernel = tuple[str, KernelSpec]

_PACKAGE = __name__.rpartition(".")[0]


class CodegenError(RuntimeError):
    """A kernel could not be compiled; the message names it, its ISA level and the cause."""


@dataclass(frozen=True)
class _Request:
    kernels: tuple[Kernel, ...]
    isa: str


class _DiedError(Exception):
    """The child ended in the middle of a request."""


class _Child:
    """One child process and its pipes."""

    def __init__(self) -> None:
        # What it writes for a moment is ours to remove: a killed process cannot.
        self._scratch = tempfile.TemporaryDirectory(prefix="octavo-codegen-")
        path = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, "PYTHONPATH": path, "TMPDIR": self._scratch.name}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the child
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {_PACKAGE}.worker import serve; serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=environment,
        )

    def ask(self, request: _Request) -> tuple[bool, Any]:
        """Whether it worked, and the object or the error text. Raises _DiedError when the child aborts."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            _write(stdin, request)
            ok, answer = _read(stdout)
        except (EOFError, BrokenPipeError) as error:
            raise _DiedError(self._last_words()) from error
        return bool(ok), answer

    def _last_words(self) -> str:
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        reason = next((line for line in lines if "LLVM ERROR" in line or "Cannot select" in line), "")
        return f"the compiler exited with status {self._process.returncode} {reason or ' '.join(lines[-1:])}"

    def kill(self) -> None:
        """End the process; whoever waits for its answer gets a _DiedError."""
        self._process.kill()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()
        self._scratch.cleanup()


class CodegenPool:
    """A pool of `workers` code generation processes, started when first needed. Safe to share between threads."""

    def __init__(self, workers: int = 2) -> None:
        self._idle: queue.SimpleQueue[_Child | None] = queue.SimpleQueue()
        self._workers = workers
        self._live: set[_Child] = set()
        self._aborted = False
        for _ in range(workers):
            self._idle.put(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the children; the pool may be used again afterwards."""
        children = [self._idle.get() for _ in range(self._workers)]
        for child in children:
            if child is not None:
                child.close()
            self._idle.put(None)

    def abort(self) -> None:
        """Kill the children in the middle of their work: every request under way or to come fails at once."""
        self._aborted = True
        for child in tuple(self._live):
            child.kill()

    def compile(self, kernels: Sequence[Kernel], isa: str) -> bytes:
        """Compile kernels for the ISA level `isa` into one relocatable object.

        Raises CodegenError naming the kernel at fault.
        """
        try:
            return self._compile(tuple(kernels), isa)
        except _DiedError as death:
            if self._aborted:
                raise CodegenError("code generation was stopped") from None
            if len(kernels) == 1:
                raise CodegenError(f"{kernels[0][0]} on {isa}: {death} ({kernels[0][1]})") from None
        for kernel in kernels:
            self.compile([kernel], isa)
        raise CodegenError(f"the kernels {', '.join(name for name, _ in kernels)} on {isa} compile only one by one")

    def _compile(self, kernels: tuple[Kernel, ...], isa: str) -> bytes:
        with self._child() as child:
            ok, answer = child.ask(_Request(kernels, isa))
        if not ok:
            raise CodegenError(answer)
        assert isinstance(answer, bytes)
        return answer

    @contextmanager
    def _child(self) -> Generator[_Child]:
        child = self._idle.get()
        try:
            if self._aborted:
                raise CodegenError("code generation was stopped")
            child = child or _Child()
            self._live.add(child)
            yield child
        except BaseException:
            if child is not None:
                self._live.discard(child)
                child.close()
            child = None
            raise
        finally:
            self._idle.put(child)


def serve() -> None:
    """Answer requests from standard input on standard output until it closes; the body of a child."""
    # Ctrl-C reaches the whole terminal; the parent decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing that a library prints may reach the pipe
    # tvm_ffi imports torch where it can, for tensors we never exchange: two thirds of the start-up.
    sys.modules["torch"] = None  # type: ignore[assignment]
    from . import codegen
    from .isa import get_isa

    while True:
        try:
            request: _Request = _read(requests)
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = True, codegen.compile_kernels(request.kernels, get_isa(request.isa))
        except Exception:  # noqa: BLE001 - every failure travels to the caller as text
            names = ", ".join(name for name, _ in request.kernels)
            answer = False, f"{names} on {request.isa}: {traceback.format_exc(limit=-6)}"
        _write(answers, answer)


def _write(stream: Any, message: object) -> None:
    data = pickle.dumps(message)
    stream.write(len(data).to_bytes(8, "little") + data)
    stream.flush()


def _read(stream: BinaryIO | Any) -> Any:
    header = stream.read(8)
    if len(header) < 8:
        raise EOFError
    return pickle.loads(stream.read(int.from_bytes(header, "little")))  # noqa: S301 - our own child process
