"""The C functions of one bundle's library, through ctypes."""

from __future__ import annotations

import _ctypes
import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from .errors import BundleCorruptError, BundleError, BundleMachineError, BundleRunError
from .program import Signature, TensorSpec

_STATUS_ERRORS: dict[int, type[BundleError]] = {
    2: BundleMachineError,
    3: BundleMachineError,
    4: BundleCorruptError,
}
_DTYPES = ("float32", "int8", "uint8", "int32", "int64", "bool")
_UNCHECKED_LEVEL = 1
_RELOADS = 64

#: What a parallel_for receives: run the pieces [begin, end).
Body = Callable[[int, int], None]
#: Runs ``body`` over ranges that cover ``[0, pieces)`` once and returns when all have ended.
ParallelFor = Callable[[int, Body], None]

_C_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int32, ctypes.c_int32)
_C_PARALLEL_FOR = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p)


class _Options(ctypes.Structure):
    _fields_ = (
        ("threads", ctypes.c_int32),
        ("flags", ctypes.c_int32),
        ("level", ctypes.c_char_p),
        ("weights_path", ctypes.c_char_p),
        ("parallel_for", ctypes.c_void_p),
        ("parallel_user", ctypes.c_void_p),
    )


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_int),
        ("rank", ctypes.c_int32),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("bytes", ctypes.c_size_t),
        ("alignment", ctypes.c_size_t),
        ("scale", ctypes.c_float),
        ("zero_point", ctypes.c_int32),
    )


_INT = ctypes.c_int32
_POINTER = ctypes.c_void_p
_TEXT = ctypes.c_char_p
_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "create": (ctypes.c_int, (ctypes.POINTER(_POINTER), ctypes.POINTER(_Options))),
    "destroy": (None, (_POINTER,)),
    "workspace_size": (ctypes.c_size_t, (_POINTER, _INT)),
    "run_profiled": (ctypes.c_int, (_POINTER, _INT, _POINTER, _POINTER, _POINTER, _POINTER)),
    "level_name": (_TEXT, (_INT,)),
    "level": (_TEXT, (_POINTER,)),
    "threads": (_INT, (_POINTER,)),
    "plans": (_INT, ()),
    "inputs": (_INT, ()),
    "outputs": (_INT, ()),
    "input": (ctypes.POINTER(_Tensor), (_INT, _INT)),
    "output": (ctypes.POINTER(_Tensor), (_INT, _INT)),
    "steps": (_INT, (_POINTER, _INT)),
    "step_label": (_TEXT, (_POINTER, _INT, _INT)),
    "strerror": (_TEXT, (ctypes.c_int,)),
    "last_error": (_TEXT, ()),
    "build": (_TEXT, ()),
}


class Library:
    """A bundle's shared library with typed functions: ``library.call("run", ...)``."""

    def __init__(self, path: Path, prefix: str, build: str) -> None:
        self._path = path
        self._dll = _open(path, prefix, build)
        self._functions = {name: _declare(self._dll, prefix, name) for name in _FUNCTIONS}

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls ``PREFIX_name``; text comes back as str."""
        result = self._functions[name](*arguments)
        return result.decode("utf-8", "replace") if isinstance(result, bytes) else result

    def check(self, status: int) -> None:
        """Turns a failed status into the exception that fits, with the library's own message."""
        if status:
            self._raise(status)

    def signatures(self) -> tuple[Signature, ...]:
        """Inputs and outputs of each plan as the library itself describes them."""
        return tuple(
            Signature(
                tuple(_spec(self.call("input", plan, i).contents) for i in range(self.call("inputs"))),
                tuple(_spec(self.call("output", plan, i).contents) for i in range(self.call("outputs"))),
            )
            for plan in range(self.call("plans"))
        )

    def close(self) -> None:
        """Unloads the library: no context of it may be left."""
        self._functions.clear()
        _ctypes.dlclose(self._dll._handle)

    def _raise(self, status: int) -> NoReturn:
        kind = _STATUS_ERRORS.get(status, BundleRunError)
        message = self.call("last_error") or self.call("strerror", status)
        raise kind(message, where=str(self._path))


@dataclass(frozen=True)
class Wish:
    """How a context shall run; None leaves the choice to the bundle."""

    threads: int | None = None
    level: str | None = None
    parallel_for: ParallelFor | None = None
    check_cpu: bool = True


class Context:
    """One ``PREFIX_context``: the level, weights and threads that runs share."""

    def __init__(self, library: Library, weights: Path, wish: Wish) -> None:
        self._library = library
        self._failures: dict[int, BaseException] = {}
        self._callback = None if wish.parallel_for is None else _C_PARALLEL_FOR(self._adapt(wish.parallel_for))
        options = _Options(
            wish.threads or 0,
            0 if wish.check_cpu else _UNCHECKED_LEVEL,
            None if wish.level is None else wish.level.encode(),
            bytes(weights),
            ctypes.cast(self._callback, _POINTER) if self._callback else None,
            None,
        )
        self._pointer = _POINTER()
        library.check(library.call("create", ctypes.byref(self._pointer), ctypes.byref(options)))

    @property
    def level(self) -> str:
        return str(self._library.call("level", self._pointer))

    @property
    def threads(self) -> int:
        return int(self._library.call("threads", self._pointer))

    def workspace_size(self, plan: int) -> int:
        return int(self._library.call("workspace_size", self._pointer, plan))

    def labels(self, plan: int) -> list[str]:
        """The layer that each step computes."""
        count = self._library.call("steps", self._pointer, plan)
        return [self._library.call("step_label", self._pointer, plan, step) for step in range(count)]

    def bind(
        self, plan: int, inputs: list[int], outputs: list[int], nanoseconds: int | None = None
    ) -> Callable[[], None]:
        """What runs a plan on buffers given by address, as often as it is called."""
        sources = (_POINTER * len(inputs))(*inputs)
        targets = (_POINTER * len(outputs))(*outputs)

        def run() -> None:
            status = self._library.call("run_profiled", self._pointer, plan, sources, targets, None, nanoseconds)
            if failure := self._failures.pop(threading.get_ident(), None):
                raise failure
            self._library.check(status)

        return run

    def close(self) -> None:
        self._library.call("destroy", self._pointer)
        self._pointer = _POINTER()

    def _adapt(self, parallel_for: ParallelFor) -> Callable[..., int]:
        """C cannot carry a Python exception: it is kept for the thread, and raised when its run returns."""

        def adapted(_user: int, pieces: int, body: int, state: int) -> int:
            function = _C_BODY(body)
            try:
                parallel_for(pieces, lambda begin, end: function(state, begin, end))
            except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt too must cross the C frames
                self._failures[threading.get_ident()] = error
                return 1
            return 0

        return adapted


def _open(path: Path, prefix: str, build: str) -> ctypes.CDLL:
    """Loads the file that is there now.

    The dynamic linker answers a path it has seen with the library it loaded then, even when the file was replaced
    since; the same file under another spelling of the path is looked at anew.
    """
    found = ""
    for detour in range(_RELOADS):
        spelled = f"{path.parent}/{'./' * detour}{path.name}"
        try:
            dll = ctypes.CDLL(spelled)
            found = _declare(dll, prefix, "build")().decode("utf-8", "replace")
        except (OSError, AttributeError) as error:
            raise BundleCorruptError(f"the library cannot be loaded: {error}", where=str(path)) from error
        if found == build:
            return dll
        _ctypes.dlclose(dll._handle)
    raise BundleCorruptError("library and manifest are of different bundles", where=str(path))


def _declare(dll: ctypes.CDLL, prefix: str, name: str) -> Any:
    function = getattr(dll, f"{prefix}_{name}")
    function.restype, function.argtypes = _FUNCTIONS[name]
    return function


def _spec(tensor: Any) -> TensorSpec:
    scale = float(tensor.scale)
    return TensorSpec(
        name=tensor.name.decode("utf-8", "replace"),
        dtype=_DTYPES[tensor.dtype],
        shape=tuple(tensor.shape[i] for i in range(tensor.rank)),
        scale=scale or None,
        zero_point=int(tensor.zero_point) if scale else None,
        alignment=int(tensor.alignment),
    )
