"""A bundle for aarch64, compiled here and run under QEMU's CPUs (or natively)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from bundle.programs import Program, build_driver, require_arm
from bundle.toys import Toy
from octavo.backends.bundle.errors import BundleMachineError
from octavo.backends.bundle.link import host_architecture
from octavo.backends.bundle.loader import load
from octavo.backends.bundle.writer import write_bundle

pytestmark = pytest.mark.arm
ARM_TOY = Toy(architecture="aarch64")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_arm()
    scratch = tmp_path_factory.mktemp("arm")
    ARM_TOY.write(scratch / "toy.octavo", scratch)
    return scratch / "toy.octavo"


@pytest.fixture(scope="module")
def driver(folder: Path) -> Program:
    return build_driver(ARM_TOY, folder, folder.parent, require_arm())


# "forks" is missing: QEMU 7.2 aborts when a forked child of a program with threads creates threads.
@pytest.mark.parametrize("mode", ["plain", "rounding", "threads", "sleepers", "crowd", "parallel", "guards", "misuse"])
def test_behaves(driver: Program, mode: str) -> None:
    driver.check(mode, QEMU_CPU="max")


@pytest.mark.skipif(host_architecture() == "aarch64", reason="QEMU chooses the CPU")
@pytest.mark.parametrize(("cpu", "level"), [("cortex-a53", "neon"), ("cortex-a72", "neon"), ("neoverse-n1", "dotprod")])
def test_takes_the_best_level_of_the_cpu(driver: Program, cpu: str, level: str) -> None:
    assert driver.check("plain", QEMU_CPU=cpu) == level


@pytest.mark.skipif(host_architecture() == "aarch64", reason="QEMU chooses the CPU")
def test_refuses_a_cpu_without_any_level(tmp_path: Path) -> None:
    contents = ARM_TOY.contents(tmp_path)
    program = replace(contents.program, levels=contents.program.levels[:1])
    write_bundle(tmp_path / "toy.octavo", replace(contents, program=program))
    driver = build_driver(ARM_TOY, tmp_path / "toy.octavo", tmp_path, require_arm())
    result = driver.run("plain", QEMU_CPU="cortex-a72")
    assert result.returncode == 12  # 10 + OCTAVO_BUNDLE_CPU
    assert "even dotprod needs dotprod" in result.stderr


@pytest.mark.skipif(host_architecture() == "aarch64", reason="needs a machine of another architecture")
def test_loader_refuses_another_architecture(folder: Path) -> None:
    with pytest.raises(BundleMachineError, match="is for aarch64, this machine is"):
        load(folder)
