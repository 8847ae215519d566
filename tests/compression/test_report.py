"""The document says what the records say; nothing here trains."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from octavo.ir.errors import UsageError

from compression import report
from compression.records import Record, Store
from compression.runner import Runner
from compression.scatter import HEIGHT, TOP, Point, scatter


def record(runner: Runner, stage: str, seed: int, accuracy: float | None, **test: float) -> Record:
    return {
        "stage": stage,
        "seed": seed,
        "settings": runner.settings(stage, seed),
        "parents": runner.parents(stage, seed),
        "checkpoint": runner.store.digest(stage, seed),
        "code": "c0de" * 16,
        "surroundings": {"cpus": 2, "cpu": "a CPU", "packages": {"torch": "9.9"}},
        "history": [],
        "seconds": 61.0,
        "cost": {"macs": 31_000_000, "parameters": 270_000, "bytes": 1_080_000, "zeros": 0.25},
        "test": None if accuracy is None else {"accuracy": accuracy, "images": 10000, "by": "torch", **test},
    }


def timing(batch: int, **faster: float) -> Record:
    stages = {
        name: {"median_ms": 2 / ratio, "faster": [ratio, ratio - 0.1, ratio + 0.1]} for name, ratio in faster.items()
    }
    known = {"surroundings": {"cpus": 2, "cpu": "a CPU"}, "level": "avx2", "seed": 0, "reference": "ptq-int8"}
    return known | {"batch": batch, "stages": stages}


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    made = Runner(Store.within(tmp_path))
    for stage, seed, accuracy in (("baseline", 0, 0.93), ("baseline", 1, 0.94), ("baseline", 2, None)):
        made.store.write(record(made, stage, seed, accuracy))
    made.store.write(record(made, "ptq-int8", 0, 0.92, coded_bytes=250_000))
    made.store.write(record(made, "pruned50-int8", 0, 0.91, coded_bytes=100_000))
    made.store.write(record(made, "pruned50-int8", 1, 0.935, coded_bytes=116_000))
    made.store.write(record(made, "lenet-5-digits", 0, 0.98))
    made.store.write_timings([timing(1, **{"ptq-int8": 1.0, "pruned50-int8": 1.6}), timing(32, **{"ptq-int8": 1.0})])
    return made


def test_a_row_holds_means_and_spreads_of_the_seeds_and_compares_with_the_first(runner: Runner) -> None:
    rows = {line.split("|")[1].strip(): line for line in _page(runner).splitlines() if line.startswith("| `")}
    assert rows == {
        "`baseline`": "| `baseline` | ResNet-20 |  | 12 | 2 | 93.50 ± 0.71 |  | 31.00 M | 1,080.0 kB |  |  |  |",
        "`ptq-int8`": "| `ptq-int8` | int8 after training | `baseline` |  | 1 | 92.00 | -1.00 | 31.00 M | 250.0 kB "
        "| 4.3x | 2.000 ms | 1.00 [0.90, 1.10] |",
        "`pruned50-int8`": "| `pruned50-int8` | pruned, int8 after training | `pruned50` |  | 2 | 92.25 ± 1.77 "
        "| -1.25 ± 1.06 | 31.00 M | 108.0 kB | 10.0x | 1.250 ms | 1.60 [1.50, 1.70] |",
        "`lenet-5-digits`": "| `lenet-5-digits` | LeNet-5 |  | 60 | 1 | 98.00 |  | 31.00 M | 1,080.0 kB |  |  |  |",
    }  # what was not measured has no row


def test_networks_stand_below_their_data(runner: Runner) -> None:
    page = _page(runner)
    places = [page.index(text) for text in ("Fashion-MNIST:", "`ptq-int8` | int8", "digits of it", "### LeNet-5")]
    assert places == sorted(places)
    assert "baseline of seed 0 (61 s), baseline of seed 1 (61 s), ptq-int8" in page
    assert "Batches of 32 on 2 CPUs of a CPU, avx2, seed 0, times as fast as `ptq-int8`: ptq-int8 1.00" in page


def test_a_point_lies_at_its_mean_and_cost() -> None:
    points = [Point("one", 10, 90, 0), Point("two", 1000, 92, 1), Point("<three>", 100, 91, 0)]
    picture = ET.fromstring(scatter(points, "bytes", logarithmic=True))
    space = "{http://www.w3.org/2000/svg}"
    circles = [c for c in picture.iter(f"{space}circle") if c.find(f"{space}title") is not None]
    across = [float(circle.get("cx") or 0) for circle in circles]
    up = [float(circle.get("cy") or 0) for circle in circles]
    assert across[2] == pytest.approx((across[0] + across[1]) / 2, abs=0.1)
    assert up[2] == pytest.approx((up[0] + up[1]) / 2, abs=0.1)
    assert TOP < up[1] < up[0] < TOP + HEIGHT
    texts = [text.text for text in picture.iter(f"{space}text")]
    assert [name for name in texts if name in {"one", "two", "<three>"}] == ["one", "two", "<three>"]
    assert {"bytes", "10", "100", "1000"} <= set(texts)


def test_documents_are_written_together(runner: Runner, tmp_path: Path) -> None:
    report.write(runner, tmp_path)
    page = (tmp_path / "compression.md").read_text(encoding="utf-8")
    pictures = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert pictures == [
        f"compression-{name}.svg" for name in ("baseline-latency", "baseline-size", "lenet-5-digits-size")
    ]
    assert all(f"]({name})" in page for name in pictures)
    with pytest.raises(UsageError, match="no run has been measured"):
        report.write(Runner(Store.within(tmp_path / "nothing")), tmp_path)


def test_stale_records_are_not_published(runner: Runner, tmp_path: Path) -> None:
    slower = record(runner, "baseline", 1, 0.5)
    slower["settings"]["settings"]["lr"] = 1.0
    runner.store.write(slower)
    orphan = record(runner, "pruned50", 0, 0.5)
    orphan["parents"]["baseline"] = "another"
    runner.store.write(orphan)
    with pytest.raises(
        UsageError, match=r"(?s)baseline, seed 1: .*other settings.*pruned50, seed 0: .*another network"
    ):
        report.write(runner, tmp_path)


def test_settings_that_came_later_are_what_they_are_by_default(runner: Runner) -> None:
    older = record(runner, "baseline", 0, 0.93)
    del older["settings"]["settings"]["scale_lr"]
    assert runner.why_stale(older) is None


def test_the_documents_are_rendered_from_the_results(tmp_path: Path) -> None:
    if report.measured(Runner()):
        report.write(Runner(), tmp_path)
    written = {path.name: path.read_text(encoding="utf-8") for path in report.DOCS.glob("compression*.*")}
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert written == made, "run python -m compression report"


def _page(runner: Runner) -> str:
    return report.page(report.measured(runner), runner.store.timings())
