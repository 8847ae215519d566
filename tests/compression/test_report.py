"""The document says what the records say; nothing here trains."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from octavo.ir.errors import UsageError

from compression import report
from compression.records import Record, Store


def record(stage: str, seed: int, accuracy: float | None, epochs: int = 3, **test: float) -> Record:
    return {
        "stage": stage,
        "seed": seed,
        "code": "c0de" * 16,
        "surroundings": {"cpus": 2, "cpu": "a CPU", "packages": {"torch": "9.9"}},
        "history": [{"validation": 0.5 + 0.1 * epoch + 0.01 * seed} for epoch in range(epochs)],
        "seconds": 61.0,
        "cost": {"macs": 31_000_000, "parameters": 270_000, "bytes": 1_080_000, "zeros": 0.25},
        "test": None if accuracy is None else {"accuracy": accuracy, "images": 10000, "by": "torch", **test},
    }


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store.within(tmp_path)
    made.write(record("baseline", 0, 0.93))
    made.write(record("baseline", 1, 0.94))
    made.write(record("baseline", 2, None))
    made.write(record("ptq-int8", 0, 0.92, 0, coded_bytes=250_000))
    made.write(record("lenet-5", 0, 0.98))
    return made


def test_a_row_holds_the_mean_and_the_spread_of_the_seeds(store: Store) -> None:
    page = report.page(report.measured(store))
    assert "| `baseline` | ResNet-20 |  | 93.50 ± 0.71 | 2 | 31,000 k | 1,080 k |  | 25 |" in page
    assert "| `ptq-int8` | int8 after training | `baseline` | 92.00 | 1 | 31,000 k | 1,080 k | 250 k | 25 |" in page
    assert (
        page.index("Fashion-MNIST:") < page.index("`ptq-int8`") < page.index("digits of it") < page.index("`lenet-5`")
    )
    assert "baseline of seed 0 (61 s), baseline of seed 1 (61 s), ptq-int8" in page
    assert "qat-int8" not in page, "what was not measured has no row"


def test_curves_have_a_line_for_each_stage_that_trains(store: Store) -> None:
    runs = report.measured(store)
    picture = ET.fromstring(report.curves(runs, "resnet20"))
    space = "{http://www.w3.org/2000/svg}"
    (line,) = picture.iter(f"{space}polyline")
    heights = [float(point.partition(",")[2]) for point in (line.get("points") or "").split()]
    assert heights == [report.TOP + report.HEIGHT, report.TOP + report.HEIGHT / 2, report.TOP]
    assert [text.text for text in picture.iter(f"{space}text")][-1] == "baseline"


def test_documents_are_written_together(store: Store, tmp_path: Path) -> None:
    report.write(store, tmp_path)
    page = (tmp_path / "compression.md").read_text(encoding="utf-8")
    pictures = sorted(path.name for path in tmp_path.glob("*.svg"))
    assert pictures == ["compression-lenet-5.svg", "compression-resnet20.svg"]
    assert all(f"]({name})" in page for name in pictures)
    with pytest.raises(UsageError, match="no run has been measured"):
        report.write(Store.within(tmp_path / "nothing"), tmp_path)


def test_the_documents_are_rendered_from_the_results(tmp_path: Path) -> None:
    runs = report.measured(Store())
    if runs:
        report.write(Store(), tmp_path)
    written = {path.name: path.read_text(encoding="utf-8") for path in report.DOCS.glob("compression*.*")}
    made = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert written == made, "run python -m compression report"
