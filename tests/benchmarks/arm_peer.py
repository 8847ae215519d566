"""Guest instructions of one inference by ONNX Runtime's own aarch64 build, counted as `arm` counts those of a bundle.

Its network is made by its own quantizer from the float network and calibration inputs that octavo compiles from. It
runs in Debian's Python for arm64, under the same QEMU with the same plugin. Both are unpacked under ``.cache``: no
package is installed, apt keeps what it needs to know of arm64 in a folder of its own, and no rights are asked for.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from kernels.harness import instruction_plugin
from numpy.typing import NDArray
from support.missing import MissingError
from zoo import peers, zoo_model
from zoo.registry import Inputs

from .arm import CPUS, run_counted
from .building import CACHE
from .speed import calibration_of

VERSION = "1.23.2"
"""ONNX Runtime's; 1.31 crashes under QEMU 7.2."""
WHEELS = (f"onnxruntime=={VERSION}", "numpy==1.26.4")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux2014_aarch64", "manylinux_2_17_aarch64")
PYTHON = "3.11"
PACKAGES = (
    "libc6", "libexpat1", "libffi8", "libgcc-s1", "libpython3.11-minimal", "libpython3.11-stdlib", "libstdc++6",
    "python3.11", "python3.11-minimal", "zlib1g",
)  # fmt: skip
"""Debian's, without those that Python needs for modules that are not imported."""
ALIKE = 0.9
"""The least correlation of an answer under QEMU with that of this machine, whose kernels round otherwise: MobileNetV2
has 0.98, ResNet-18 0.9999."""
REQUIRED = "OCTAVO_REQUIRE_ARM"
_Run = tuple[int, NDArray[Any]]
"""Instructions of a process, and the first output of its last call."""


@dataclass(frozen=True)
class _Guest:
    """What runs under QEMU: a folder with ``root``, the system's files, and ``site``, Python's packages."""

    folder: Path

    def words(self, *arguments: str | Path) -> list[str | Path]:
        """QEMU's words after the plugin: Python without site packages of anyone's, nor writing compiled files."""
        root, script = self.folder / "root", Path(__file__).with_name("repeat_peer.py")
        python = root / "usr" / "bin" / f"python{PYTHON}"
        return ["-L", root, python, "-S", "-s", "-B", script, self.folder / "site", *arguments]


def measure(name: str, cpus: Sequence[str] = tuple(CPUS)) -> dict[str, Any]:
    """The ``version`` of ONNX Runtime, and by CPU the ``millions`` of instructions of a call from Python.

    Repeated runs differ by some 0.01 million, and Python's part of a call is 0.04. On max this version takes i8mm for
    matrix products (a MatMulInteger of 64 x 512 x 512 bytes: 0.99 million for neoverse-n1's 1.57), not for
    convolutions, so whole networks need as many as on neoverse-n1. With u8 activations they need 6 to 8 % more.
    """
    guest = _guest()
    model = zoo_model(name)
    network, inputs = peers.files(model, calibration_of(model)).qdq(signed=True), model.sample(3)
    expected = peers.answers(peers.session(network), inputs)[0]
    with tempfile.TemporaryDirectory(prefix="octavo-arm-peer-") as scratch:
        run = _runner(guest, network, inputs, Path(scratch))
        found: dict[str, float] = {}
        for cpu in cpus:
            # The first call also lays out memory that later ones find there.
            (short, _), (long, answer) = run(cpu, 2), run(cpu, 3)
            _check(answer, expected)
            found[cpu] = round((long - short) / 1e6, 3)
        return {"version": VERSION, "cpus": {cpu: {"millions": millions} for cpu, millions in found.items()}}


def _runner(guest: _Guest, network: Path, inputs: Inputs, scratch: Path) -> Callable[[str, int], _Run]:
    """The function returned runs a process that calls the network some times."""
    plugin, arrays, answer = instruction_plugin(scratch), scratch / "inputs.npz", scratch / "answer.npy"
    np.savez(arrays, *inputs)
    # Nothing of the caller's reaches the guest; hashes and numpy's threads would make one run unlike another.
    environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}

    def run(cpu: str, times: int) -> _Run:
        words = guest.words(network, arrays, str(times), answer)
        total, _ = run_counted(cpu, str(plugin), words, environment)
        return total, np.load(answer)

    return run


def _check(answer: NDArray[Any], expected: NDArray[Any]) -> None:
    """A count of something else is none: the same file must answer alike on this machine."""
    alike = float(np.corrcoef(answer.ravel(), expected.ravel())[0, 1])
    if alike < ALIKE:
        raise RuntimeError(f"under QEMU the network answers otherwise: correlation {alike:.3f}")


def _guest() -> _Guest:
    """Fetched unless it is there.

    Raises:
        MissingError: no QEMU, no tools of Debian, or what is fetched cannot be had.
    """
    _require("qemu-aarch64", "qemu-user")
    digest = hashlib.sha256(" ".join((*PACKAGES, *WHEELS, *PLATFORMS, PYTHON)).encode()).hexdigest()
    folder = CACHE / f"arm-peer-{digest[:16]}"
    if not folder.is_dir():
        _require("apt-get", "apt")
        _require("dpkg", "dpkg")
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
            draft = Path(scratch) / "guest"
            _unpack_system(draft / "root", Path(scratch))
            _unpack_packages(draft / "site")
            with suppress(OSError):  # of a folder that another process has made meanwhile
                draft.rename(folder)
    return _Guest(folder)


def _require(tool: str, package: str) -> None:
    if shutil.which(tool) is None:
        reason = f"{tool} is not installed (Debian package {package}); ONNX Runtime for ARM is unpacked and run by it"
        raise MissingError(reason, REQUIRED)


def _unpack_system(root: Path, scratch: Path) -> None:
    """Debian's packages of the release that this machine's sources name; apt's state lies in ``scratch``."""
    state, cache, fetched = (scratch / name for name in ("state", "cache", "fetched"))
    for folder in (root, state / "lists" / "partial", cache / "archives" / "partial", fetched):
        folder.mkdir(parents=True)
    status = state / "status"
    status.touch()
    places = (f"Dir::State={state}", f"Dir::State::status={status}", f"Dir::Cache={cache}")
    # The user that a privileged apt would become may not write there.
    foreign = ("APT::Architecture=arm64", "APT::Architectures=arm64", "APT::Sandbox::User=root")
    apt = ["apt-get", "--quiet", *(word for option in (*places, *foreign) for word in ("-o", option))]
    _fetch("lists of Debian's packages for arm64", [*apt, "update"], fetched)
    _fetch(f"Python {PYTHON} for arm64 from Debian", [*apt, "download", *PACKAGES], fetched)
    for archive in sorted(fetched.glob("*.deb")):
        subprocess.run(["dpkg", "--extract", archive, root], check=True)


def _unpack_packages(folder: Path) -> None:
    places = (word for platform in PLATFORMS for word in ("--platform", platform))
    wanted = ("--only-binary=:all:", "--python-version", PYTHON, "--no-deps", "--no-compile", *places)
    words: list[str | Path] = [sys.executable, "-m", "pip", "install", "--quiet", "--target", folder, *wanted, *WHEELS]
    _fetch(f"{' and '.join(WHEELS)} for aarch64", words, folder.parent)


def _fetch(what: str, words: Sequence[str | Path], folder: Path) -> None:
    result = subprocess.run(words, check=False, capture_output=True, text=True, cwd=folder)
    if result.returncode:
        raise MissingError(f"{what} cannot be fetched: {result.stderr.strip()}", REQUIRED)
