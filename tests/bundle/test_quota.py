"""How many threads a container's CPU quota leaves, for control groups of both versions described by files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from octavo.backends import runtime
from octavo.backends.bundle.link import find_toolchain, host_architecture

HEADERS = "#define _GNU_SOURCE\n#include <stdint.h>\n#include <stdio.h>\n#include <string.h>\n"
V1 = "9:name=systemd:/\n3:cpuset:/\n2:cpuacct,cpu:{path}\n1:memory:/\n0::/\n"
V2 = "0::{path}\n"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("quota")
    source = (Path(runtime.__file__).parent / "quota.c").read_text()
    (folder / "unit.c").write_text(HEADERS + source + (Path(__file__).parent / "quota.c").read_text())
    toolchain = find_toolchain(host_architecture())
    toolchain.run("-std=gnu11", "-Wall", "-Wextra", "-Werror", folder / "unit.c", "-o", folder / "quota")
    return folder / "quota"


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        pytest.param(V2.format(path="/"), {"cpu.max": "200000 100000"}, 2, id="the root of a container"),
        pytest.param(V2.format(path="/"), {"cpu.max": "max 100000"}, 0, id="no limit"),
        pytest.param(V2.format(path="/"), {"cpu.max": "150000 100000"}, 2, id="a part of a CPU counts as one"),
        pytest.param(V2.format(path="/"), {"cpu.max": "5000 100000"}, 1, id="less than one CPU"),
        pytest.param(V2.format(path="/"), {"cpu.max": ""}, 0, id="an empty file"),
        pytest.param(V2.format(path="/"), {}, 0, id="no file"),
        pytest.param(V2.format(path="/a/b"), {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 1"}, 3, id="outer"),
        pytest.param(V2.format(path="/a/b"), {"a/cpu.max": "300000 100000", "a/b/cpu.max": "1 1"}, 1, id="inner"),
        pytest.param(V2.format(path="/../host/7"), {"cpu.max": "400000 100000"}, 4, id="a path from outside"),
        pytest.param(
            V1.format(path="/"),
            {"cpu/cpu.cfs_quota_us": "250000", "cpu/cpu.cfs_period_us": "100000"},
            3,
            id="version 1",
        ),
        pytest.param(
            V1.format(path="/docker/1"),
            {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"},
            0,
            id="version 1, no limit",
        ),
        pytest.param(
            V1.format(path="/docker/1"),
            {"cpu/docker/1/cpu.cfs_quota_us": "50000", "cpu/docker/1/cpu.cfs_period_us": "50000"},
            1,
            id="version 1, a group",
        ),
    ],
)
def test_quota(program: Path, tmp_path: Path, membership: str, files: dict[str, str], cpus: int) -> None:
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mounts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = subprocess.run([program, tmp_path / "membership", tmp_path / "mounts"], capture_output=True, check=True)
    assert int(found.stdout) == cpus


def test_a_machine_without_control_groups(program: Path, tmp_path: Path) -> None:
    found = subprocess.run([program, tmp_path / "gone", tmp_path], capture_output=True, check=True)
    assert int(found.stdout) == 0
