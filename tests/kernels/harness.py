"""Runs generated kernels on arrays: x86 levels in this process, ARM levels under QEMU, many cases at once.

Instructions of an x86 level that this machine lacks are imitated by those of AVX2 (``support/imitation.py``).
Every argument lies in its own mapping that ends in a guard page, as close behind the permitted over-read as alignment
allows, so that a kernel that reads or writes further dies. Outputs keep what the caller put into them where the kernel
does not write.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
import mmap
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from octavo.backends.bundle.elf import read_elf
from octavo.backends.tvm.isa import ISAS, Isa
from octavo.backends.tvm.kernels.base import Arg, KernelSpec
from octavo.backends.tvm.worker import CodegenPool

Array = npt.NDArray[Any]

#: The processor QEMU imitates for each ARM level: the weakest one of the level.
QEMU_CPUS = {"neon": "cortex-a53", "dotprod": "neoverse-n1", "i8mm": "max"}
#: All that a kernel may call: what LLVM makes of filling and copying loops, and helpers that TVM adds to every module.
KNOWN = {"memset", "memcpy", "memmove", "__truncsfhf2", "__extendhfsf2", "__extendsfhf2"}
_HERE = Path(__file__).parent
_PAGE = mmap.PAGESIZE


@dataclass(frozen=True)
class Case:
    """One kernel call: arrays by argument name, inputs and constants as stored, outputs prefilled by the caller."""

    spec: KernelSpec
    arrays: Mapping[str, Array]
    splits: int = field(default=2)


def run_kernel(spec: KernelSpec, isa: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Run one kernel; returns its outputs by name."""
    return run_kernels([Case(spec, arrays)], isa)[0]


def run_kernels(cases: Sequence[Case], isa_name: str, *, imitated: bool | None = None) -> list[dict[str, Array]]:
    """Compile the kernels of all cases into one object and run them; the outputs of each case by name.

    ``imitated`` says whether AVX2 does the work of an x86 level; by default where this machine lacks the level.
    """
    isa = ISAS[isa_name]
    run = _run_here if isa.family == "x86" else _run_qemu
    if imitated is None:
        imitated = is_imitated(isa_name)
    with _compiled(cases, isa_name, imitating_pool() if imitated else pool()) as (folder, calls):
        return run(calls, isa, folder)


@contextmanager
def _compiled(
    cases: Sequence[Case], isa_name: str, compilers: CodegenPool
) -> Generator[tuple[Path, list[tuple[str, Case]]]]:
    """A folder with ``kernels.o``, and each case with the symbol of its kernel: equal ones are compiled once."""
    symbols: dict[KernelSpec, str] = {}
    for case in cases:
        symbols.setdefault(case.spec, f"kernel_{len(symbols)}")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "kernels.o"
        path.write_bytes(compilers.compile([(symbol, spec) for spec, symbol in symbols.items()], isa_name))
        undefined = {symbol.name for symbol in read_elf(path).static if not symbol.defined}
        assert undefined <= KNOWN, f"kernels on {isa_name} call {', '.join(sorted(undefined - KNOWN))}"
        yield path.parent, [(symbols[case.spec], case) for case in cases]


@functools.cache
def pool() -> CodegenPool:
    """The code generation processes shared by all tests of this process."""
    return CodegenPool(1)


@functools.cache
def imitating_pool() -> CodegenPool:
    """Code generation processes whose kernels of any x86 level run on AVX2, for tests that run them."""
    return CodegenPool(1, "support.imitation")


def native_levels() -> list[str]:
    """The x86 ISA levels whose own instructions this machine has; AMX through the emulator if need be."""
    needs = {
        "avx2": {"avx2"},
        "avxvnni": {"avx_vnni"},
        "avx512vnni": {"avx512_vnni"},
        "amx": {"avx512_vnni", "avx512vbmi"},
    }
    return [name for name, flags in needs.items() if flags <= _cpu_flags()]


def runnable_levels() -> list[str]:
    """The x86 ISA levels that `run_kernels` runs on this machine: natively, or imitated."""
    return [isa.name for isa in ISAS.values() if isa.family == "x86"] if "avx2" in _cpu_flags() else []


def is_imitated(level: str) -> bool:
    """Whether a level runs here by the instructions of AVX2."""
    return level in runnable_levels() and level not in native_levels()


@functools.cache
def _cpu_flags() -> frozenset[str]:
    return frozenset(Path("/proc/cpuinfo").read_text().split())


def arm_levels() -> list[str]:
    """The ARM ISA levels that QEMU can run here."""
    tools = shutil.which("qemu-aarch64") and shutil.which("aarch64-linux-gnu-gcc")
    return list(QEMU_CPUS) if tools else []


def bind_kernels(cases: Sequence[Case], isa_name: str) -> list[Callable[[], None]]:
    """For each case a function that computes all of its tasks once, in this process and without guard pages.

    It is for measuring, so the machine must have the level.
    """
    isa = ISAS[isa_name]
    with _compiled(cases, isa_name, pool()) as (folder, calls):
        if isa_name == "amx":
            _allow_amx()
        library = ctypes.CDLL(str(_link(folder)))
    return [_bind(library[symbol], case, isa) for symbol, case in calls]


def _bind(function: Any, case: Case, isa: Isa) -> Callable[[], None]:
    slack = case.spec.over_read(isa)
    places = [_Guarded(_bytes_of(case, isa, arg), slack.get(arg.name, 0)) for arg in case.spec.args]
    pointers = [ctypes.c_void_p(place.address) for place in places]
    tasks = ctypes.c_int32(case.spec.tasks(isa))

    def call() -> None:
        assert places
        function(*pointers, ctypes.c_int32(0), tasks)

    return call


def count_instructions(cases: Sequence[Case], isa_name: str) -> list[int]:
    """Guest instructions of each case on an ARM level, counted by QEMU: what a second call of all its tasks adds."""
    isa = ISAS[isa_name]
    with _compiled(cases, isa_name, pool()) as (folder, calls):
        program, plugin = _driver(calls, folder), instruction_plugin(folder)

        def count(symbol: str, case: Case, times: int) -> int:
            (folder / "jobs").write_bytes(_job(symbol, case, isa, [(0, case.spec.tasks(isa))] * times))
            words = [
                "qemu-aarch64",
                "-plugin",
                str(plugin),
                str(program),
                str(folder / "jobs"),
                str(folder / "results"),
            ]
            environment = {**os.environ, "QEMU_CPU": QEMU_CPUS[isa_name]}
            result = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
            found = re.search(r"instructions (\d+)", result.stderr)
            assert found, result.stderr
            return int(found[1])

        return [count(*call, 2) - count(*call, 1) for call in calls]


def instruction_plugin(folder: Path) -> Path:
    """QEMU's plugin that counts instructions, built in ``folder``."""
    plugin = folder / "count.so"
    source = _HERE.parent / "support" / "instruction_count.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", str(source), "-o", str(plugin)], check=True)
    return plugin


def _bytes_of(case: Case, isa: Isa, arg: Arg) -> bytes:
    if arg.role == "scratch":
        return b"\xa5" * arg.bytes
    array = case.arrays[arg.name]
    expected = arg.dtype_on(isa)
    assert array.dtype == np.dtype(expected), f"{arg.name} is {array.dtype}, the kernel wants {expected}"
    return array.tobytes()


def _ranges(case: Case, isa: Isa) -> list[tuple[int, int]]:
    tasks = case.spec.tasks(isa)
    edges = sorted({tasks * part // case.splits for part in range(case.splits + 1)})
    return list(itertools.pairwise(edges)) or [(0, 0)]


class _Guarded:
    """Bytes in a mapping of their own; the page behind `slack` further bytes is inaccessible."""

    def __init__(self, data: bytes, slack: int) -> None:
        body = -(-(len(data) + slack + 64) // _PAGE) * _PAGE
        self._map = mmap.mmap(-1, body + _PAGE)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mprotect(ctypes.c_void_p(start + body), ctypes.c_size_t(_PAGE), 0) == 0
        self._size = len(data)
        self._offset = (body - len(data) - slack) // 64 * 64
        self.address = start + self._offset
        ctypes.memset(start, 0x5A, body)
        ctypes.memmove(self.address, data, len(data))

    def bytes(self) -> bytes:
        return ctypes.string_at(self.address, self._size)


def _run_here(calls: Sequence[tuple[str, Case]], isa: Isa, folder: Path) -> list[dict[str, Array]]:
    if isa.name == "amx":
        _allow_amx()
    library = ctypes.CDLL(str(_link(folder)))
    return [_call_here(library[symbol], case, isa) for symbol, case in calls]


def _link(folder: Path) -> Path:
    path = folder / "kernels.so"
    subprocess.run(["cc", "-shared", "-o", str(path), str(folder / "kernels.o")], check=True)
    return path


def _call_here(function: Any, case: Case, isa: Isa) -> dict[str, Array]:
    slack = case.spec.over_read(isa)
    args = case.spec.args
    places = [_Guarded(_bytes_of(case, isa, arg), slack.get(arg.name, 0)) for arg in args]
    pointers = [ctypes.c_void_p(place.address) for place in places]
    for begin, end in _ranges(case, isa):
        assert function(*pointers, ctypes.c_int32(begin), ctypes.c_int32(end)) == 0
    outputs = [(arg, place) for arg, place in zip(args, places, strict=True) if arg.role == "out"]
    return {arg.name: _like(case.arrays[arg.name], place.bytes()) for arg, place in outputs}


def _like(array: Array, data: bytes) -> Array:
    return np.frombuffer(data, array.dtype).reshape(array.shape)


@functools.cache
def _allow_amx() -> None:
    """Ask the kernel for the tile registers, or emulate them where the processor has none."""
    if "amx_int8" in _cpu_flags():
        assert ctypes.CDLL(None).syscall(158, 0x1023, 18) == 0
        return
    folder = tempfile.mkdtemp()
    library = Path(folder) / "libamx_emulator.so"
    source = _HERE.parent / "support" / "amx_emulator.c"
    subprocess.run(["cc", "-O3", "-fPIC", "-shared", str(source), "-o", str(library)], check=True)
    assert ctypes.CDLL(str(library)).octavo_amx_emulator_install() == 0


def _run_qemu(calls: Sequence[tuple[str, Case]], isa: Isa, folder: Path) -> list[dict[str, Array]]:
    program = _driver(calls, folder)
    (folder / "jobs").write_bytes(b"".join(_job(symbol, case, isa, _ranges(case, isa)) for symbol, case in calls))
    environment = {**os.environ, "QEMU_CPU": QEMU_CPUS[isa.name]}
    command = ["qemu-aarch64", str(program), str(folder / "jobs"), str(folder / "results")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"{isa.name} under QEMU: status {done.returncode} {done.stderr.strip()}")
    return _results((folder / "results").read_bytes(), calls)


def _driver(calls: Sequence[tuple[str, Case]], folder: Path) -> Path:
    """Link the kernels statically with the C driver and a table of calls."""
    counts = {symbol: len(case.spec.args) for symbol, case in calls}
    lines = ['#include "qemu_driver.h"']
    for symbol, count in counts.items():
        parameters = ", ".join(["void *"] * count)
        values = ", ".join(f"a[{position}]" for position in range(count))
        lines.append(f"int {symbol}({parameters}, int, int);")
        call = f"{symbol}({values}, begin, end)"
        lines.append(f"static int call_{symbol}(void **a, int begin, int end) {{ return {call}; }}")
    table = ", ".join(f'{{"{symbol}", call_{symbol}}}' for symbol in counts)
    lines.append(f"const struct entry entries[] = {{{table}, {{0, 0}}}};")
    (folder / "table.c").write_text("\n".join(lines) + "\n")
    sources = [str(_HERE / "qemu_driver.c"), str(folder / "table.c"), str(folder / "kernels.o")]
    program = folder / "driver"
    subprocess.run(["aarch64-linux-gnu-gcc", "-O1", "-static", f"-I{_HERE}", *sources, "-o", str(program)], check=True)
    return program


def _job(symbol: str, case: Case, isa: Isa, ranges: Sequence[tuple[int, int]]) -> bytes:
    slack = case.spec.over_read(isa)
    parts = [struct.pack("<32sii", symbol.encode(), len(case.spec.args), len(ranges))]
    parts += [struct.pack("<ii", *pair) for pair in ranges]
    for arg in case.spec.args:
        data = _bytes_of(case, isa, arg)
        parts.append(struct.pack("<qqq", len(data), slack.get(arg.name, 0), arg.role == "out"))
        parts.append(data)
    return b"".join(parts)


def _results(data: bytes, calls: Sequence[tuple[str, Case]]) -> list[dict[str, Array]]:
    outputs: list[dict[str, Array]] = []
    position = 0
    for _, case in calls:
        found: dict[str, Array] = {}
        for arg in (arg for arg in case.spec.args if arg.role == "out"):
            array = case.arrays[arg.name]
            found[arg.name] = _like(array, data[position : position + array.nbytes])
            position += array.nbytes
        outputs.append(found)
    assert position == len(data), sys.byteorder
    return outputs
