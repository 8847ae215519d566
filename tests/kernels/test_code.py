"""What the machine code of kernels may contain: no fused multiply-adds in integer kernels, no foreign symbols."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from kernels import (
    test_chain,
    test_copy,
    test_depthwise,
    test_elementwise,
    test_float,
    test_layer_norm,
    test_places,
    test_pointwise,
    test_recurrence,
    test_reduce,
    test_resize,
    test_sampling,
    test_softmax,
    test_table,
)
from kernels.harness import pool
from kernels.levels import every_level
from octavo.backends.tvm.isa import ISAS
from octavo.backends.tvm.kernels.base import KernelSpec
from octavo.backends.tvm.kernels.conv import ConvSpec
from octavo.backends.tvm.kernels.epilogue import Epilogue

INTEGER: list[KernelSpec] = [
    *test_depthwise.CASES[:8],
    *test_elementwise.BINARIES,
    *test_elementwise.UNARIES,
    *test_reduce.CASES,
    *test_table.CASES,
    *test_softmax.CASES,
    *test_layer_norm.CASES,
]
MOVING: list[KernelSpec] = [*test_copy.COPIES[:9], *test_copy.BORDERS, *test_resize.NEAREST, *test_resize.GATHERS]
SINGLE: list[KernelSpec] = [
    *test_pointwise.POINTWISE,
    *test_pointwise.CASTS,
    *test_places.READS,
    *test_places.WRITES,
    *test_places.SCANS,
    *test_places.SORTS,
    *test_sampling.GRIDS,
    *test_sampling.POOLS,
]
FLOATS: list[KernelSpec] = [
    *test_chain.SHAPES,
    *test_float.REDUCTIONS,
    *test_float.CONVS,
    *test_float.MATMULS,
    *test_recurrence.SPECS,
]
FUSED = re.compile(r"\bv?fn?m(add|sub|la|ls)")
#: What LLVM makes of filling and copying loops, and helpers that TVM adds to every module.
KNOWN = {"memset", "memcpy", "memmove", "__truncsfhf2", "__extendhfsf2", "__extendsfhf2"}


def _compiled(specs: list[KernelSpec], level: str, folder: Path) -> tuple[Path, str]:
    path = folder / "kernels.o"
    path.write_bytes(pool().compile([(f"kernel_{number}", spec) for number, spec in enumerate(specs)], level))
    prefix = "aarch64-linux-gnu-" if ISAS[level].family == "arm" else ""
    return path, prefix


def _output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("level", every_level())
def test_integer_kernels_fuse_nothing(level: str, tmp_path: Path) -> None:
    path, prefix = _compiled(INTEGER, level, tmp_path)
    listing = _output(f"{prefix}objdump", "-d", "--no-show-raw-insn", str(path))
    assert len(listing) > 10000
    assert not [line for line in listing.splitlines() if FUSED.search(line.partition("\t")[2])]


@pytest.mark.parametrize("level", every_level())
def test_kernels_need_nothing_but_memory_functions(level: str, tmp_path: Path) -> None:
    path, prefix = _compiled([*INTEGER[:30], *MOVING, *SINGLE, *FLOATS], level, tmp_path)
    undefined = {line.split()[-1] for line in _output(f"{prefix}nm", "-u", str(path)).splitlines()}
    assert undefined <= KNOWN


@pytest.mark.parametrize("columns", [8, 16, 32])
@pytest.mark.parametrize("level", ["avx512vnni", "amx"])
def test_tables_are_looked_up_by_whole_vectors(level: str, columns: int, tmp_path: Path) -> None:
    """Tiles of few channels fill a vector of bytes with those of several pixels: a lookup costs as much for sixteen."""
    path, prefix = _compiled([ConvSpec.matmul(28, 64, columns, Epilogue(table=True))], level, tmp_path)
    listing = _output(f"{prefix}objdump", "-d", "--no-show-raw-insn", str(path))
    lookups = re.findall(r"vpshufb .*", listing)
    assert lookups
    assert all("%zmm" in lookup for lookup in lookups)
