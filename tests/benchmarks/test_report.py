"""The documents are what the measured figures say; nothing here is timed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from support.missing import MissingError

from benchmarks import __main__ as program
from benchmarks import arm_peer, report, results, sparsity
from benchmarks.pages import performance
from benchmarks.subjects import SUBJECTS, cosine, overlap, text


def test_the_documents_are_rendered_from_the_results(tmp_path: Path) -> None:
    report.write(tmp_path)
    for name in ("accuracy.md", "performance.md", "sparsity.md"):
        written = (report.DOCS / name).read_text(encoding="utf-8")
        assert (tmp_path / name).read_text(encoding="utf-8") == written, "run python -m benchmarks report"


def test_documents_of_nothing_measured_hold_no_number(tmp_path: Path) -> None:
    report.write(tmp_path, tmp_path / "nothing")
    assert "| network |" in (tmp_path / "accuracy.md").read_text(encoding="utf-8")


def test_results_are_read_back(tmp_path: Path) -> None:
    results.write("arm", "resnet18", {"millions": 1}, tmp_path)
    results.write("arm", "resnet50", {}, tmp_path)
    found = results.read("arm", tmp_path)
    assert found["resnet18"]["figures"] == {"millions": 1}
    assert set(found) == {"resnet18", "resnet50"}
    assert results.machines(tmp_path) == []


def test_speed_is_kept_for_each_kind_of_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for cpu, levels in (("Intel(R) Xeon(R) Processor", ["avx2", "amx"]), ("AMD EPYC", ["avx2"])):
        machine = {"cpu": cpu, "levels": levels, "cpus": 2, "load": 0, "packages": {}, "commit": ""}
        monkeypatch.setattr(results, "describe", lambda machine=machine: machine)
        results.write("compiling", "mobilenet_v2", {}, tmp_path)
    places = results.machines(tmp_path)
    assert [place.name for place in places] == ["intel-xeon-processor-avx2-amx", "amd-epyc-avx2"]
    page = performance.page(tmp_path)
    assert "| what | beside | wanted | Intel(R) Xeon(R) Processor: avx2, amx | AMD EPYC: avx2 |" in page


def test_what_cannot_be_measured_here_ends_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(name: str, given: object) -> None:
        raise MissingError(f"{name} has no weights", "OCTAVO_REQUIRE_MODELS")

    monkeypatch.setitem(program.PARTS, "arm", (("resnet18",), measure))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "arm"])
    with pytest.raises(SystemExit, match="arm of resnet18 cannot be measured here: resnet18 has no weights"):
        program.main()


@pytest.mark.models
@pytest.mark.parametrize("name", ["ppocr_cls", "crepe_tiny", "ppocr_rec"])
def test_evaluation_inputs_are_not_calibration_inputs(name: str) -> None:
    seen = {arrays[0].tobytes() for arrays in SUBJECTS[name].calibration()}
    again = [arrays for arrays in SUBJECTS[name].evaluation() if arrays[0].tobytes() in seen]
    # A line of one word may be drawn twice.
    assert len(again) <= 0.1 * len(SUBJECTS[name].evaluation())


def test_lines_are_the_same_everywhere() -> None:
    assert text(3) == text(3)
    assert len({text(seed) for seed in range(100)}) > 80


def test_extra_figures() -> None:
    assert cosine(np.array([1.0, 0.0]), np.array([2.0, 0.0])) == 1.0
    assert overlap(np.array([0.9, 0.9, 0.0]), np.array([0.9, 0.0, 0.0])) == 0.5
    assert overlap(np.zeros(3), np.zeros(3)) == 1.0


def test_kernels_are_equally_fast_where_their_ratio_crosses_one() -> None:
    assert sparsity.meeting([0.25 + 0.1 * step for step in range(10)]) == pytest.approx(0.85)
    assert sparsity.meeting([0.9] * 10) == 1.0
    assert sparsity.meeting([2.0] * 10) == 0.05


def test_the_fastest_other_runtime_is_shown(tmp_path: Path) -> None:
    """Of two forms of a runtime the faster one counts, and a level is judged beside what is held to it."""
    ratios = {
        "onnxruntime int8/amx": [3.0, 2.9, 3.1],
        "openvino int8 (NNCF)/amx": [2.5, 2.4, 2.6],
        "openvino int8 (QDQ)/amx": [1.5, 1.4, 1.6],
        "onnxruntime int8/avx2": [0.5, 0.4, 0.6],
        "openvino int8 (NNCF) at avx2/avx2": [1.25, 1.2, 1.3],
    }
    runners = {name: {"median_ms": 7.0, "best_ms": 6.0} for name in ("amx", "openvino int8 (QDQ)")}
    record = {"threads": 1, "level": "amx", "runners": runners, "ratios": ratios, "failures": {}}
    results.write("speed", "resnet18", [record], tmp_path)
    page = performance.page(tmp_path)
    assert "| ResNet-18 | 7.00 | 7.00 | OpenVINO int8 | **1.50** [1.40, 1.60] | 3.00 | 1.50 |" in page
    held, free = (page.index(text) for text in (performance.LEVELS, performance.LEVELS_ORT))
    assert "| ResNet-18 | 1 | **1.25** [1.20, 1.30] |" in page[held:free]
    assert "| ResNet-18 | 1 | **0.50** [0.40, 0.60] | **3.00** [2.90, 3.10] |" in page[free:]


def write_arm(folder: Path, millions: Mapping[str, float]) -> None:
    kernels = [{"layer": "conv", "instructions": 3, "macs": 2}]
    cpus = {cpu: {"millions": count, "kernels": kernels} for cpu, count in millions.items()}
    results.write("arm", "mobilenet_v2", cpus, folder)


def test_another_runtime_stands_beside_octavo_on_arm(tmp_path: Path) -> None:
    write_arm(tmp_path, {"cortex-a53": 80.0, "neoverse-n1": 40.0, "max": 30.0})
    cpus = {"cortex-a53": {"millions": 120.0}, "neoverse-n1": {"millions": 61.04}}
    results.write("arm_peer", "mobilenet_v2", {"version": "1.2", "cpus": cpus}, tmp_path)
    page = performance.page(tmp_path)
    assert "| MobileNetV2 | octavo | 80.0 | 40.0 | 30.0 |\n" in page
    assert "|  | ONNX Runtime 1.2 int8 | 120.0 | 61.0 |  |\n|  | ratio | **1.50** | **1.53** |  |\n" in page
    assert "arm_peer mobilenet_v2 at " in page


def test_cells_of_a_runtime_that_was_not_measured_are_empty(tmp_path: Path) -> None:
    write_arm(tmp_path, {"cortex-a53": 80.0, "neoverse-n1": 40.0, "max": 30.0})
    assert "|  | ONNX Runtime int8 |  |  |  |\n|  | ratio |  |  |  |\n" in performance.page(tmp_path)


def test_what_is_needed_for_arm_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "qemu-aarch64").touch(0o755)
    monkeypatch.setattr(arm_peer, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingError, match="apt-get is not installed"):
        arm_peer.measure("resnet18")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MissingError, match="qemu-aarch64 is not installed"):
        arm_peer.measure("resnet18")


def test_what_falls_short_is_bold(tmp_path: Path) -> None:
    write_arm(tmp_path, {"neoverse-n1": 39.7, "cortex-a53": 85.1, "max": 30.0})
    page = performance.page(tmp_path)
    assert "| MobileNetV2 on neoverse-n1 | millions of instructions | at most 45 | 39.7 |" in page
    assert "| MobileNetV2 on cortex-a53 | millions of instructions | at most 85 | **85.1** |" in page
