"""Loads a bundle in Python, with numpy and the standard library alone.

    bundle = octavo.load("mobilenet.octavo")
    scores = bundle(image)                      # one input, one output
    results = bundle.run({"image": image})      # {output name: array}

Loading a bundle runs its code: load only what you trust as you would trust a program.
"""

from __future__ import annotations

import ctypes
import os
import platform
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from ..closing import Closing
from .elf import machine_of
from .errors import BundleCorruptError, BundleMachineError, BundleRunError, InputError
from .library import Context, Library, ParallelFor, Wish
from .manifest import Manifest, digest_file, read_manifest
from .program import Signature, TensorSpec

Array: TypeAlias = npt.NDArray[Any]
Inputs: TypeAlias = Array | Mapping[str, Array]

#: A library up to this size is digested on each load; a larger one (with embedded weights) by verify() only.
_DIGEST_ON_LOAD = 16 << 20
_WEIGHTS_FILE = "weights.bin"

_Result = TypeVar("_Result")

#: An array, and the address of its first element.
_Placed: TypeAlias = tuple[Array, int]


@dataclass(frozen=True)
class StepTime:
    """Nanoseconds that one step of a run took; ``label`` names the layer."""

    label: str
    nanoseconds: int


@dataclass(frozen=True)
class _Tensor:
    """What a run asks of a `TensorSpec`, in numpy's terms and ready: small networks run for microseconds."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    bytes: int
    alignment: int

    @staticmethod
    def of(spec: TensorSpec) -> _Tensor:
        return _Tensor(spec.name, np.dtype(spec.dtype), spec.shape, spec.bytes, spec.alignment)

    def allocate(self) -> _Placed:
        """A new array, aligned as kernels want it."""
        octets = np.empty(self.bytes + self.alignment - 1, np.uint8)
        address = _address(octets)
        start = -address % self.alignment
        return np.ndarray(self.shape, self.dtype, octets, start), address + start

    def place(self, array: Array) -> _Placed:
        """The array itself when kernels can read it in place, or an aligned row-major copy."""
        if array.flags.c_contiguous:
            address = _address(array)
            if address % self.alignment == 0:
                return array, address
        return self.copy(array)

    def copy(self, array: Array) -> _Placed:
        """What the array holds, in a new one."""
        placed = self.allocate()
        placed[0][...] = array
        return placed


@dataclass(frozen=True)
class _Plan:
    """The tensors of a `Signature`, and names and shapes of the inputs."""

    inputs: tuple[_Tensor, ...]
    outputs: tuple[_Tensor, ...]
    names: frozenset[str]
    shapes: list[tuple[int, ...]]

    @staticmethod
    def of(signature: Signature) -> _Plan:
        inputs, outputs = (tuple(map(_Tensor.of, specs)) for specs in (signature.inputs, signature.outputs))
        return _Plan(inputs, outputs, frozenset(spec.name for spec in inputs), [spec.shape for spec in inputs])


@dataclass(frozen=True)
class Binding:
    """A bundle with arrays that stay: `Bundle.bind` makes it.

    A run reads `inputs`, which are written in place, and overwrites `outputs`. No array is checked, copied or allocated
    any more, which is most of what a call from Python costs. One thread at a time may use it.
    """

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    _run: Callable[[], None]

    def run(self) -> None:
        """Computes `outputs` from what `inputs` hold now.

        Raises:
            BundleRunError: the bundle is closed.
        """
        self._run()


class Bundle(Closing):
    """A compiled network. May be used from several threads at once, and in a child process after fork.

    Close it (or use ``with``) to give threads and memory back at once; otherwise they go with the object.
    """

    def __init__(self, folder: Path, manifest: Manifest, library: Library, context: Context) -> None:
        self._folder = folder
        self._library = library
        self._context = context
        self._lock = threading.Lock()
        self._running = 0
        self._closed = False
        self._plans = tuple(map(_Plan.of, manifest.signatures))
        self.manifest = manifest
        self.level = context.level
        self.threads = context.threads
        _BUNDLES.add(self)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Inputs of the first plan; ``manifest.signatures`` has those of every input shape."""
        return self.manifest.signatures[0].inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        return self.manifest.signatures[0].outputs

    def __call__(self, inputs: Inputs) -> Array:
        """Runs a network of one output and returns its array; ``run`` serves any number."""
        if len(self.outputs) != 1:
            names = ", ".join(spec.name for spec in self.outputs)
            raise InputError(
                f"the network has {len(self.outputs)} outputs: {names}", hint="bundle.run(...), a dict by name"
            )
        (result,) = self.run(inputs).values()
        return result

    def run(self, inputs: Inputs) -> dict[str, Array]:
        """Runs on arrays by input name, or on the array of the only input; returns fresh arrays by output name.

        Dtypes and shapes must be those of ``inputs`` (or of another plan's); strides and alignment are free.

        Raises:
            InputError: wrong names, dtypes or shapes.
        """
        plan, sources, targets = self._buffers(inputs, _Tensor.place)
        self._use(self._context.bind(plan, _addresses(sources), _addresses(targets)))
        return _by_name(self._plans[plan].outputs, targets)

    def bind(self, inputs: Inputs) -> Binding:
        """Copies inputs into arrays of their own, for runs that follow each other at the least cost.

        Raises:
            InputError: as of `run`.
        """
        plan, sources, targets = self._buffers(inputs, _Tensor.copy)
        call = self._context.bind(plan, _addresses(sources), _addresses(targets))
        specs = self._plans[plan]
        return Binding(
            MappingProxyType(_by_name(specs.inputs, sources)),
            MappingProxyType(_by_name(specs.outputs, targets)),
            lambda: self._use(call),
        )

    def profile(self, inputs: Inputs) -> list[StepTime]:
        """Runs once and returns the time of each step."""
        plan, sources, targets = self._buffers(inputs, _Tensor.place)
        labels = self._use(lambda: self._context.labels(plan))
        times = np.zeros(len(labels) + 1, np.uint64)
        self._use(self._context.bind(plan, _addresses(sources), _addresses(targets), _address(times)))
        return [StepTime(label, int(time)) for label, time in zip(labels, times, strict=False)]

    def verify(self) -> None:
        """Reads every file of the bundle and compares its digest with the manifest's.

        Raises:
            BundleCorruptError: names the first file that is missing, truncated or altered.
        """
        verify_files(self._folder, self.manifest)

    def close(self) -> None:
        """Ends the bundle's threads and unloads its code. A second call does nothing.

        Raises:
            BundleRunError: a run is still going on in another thread.
        """
        with self._lock:
            if self._closed:
                return
            if self._running:
                raise BundleRunError("the bundle is running in another thread and cannot be closed")
            self._closed = True
        self._context.close()
        self._library.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()

    def __repr__(self) -> str:
        return f"<octavo bundle {self.manifest.name!r}, level {self.level}, {self.threads} threads>"

    def _buffers(
        self, inputs: Inputs, place: Callable[[_Tensor, Array], _Placed]
    ) -> tuple[int, list[_Placed], list[_Placed]]:
        """The plan for these inputs, each as `place` puts it where kernels can read it, and arrays for the outputs."""
        named = _name_inputs(inputs, self._plans[0])
        number = _choose_plan(named, self._plans)
        plan = self._plans[number]
        sources = [place(tensor, named[tensor.name]) for tensor in plan.inputs]
        return number, sources, [tensor.allocate() for tensor in plan.outputs]

    def _use(self, call: Callable[[], _Result]) -> _Result:
        """What `call` returns; meanwhile the bundle cannot be closed."""
        with self._lock:
            if self._closed:
                raise BundleRunError("the bundle is closed")
            self._running += 1
        try:
            return call()
        finally:
            with self._lock:
                self._running -= 1

    def _after_fork(self) -> None:
        """In the child no other thread runs, and none gives back a lock that it held."""
        self._lock = threading.Lock()
        self._running = 0


_BUNDLES: weakref.WeakSet[Bundle] = weakref.WeakSet()


def _after_fork() -> None:
    for bundle in list(_BUNDLES):
        bundle._after_fork()


os.register_at_fork(after_in_child=_after_fork)


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    level: str | None = None,
    parallel_for: ParallelFor | None = None,
    check_cpu: bool = True,
) -> Bundle:
    """Loads the bundle in folder ``path``.

    Args:
        path: the bundle's folder.
        threads: how many threads a run uses; None: ``OCTAVO_NUM_THREADS``, or the CPUs this process may use.
        level: one of the bundle's instruction-set levels; None: the best this CPU supports.
        parallel_for: runs the pieces of a step instead of the bundle's own threads, at most ``threads`` at a time.
        check_cpu: False takes ``level`` on trust, for tests that emulate instructions.

    Raises:
        BundleFormatError: not a bundle, or of a newer format.
        BundleCorruptError: a file is missing, truncated or altered (quick checks; ``verify`` reads everything).
        BundleMachineError: this machine cannot run it.
    """
    folder = Path(path).absolute()
    manifest = read_manifest(folder)
    _check_architecture(folder, manifest)
    _check_level(folder, manifest, level)
    _check_files(folder, manifest)
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads", expected="at least 1, or None")
    library = Library(folder / manifest.library, manifest.prefix, manifest.build)
    try:
        _check_description(folder, manifest, library.signatures())
        context = Context(library, folder / _WEIGHTS_FILE, Wish(threads, level, parallel_for, check_cpu))
    except BaseException:
        library.close()
        raise
    return Bundle(folder, manifest, library, context)


def verify_files(folder: Path, manifest: Manifest) -> None:
    """Reads every file of a bundle, for whatever machine, and compares its digest with the manifest's.

    Raises:
        BundleCorruptError: names the first file that is missing, truncated or altered.
    """
    for name, record in manifest.files.items():
        _check_file(folder / name, record.bytes, record.sha256)


def _check_architecture(folder: Path, manifest: Manifest) -> None:
    here = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    if manifest.architecture != here:
        raise BundleMachineError(
            f"the bundle is for {manifest.architecture}, this machine is {here}",
            where=str(folder),
            hint="compile the model for this machine's target",
        )


def _check_level(folder: Path, manifest: Manifest, level: str | None) -> None:
    known = [own.name for own in manifest.levels]
    if level is not None and level not in known:
        what = f"the bundle has no level {level!r}"
        raise BundleMachineError(what, where=str(folder), expected=f"one of {', '.join(known)}")


def _check_files(folder: Path, manifest: Manifest) -> None:
    needed = {manifest.library} | ({_WEIGHTS_FILE} if manifest.weights == "file" else set())
    missing = needed - manifest.files.keys()
    if missing:
        raise BundleCorruptError(f"the manifest has no record of {', '.join(sorted(missing))}", where=str(folder))
    for name in sorted(needed):
        _check_file(folder / name, manifest.files[name].bytes)
    library, record = folder / manifest.library, manifest.files[manifest.library]
    if machine_of(library) != manifest.architecture:
        raise BundleCorruptError(f"the library is not one for {manifest.architecture}", where=str(library))
    if record.bytes <= _DIGEST_ON_LOAD:
        _check_file(library, record.bytes, record.sha256)


def _check_file(path: Path, size: int, sha256: str | None = None) -> None:
    try:
        found = path.stat().st_size
        if found != size:
            raise BundleCorruptError(f"{path.name} holds {found} bytes", where=str(path), expected=f"{size} bytes")
        if sha256 is not None and digest_file(path).sha256 != sha256:
            raise BundleCorruptError(f"{path.name} was altered: its checksum is not the manifest's", where=str(path))
    except OSError as error:
        raise BundleCorruptError(f"{path.name} cannot be read: {error.strerror}", where=str(path)) from error


def _check_description(folder: Path, manifest: Manifest, signatures: tuple[Signature, ...]) -> None:
    """Buffers are sized by the manifest and filled by the library: they must agree."""
    described = tuple(
        Signature(tuple(map(_as_stored, plan.inputs)), tuple(map(_as_stored, plan.outputs)))
        for plan in manifest.signatures
    )
    if described != signatures:
        raise BundleCorruptError("the manifest describes other inputs or outputs than the library", where=str(folder))


def _as_stored(spec: TensorSpec) -> TensorSpec:
    """The library keeps scales as float32."""
    return spec if spec.scale is None else replace(spec, scale=float(np.float32(spec.scale)))


def _name_inputs(inputs: Inputs, plan: _Plan) -> Mapping[str, Array]:
    if not isinstance(inputs, (dict, Mapping)):  # a dict is found out faster
        if len(plan.inputs) != 1:
            expected = ", ".join(tensor.name for tensor in plan.inputs)
            raise InputError(f"one array for {len(plan.inputs)} inputs", expected=f"a dict with {expected}")
        inputs = {plan.inputs[0].name: inputs}
    if inputs.keys() != plan.names:
        given = ", ".join(map(str, inputs)) or "nothing"
        raise InputError(f"inputs given: {given}", expected=", ".join(tensor.name for tensor in plan.inputs))
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray):
            raise InputError(f"input {name!r} is a {type(array).__name__}", expected="a numpy array")
    return inputs


def _choose_plan(inputs: Mapping[str, Array], plans: tuple[_Plan, ...]) -> int:
    for tensor in plans[0].inputs:
        given = inputs[tensor.name].dtype
        if given != tensor.dtype:
            hint = f"{tensor.name}.astype({tensor.dtype.name!r})"
            raise InputError(f"input {tensor.name!r} has dtype {given}", expected=tensor.dtype.name, hint=hint)
    given_shapes = [inputs[tensor.name].shape for tensor in plans[0].inputs]
    for number, plan in enumerate(plans):
        if plan.shapes == given_shapes:
            return number
    shapes = ", ".join(f"{name}: {array.shape}" for name, array in inputs.items())
    known = "; ".join(", ".join(f"{tensor.name}: {tensor.shape}" for tensor in plan.inputs) for plan in plans)
    raise InputError(f"no plan for the input shapes {shapes}", expected=known)


def _by_name(tensors: tuple[_Tensor, ...], placed: list[_Placed]) -> dict[str, Array]:
    return {tensor.name: array for tensor, (array, _) in zip(tensors, placed, strict=True)}


def _addresses(placed: list[_Placed]) -> list[int]:
    return [address for _, address in placed]


def _address(array: Array) -> int:
    buffer: Any = array  # before Python 3.12 numpy does not declare that it is one
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    except (TypeError, ValueError):  # read-only or empty: four times as slow
        address: int = array.__array_interface__["data"][0]
        return address
