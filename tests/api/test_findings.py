"""What is kept of measurements: found again on the same CPU alone, and never a reason to fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from kernels.conv_cases import conv_spec
from octavo.backends.bench.timing import Ratio
from octavo.backends.findings import Finding, Findings
from octavo.backends.targets import host_cpu

SPEC = conv_spec((14, 14), (96, 64))
FOUND = Finding(tried=3, best=1, ratio=1.25)
COUNT = 5


@pytest.fixture
def findings(tmp_path: Path) -> Findings:
    return Findings(tmp_path, "avx2", "some CPU")


def test_what_is_written_is_read_again(findings: Findings, tmp_path: Path) -> None:
    assert findings.read(SPEC, COUNT) == Finding()
    findings.write(SPEC, FOUND)
    assert findings.read(SPEC, COUNT) == FOUND
    findings.write(SPEC, Finding(tried=5))
    assert findings.read(SPEC, COUNT) == Finding(tried=5)
    assert len(list(tmp_path.rglob("*.json"))) == 1
    assert not list(tmp_path.rglob(".*")), "no draft is left behind"


def test_other_cpus_levels_and_kernels_know_nothing_of_it(findings: Findings, tmp_path: Path) -> None:
    findings.write(SPEC, FOUND)
    assert Findings(tmp_path, "avx2", "another CPU").read(SPEC, COUNT) == Finding()
    assert Findings(tmp_path, "avx512vnni", "some CPU").read(SPEC, COUNT) == Finding()
    assert findings.read(conv_spec((14, 14), (96, 65)), COUNT) == Finding()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b'{"tried": 3',
        b"[3, 1, 1.25]",
        b'{"tried": "3", "best": 1, "ratio": 1.25}',
        b'{"tried": 3, "best": 3, "ratio": 1.25}',
        b'{"tried": 3, "best": -1, "ratio": 1.25}',
        b'{"tried": 9, "best": 1, "ratio": 1.25}',
        b'{"tried": 3, "best": 1}',
    ],
)
def test_a_damaged_file_is_as_good_as_none(findings: Findings, tmp_path: Path, content: bytes) -> None:
    findings.write(SPEC, FOUND)
    (path,) = tmp_path.rglob("*.json")
    path.write_bytes(content)
    assert findings.read(SPEC, COUNT) == Finding()
    findings.write(SPEC, FOUND)
    assert findings.read(SPEC, COUNT) == FOUND


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    for folder in (tmp_path / "file", None):
        findings = Findings(folder, "avx2", "some CPU")
        findings.write(SPEC, FOUND)
        assert findings.read(SPEC, COUNT) == Finding()


def test_an_alternative_wins_that_is_faster_for_certain_and_than_those_before() -> None:
    found = Finding().after(Ratio(1.3, 0.99, 1.5)).after(Ratio(1.1, 1.05, 1.2))
    assert found == Finding(tried=2, best=1, ratio=1.1)
    assert found.after(Ratio(1.08, 1.06, 1.1)) == Finding(tried=3, best=1, ratio=1.1)
    assert found.after(Ratio(1.2, 1.15, 1.3)) == Finding(tried=3, best=2, ratio=1.2)


EPYC = """
processor : 0
vendor_id : AuthenticAMD
cpu family : 25
model : 17
cpu MHz : 2596.1
flags : avx2
"""


def test_a_cpu_is_its_model_and_not_its_clock() -> None:
    assert host_cpu(EPYC) == host_cpu(EPYC + EPYC.replace("2596", "3100")) == host_cpu(EPYC.replace("2596", "3100"))
    assert host_cpu(EPYC) != host_cpu(EPYC.replace("17", "18"))
    assert "0xd0c" in host_cpu("CPU implementer : 0x41\nCPU part : 0xd0c\n")
