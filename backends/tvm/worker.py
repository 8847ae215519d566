"""Code generation in long-lived child processes.

TVM takes seconds to import, and LLVM aborts the whole process on an instruction the target lacks. So kernels are
compiled in children: a child that dies becomes a `CodegenError` that names the kernel, and is replaced.
"""

from __future__ import annotations

import importlib
import pickle
import queue
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from ..closing import Closing
from ..processes import ChildProcess, private_stdout
from .isa import Isa, get_isa
from .kernels.base import KernelSpec

#: Symbol and specification of a kernel to compile.
Kernel = tuple[str, KernelSpec]


class CodegenError(RuntimeError):
    """A kernel could not be compiled; the message names it, its ISA level and the cause."""


@dataclass(frozen=True)
class _Request:
    kernels: tuple[Kernel, ...]
    isa: str


class _DiedError(Exception):
    """The child ended in the middle of a request."""


def _ask(child: ChildProcess, request: _Request) -> tuple[bool, Any]:
    """Whether it worked, and the object or the error text. Raises _DiedError when the child aborts."""
    try:
        _write(child.stdin, request)
        ok, answer = _read(child.stdout)
    except (EOFError, BrokenPipeError) as error:
        raise _DiedError(_last_words(child)) from error
    return bool(ok), answer


def _last_words(child: ChildProcess) -> str:
    status, lines = child.wait()
    reason = next((line for line in lines if "LLVM ERROR" in line or "Cannot select" in line), "")
    return f"the compiler exited with status {status} {reason or ' '.join(lines[-1:])}"


class CodegenPool(Closing):
    """A pool of `workers` code generation processes, started when first needed. Safe to share between threads.

    `compiler` is the module whose `compile_kernels` they call. It may import tvm: it is imported there only.
    """

    def __init__(self, workers: int = 2, compiler: str = f"{__package__}.codegen") -> None:
        self._idle: queue.SimpleQueue[ChildProcess | None] = queue.SimpleQueue()
        self._workers = workers
        self._compiler = compiler
        self._live: set[ChildProcess] = set()
        self._aborted = False
        for _ in range(workers):
            self._idle.put(None)

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
            ok, answer = _ask(child, _Request(kernels, isa))
        if not ok:
            raise CodegenError(answer)
        assert isinstance(answer, bytes)
        return answer

    @contextmanager
    def _child(self) -> Generator[ChildProcess]:
        child = self._idle.get()
        try:
            if self._aborted:
                raise CodegenError("code generation was stopped")
            child = child or ChildProcess(__name__, "serve", self._compiler)
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


def serve(compiler: str) -> None:
    """Answer requests from standard input on standard output until it closes; the body of a child."""
    requests, answers = sys.stdin.buffer, private_stdout()
    # tvm_ffi imports torch where it can, for tensors we never exchange: two thirds of the start-up.
    sys.modules["torch"] = None  # type: ignore[assignment]
    compile_kernels: Callable[[Sequence[Kernel], Isa], bytes] = importlib.import_module(compiler).compile_kernels
    while True:
        try:
            request: _Request = _read(requests)
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = True, compile_kernels(request.kernels, get_isa(request.isa))
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
