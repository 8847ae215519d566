"""What the machine code of kernels may contain: no fused multiply-adds in integer kernels, no foreign symbols.

The harness looks for foreign symbols in all that it compiles.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from kernels import test_depthwise, test_elementwise, test_layer_norm, test_reduce, test_softmax, test_table
from kernels.faulty import FaultySpec
from kernels.harness import pool, run_kernel
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
FUSED = re.compile(r"\bv?fn?m(add|sub|la|ls)")


def _listing(specs: list[KernelSpec], level: str, folder: Path) -> str:
    path = folder / "kernels.o"
    path.write_bytes(pool().compile([(f"kernel_{number}", spec) for number, spec in enumerate(specs)], level))
    objdump = "aarch64-linux-gnu-objdump" if ISAS[level].family == "arm" else "objdump"
    command = [objdump, "-d", "--no-show-raw-insn", str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("level", every_level())
def test_integer_kernels_fuse_nothing(level: str, tmp_path: Path) -> None:
    listing = _listing(INTEGER, level, tmp_path)
    assert len(listing) > 10000
    assert not [line for line in listing.splitlines() if FUSED.search(line.partition("\t")[2])]


def test_kernels_need_nothing_but_memory_functions() -> None:
    with pytest.raises(AssertionError, match="kernels on avx2 call expf"):
        run_kernel(FaultySpec("foreign"), "avx2", {"out": np.zeros(1, "float32")})


@pytest.mark.parametrize("columns", [8, 16, 32])
@pytest.mark.parametrize("level", ["avx512vnni", "amx"])
def test_tables_are_looked_up_by_whole_vectors(level: str, columns: int, tmp_path: Path) -> None:
    """Tiles of few channels fill a vector of bytes with those of several pixels: a lookup costs as much for sixteen."""
    listing = _listing([ConvSpec.matmul(28, 64, columns, Epilogue(table=True))], level, tmp_path)
    lookups = re.findall(r"vperm[it]2[bw] .*", listing)
    assert lookups
    assert all("%zmm" in lookup for lookup in lookups)


@pytest.mark.parametrize("level", ["avx512vnni", "amx"])
def test_results_of_a_relu_are_rescaled_narrowed_and_brought_in_order(level: str, tmp_path: Path) -> None:
    """Nothing is added to them, neither a bias nor a zero point, and each vector of bytes is permuted once."""
    spec = ConvSpec.matmul(28, 64, 32, Epilogue(whole=True, unshifted=True))
    found = re.findall(r"vpaddsw|vpaddd|vpermd|vpackuswb", _listing([spec], level, tmp_path))
    assert set(found) == {"vpermd", "vpackuswb"}
    assert found.count("vpermd") == found.count("vpackuswb")


@pytest.mark.parametrize("level", every_level("avx2", "avxvnni", "avx512vnni", "amx"))
def test_kernels_that_spill_vectors_align_their_stack(level: str, tmp_path: Path) -> None:
    """A spilled vector that straddles two cache lines costs some kernels a quarter of their speed."""
    listing = _listing(INTEGER, level, tmp_path)
    functions = re.split(r"^\w+ <(?=\w+>:)", listing, flags=re.MULTILINE)[1:]
    spilling = [text for text in functions if re.search(r"\(%rsp\),%[yz]mm|%[yz]mm\d+,[-\w]*\(%rsp\)", text)]
    assert spilling
    mask = (1 << 64) - 4 * ISAS[level].lanes
    assert all(f"${mask:#x},%rsp" in text for text in spilling)
