"""What a machine can reach, measured by bare instructions, and which of its limits bounds a kernel.

The model is the roofline of Williams, Waterman and Patterson (2009) with a third limit: results must be rescaled and
narrowed to bytes, which for short sums costs more than the products. ``roofline.c`` holds the instructions.
"""

from __future__ import annotations

import ctypes
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..bundle.link import find_toolchain, host_architecture
from ..bundle.program import Work
from .timing import Clock, clock_for

Bound = Literal["compute", "epilogue", "memory"]

SOURCE = Path(__file__).with_name("roofline.c")
READ_BYTES = tuple(1024 << shift for shift in range(4, 17))
"""Sizes of buffers that are read again and again: 16 KB to 64 MB."""
LEAST_NANOSECONDS = 4_000_000
TRIES = 5
PAGE = 4096


@dataclass(frozen=True)
class _Probe:
    """A function of roofline.c and how much one round of it is: multiply-accumulates or results."""

    function: str
    per_round: int


_ZMM = {"vnni": _Probe("vnni_zmm", 12 * 64), "fma": _Probe("fma_zmm", 12 * 16)}
_ARM = {"fma": _Probe("fmla", 12 * 4), "smlal": _Probe("smlal", 12 * 16), "smull": _Probe("smull", 12 * 8)}
_DOTPROD = {**_ARM, "sdot": _Probe("sdot", 12 * 16)}
_FMA_YMM = _Probe("fma_ymm", 12 * 8)

MULTIPLY: Mapping[str, Mapping[str, _Probe]] = {
    "avx2": {"pmaddwd": _Probe("pmaddwd_ymm", 12 * 16), "fma": _FMA_YMM},
    "avxvnni": {"vnni": _Probe("vnni_ymm", 12 * 32), "pmaddwd": _Probe("pmaddwd_ymm", 12 * 16), "fma": _FMA_YMM},
    "avx512vnni": _ZMM,
    "amx": {"amx": _Probe("amx_tiles", 4 * 16 * 16 * 64), **_ZMM},
    "neon": _ARM,
    "dotprod": _DOTPROD,
    "i8mm": {"smmla": _Probe("smmla", 12 * 32), **_DOTPROD},
}
"""The instructions of each level by `Work.instruction`, the strongest first."""

_RESCALE_YMM, _RESCALE_ZMM, _RESCALE_ARM = _Probe("rescale_ymm", 32), _Probe("rescale_zmm", 64), _Probe("rescale", 16)
_OTHERS: Mapping[str, tuple[_Probe, str]] = {
    **dict.fromkeys(("avx2", "avxvnni"), (_RESCALE_YMM, "read_ymm")),
    **dict.fromkeys(("avx512vnni", "amx"), (_RESCALE_ZMM, "read_zmm")),
    **dict.fromkeys(("neon", "dotprod", "i8mm"), (_RESCALE_ARM, "read_all")),
}
"""How results are rescaled, and the function that reads memory, by level."""


@dataclass(frozen=True)
class Machine:
    """What a level reaches on this machine with some threads, per nanosecond.

    ``peaks`` are multiply-accumulates by instruction, ``rescale`` is results, ``bandwidth`` bytes by the size of the
    buffer that they are read from.
    """

    level: str
    threads: int
    peaks: Mapping[str, float]
    rescale: float
    bandwidth: Mapping[int, float]

    @property
    def peak(self) -> float:
        """What the strongest instruction reaches."""
        return max(self.peaks.values())

    def bytes_per_nanosecond(self, footprint: int) -> float:
        """Bandwidth of a working set, between those of the measured buffers around it."""
        sizes = sorted(self.bandwidth)
        rates = [self.bandwidth[size] for size in sizes]
        return float(np.interp(np.log(max(1, footprint)), np.log(sizes), rates))


@dataclass(frozen=True)
class Limits:
    """The fewest nanoseconds that each limit leaves a kernel."""

    compute: float
    epilogue: float
    memory: float
    overlap: bool

    @property
    def bound(self) -> Bound:
        """The limit that takes longest."""
        times: dict[Bound, float] = {"compute": self.compute, "epilogue": self.epilogue, "memory": self.memory}
        return max(times, key=lambda name: times[name])

    @property
    def nanoseconds(self) -> float:
        """All limits together: products and results share the vector units, unless products have units of their own."""
        busy = max(self.compute, self.epilogue) if self.overlap else self.compute + self.epilogue
        return max(busy, self.memory)


def limits(work: Work, machine: Machine, footprint: int) -> Limits:
    """The limits of a kernel in a network that moves ``footprint`` bytes.

    Weights come from wherever all that the network moves has room, as they were last read one inference ago;
    activations from where the kernel's own have, as they were just written.
    """
    moved = work.read + work.written
    return Limits(
        compute=work.macs / machine.peaks.get(work.instruction, machine.peak),
        epilogue=work.rescaled / machine.rescale,
        memory=moved / machine.bytes_per_nanosecond(moved)
        + work.constants / machine.bytes_per_nanosecond(max(footprint, work.constants)),
        overlap=work.instruction == "amx",
    )


def measure_machine(level: str, threads: int = 1) -> Machine:
    """Measure a level of this machine; takes some seconds.

    Raises:
        ToolchainError: there is no C compiler here, or one that does not know the instructions.
    """
    toolchain = find_toolchain(host_architecture())
    with tempfile.TemporaryDirectory(prefix="octavo-roofline-") as folder:
        library = Path(folder, "roofline.so")
        toolchain.run("-std=gnu11", "-O2", "-fPIC", "-shared", *toolchain.baseline_flags(), SOURCE, "-o", library)
        bench = _Bench(ctypes.CDLL(str(library)), threads)
        rescale, read = _OTHERS[level]
        return Machine(
            level,
            threads,
            {name: bench.rate(probe) for name, probe in MULTIPLY[level].items()},
            bench.rate(rescale),
            {size: bench.rate(_Probe(read, size), size) for size in READ_BYTES},
        )


class _Bench:
    """Runs functions of roofline.c on some threads at once."""

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self._library = library
        self._threads = threads

    def rate(self, probe: _Probe, size: int = 4096) -> float:
        """Units per nanosecond of all threads together, the best of some tries, on buffers of ``size`` bytes each."""
        buffers = [_buffer(size) for _ in range(self._threads)]
        function = getattr(self._library, probe.function)
        function.restype, function.argtypes = None, (ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
        rounds = 1
        while (taken := self._run(function, rounds, buffers)) < LEAST_NANOSECONDS:
            rounds *= 2 if taken > LEAST_NANOSECONDS // 16 else 8
        best = min(self._run(function, rounds, buffers) for _ in range(TRIES))
        return rounds * probe.per_round * self._threads / best

    def _run(self, function: ctypes._NamedFuncPointer, rounds: int, buffers: Sequence[np.ndarray]) -> int:
        """Nanoseconds until the last thread is done."""
        if len(buffers) == 1:
            return _timed(function, rounds, buffers[0], clock_for(1))
        barrier = threading.Barrier(len(buffers))

        def work(buffer: np.ndarray) -> int:
            barrier.wait()
            return _timed(function, rounds, buffer, clock_for(len(buffers)))

        with ThreadPoolExecutor(len(buffers)) as pool:
            return max(pool.map(work, buffers))


def _timed(function: ctypes._NamedFuncPointer, rounds: int, buffer: np.ndarray, clock: Clock) -> int:
    address = buffer.ctypes.data
    results = address + buffer.nbytes - PAGE
    start = clock()
    function(rounds, address, results)
    return clock() - start


def _buffer(size: int) -> np.ndarray:
    """Zeros but for the size in front, on pages of their own, with room for results on the last."""
    words = np.full((size + 2 * PAGE) // 8, 0, np.int64)
    start = -words.ctypes.data % PAGE // 8
    words[start] = size
    return words[start : start + (size + PAGE) // 8]
