"""The amx level on a machine without AMX: emulated, in the caller's thread and in the pool's."""

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

#: Runs in a process of its own: a tile instruction that the emulator refuses ends it.
SCRIPT = """
import ctypes, sys
import numpy as np, octavo
emulator = ctypes.CDLL(sys.argv[1])
assert emulator.octavo_amx_emulator_install() == 0
left = np.load(sys.argv[3])
with octavo.load(sys.argv[2], level="amx", threads=3, check_cpu=False) as bundle:
    for _ in range(200):
        result = bundle(left)
assert emulator.octavo_amx_emulator_executed() >= 200 * 8 * 4, "AMX was not used"
assert not emulator.octavo_amx_emulator_configured(), "the tile configuration was not released"
np.save(sys.argv[4], result)
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
    emulator = tmp_path / "libamx_emulator.so"
    source = HERE.parent / "support" / "amx_emulator.c"
    find_toolchain("x86_64").run("-O3", "-fPIC", "-shared", source, "-o", emulator)
    left = np.random.default_rng(2).integers(-128, 128, (TASKS, 16, 64), np.int8)
    np.save(tmp_path / "left.npy", left)
    files = [emulator, folder, tmp_path / "left.npy", tmp_path / "product.npy"]
    subprocess.run([sys.executable, "-c", SCRIPT, *files], check=True, timeout=60)
    np.testing.assert_array_equal(np.load(tmp_path / "product.npy"), left.astype(np.int32) @ right.astype(np.int32))


def test_refused_without_amx(folder: Path) -> None:
    if "amx_tile" in Path("/proc/cpuinfo").read_text():
        pytest.skip("this machine has AMX")
    with pytest.raises(BundleMachineError, match="even amx needs amx-tile"):
        load(folder)
