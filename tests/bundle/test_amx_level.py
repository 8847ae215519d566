"""The amx level, in the caller's thread and in the pool's: on the machine's tiles, or emulated where it has none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from octavo.backends.bundle.errors import BundleMachineError
from octavo.backends.bundle.link import find_toolchain, host_architecture
from octavo.backends.bundle.loader import load
from octavo.backends.bundle.program import LevelProgram, PlanProgram, Program, Ref, Signature, Step, TensorSpec
from octavo.backends.bundle.weights import WeightStore
from octavo.backends.bundle.writer import BundleContents, write_bundle

pytestmark = pytest.mark.skipif(host_architecture() != "x86_64", reason="AMX is an extension of x86-64")
HERE = Path(__file__).parent
TASKS = 8

HAS_TILES = "amx_tile" in Path("/proc/cpuinfo").read_text()

#: Runs in a process of its own: a tile instruction that is refused ends it.
SCRIPT = """
import ctypes, sys
import numpy as np, octavo
emulator = ctypes.CDLL(sys.argv[4]) if len(sys.argv) > 4 else None
assert emulator is None or emulator.octavo_amx_emulator_install() == 0
left = np.load(sys.argv[2])
with octavo.load(sys.argv[1], level="amx", threads=3, check_cpu=emulator is None) as bundle:
    for _ in range(200):
        result = bundle(left)
if emulator is not None:
    assert emulator.octavo_amx_emulator_executed() >= 200 * 8 * 4, "AMX was not used"
    assert not emulator.octavo_amx_emulator_configured(), "the tile configuration was not released"
np.save(sys.argv[3], result)
"""


@pytest.fixture(scope="module")
def right() -> npt.NDArray[np.int8]:
    return np.random.default_rng(1).integers(-128, 128, (64, 16), np.int8)


@pytest.fixture(scope="module")
def folder(right: npt.NDArray[np.int8], tmp_path_factory: pytest.TempPathFactory) -> Path:
    scratch = tmp_path_factory.mktemp("amx")
    find_toolchain("x86_64").run("-O1", "-fPIC", "-c", HERE / "amx_kernel.c", "-o", scratch / "kernel.o")
    store = WeightStore()
    packed = store.add(right.reshape(16, 4, 16).swapaxes(1, 2))
    step = Step("tiles_amx_product", (Ref.input(0), Ref.weights(packed), Ref.output(0)), TASKS, "product")
    level = LevelProgram("amx", ("amx-tile", "amx-int8"), (PlanProgram(0, 0, (step,)),))
    left, product = TensorSpec("left", "int8", (TASKS, 16, 64)), TensorSpec("product", "int32", (TASKS, 16, 16))
    program = Program("tiles", "x86_64", (Signature((left,), (product,)),), (level,))
    write_bundle(scratch / "b.octavo", BundleContents("tiles", "amx", program, store, (scratch / "kernel.o",)))
    return scratch / "b.octavo"


def test_products(folder: Path, right: npt.NDArray[np.int8], tmp_path: Path) -> None:
    left = np.random.default_rng(2).integers(-128, 128, (TASKS, 16, 64), np.int8)
    np.save(tmp_path / "left.npy", left)
    files = [folder, tmp_path / "left.npy", tmp_path / "product.npy"]
    if not HAS_TILES:
        files.append(tmp_path / "libamx_emulator.so")
        source = HERE.parent / "support" / "amx_emulator.c"
        find_toolchain("x86_64").run("-O3", "-fPIC", "-shared", source, "-o", files[-1])
    subprocess.run([sys.executable, "-c", SCRIPT, *files], check=True, timeout=60)
    np.testing.assert_array_equal(np.load(tmp_path / "product.npy"), left.astype(np.int32) @ right.astype(np.int32))


@pytest.mark.skipif(HAS_TILES, reason="this machine has AMX")
def test_refused_without_amx(folder: Path) -> None:
    with pytest.raises(BundleMachineError, match="even amx needs amx-tile"):
        load(folder)
