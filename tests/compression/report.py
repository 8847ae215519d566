"""``docs/compression.md`` and its curves, rendered from the JSON of runs alone."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from octavo.ir.errors import UsageError

from .experiments import STAGES, Stage
from .records import ROOT, Record
from .runner import Runner
from .scatter import Point, scatter

DOCS = ROOT / "docs"
PAGE, CURVE = "compression.md", "compression-{subject}-{axis}.svg"

INTRODUCTION = """\
What pruning, few bits, sparsity and shared weights cost networks that are trained here, measured by
`python -m compression` in `tests` and written by it. *Right* is the share of test images, the mean over seeds with its
standard deviation; *change* is the mean difference to the network in the first row trained with the same seed, in
points. All choices were made on held-back training images, and no stage was chosen by the test images, which were read
for the final networks. What is frozen into integers is measured as a compiled bundle, on the instruction set of this
machine. *Stored* is what weights, codebooks, biases and scales take: in float the bytes of all constants, else the
bundle's file of weights with `--compress`; *smaller* compares it with the first row. *Time* is that of one image
on one thread, *faster* the median of the ratios to `{reference}` in turn with it, and its 95 % interval."""

DATA = {
    "fashion-mnist": "Fashion-MNIST: 55,000 images to train on, 5,000 to choose by, 10,000 to test.",
    "digits": "MNIST, 5,000 digits of it: 3,500 to train on, 500 to choose by, 1,000 to test.",
}

Runs = Mapping[str, Sequence[Record]]


@dataclass(frozen=True)
class Subject:
    """A network on a dataset: the stages that begin with it, measured so far."""

    title: str
    dataset: str
    name: str
    runs: Runs
    timings: Mapping[str, Record]

    @property
    def root(self) -> Sequence[Record]:
        """The runs of the uncompressed network."""
        return self.runs[self.name]


def write(runner: Runner, docs: Path = DOCS) -> None:
    """Write the document and its pictures.

    Raises:
        UsageError: nothing was measured, or some of it not on the stages as they stand.
    """
    subjects = measured(runner)
    if not subjects:
        raise UsageError("no run has been measured on test images", hint="python -m compression evaluate")
    (docs / PAGE).write_text(page(subjects, runner.store.timings()), encoding="utf-8")
    for subject in subjects:
        for axis, picture in curves(subject).items():
            (docs / CURVE.format(subject=subject.name, axis=axis)).write_text(picture, encoding="utf-8")


def measured(runner: Runner) -> list[Subject]:
    """What has a figure on test images, by the network that it began with.

    Raises:
        UsageError: a record is not that of its stage as it stands.
    """
    found = {name: [r for r in records if r["test"]] for name, records in runner.current().items()}
    roots: dict[str, dict[str, Sequence[Record]]] = {}
    for name, records in found.items():
        if records and found[_root(name)]:
            roots.setdefault(_root(name), {})[name] = records
    timed = {name: own for timing in runner.store.timings() for name, own in _of_one_image(timing)}
    return [
        Subject(
            STAGES[root].title, STAGES[root].dataset, root, runs, {name: timed[name] for name in runs if name in timed}
        )
        for root, runs in roots.items()
    ]


def page(subjects: Sequence[Subject], timings: Sequence[Record]) -> str:
    """The document."""
    parts = ["# Compression", INTRODUCTION.format(reference=timings[0]["reference"] if timings else "ptq-int8")]
    for dataset, text in DATA.items():
        own = [subject for subject in subjects if subject.dataset == dataset]
        if own:
            parts += [f"## {text.partition(':')[0].partition(',')[0]}", text]
        for subject in own:
            parts += [f"### {subject.title}", _table(subject)]
            parts += [
                f"![Right answers by {axis}]({CURVE.format(subject=subject.name, axis=axis)})"
                for axis in curves(subject)
            ]
    runs = {name: records for subject in subjects for name, records in subject.runs.items()}
    return "\n\n".join([*parts, "## Measured on", *_surroundings(runs), *_timed_on(timings)]) + "\n"


def curves(subject: Subject) -> dict[str, str]:
    """Pictures of accuracy against what a network takes: ``size``, and ``latency`` where several were timed."""
    sizes = [_point(name, records, _stored(records) / 1000) for name, records in subject.runs.items()]
    found = {"size": scatter(sizes, "stored bytes, thousands", logarithmic=True)}
    if len(subject.timings) > 1:
        times = [_point(name, subject.runs[name], own["median_ms"]) for name, own in subject.timings.items()]
        found["latency"] = scatter(times, "milliseconds for one image, one thread, int8", logarithmic=False)
    return found


def _root(name: str) -> str:
    parent = STAGES[name].parent
    return name if parent is None else _root(parent)


def _of_one_image(timing: Record) -> Iterator[tuple[str, Record]]:
    if timing["batch"] == 1:
        yield from timing["stages"].items()


def _point(name: str, records: Sequence[Record], x: float) -> Point:
    right = _right(records)
    return Point(name, x, statistics.mean(right), statistics.stdev(right) if len(right) > 1 else 0.0)


def _right(records: Sequence[Record]) -> list[float]:
    return [100 * record["test"]["accuracy"] for record in records]


def _stored(records: Sequence[Record]) -> float:
    return statistics.mean(float(record["test"].get("coded_bytes", record["cost"]["bytes"])) for record in records)


def _table(subject: Subject) -> str:
    head = ("stage", "", "from", "epochs", "seeds", "right, %", "change", "MACs", "stored", "smaller", "time", "faster")
    rows = [_row(subject, name, records) for name, records in subject.runs.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))


def _row(subject: Subject, name: str, records: Sequence[Record]) -> Sequence[str]:
    stage, stored = STAGES[name], _stored(records)
    is_root, timing = name == subject.name, subject.timings.get(name)
    return (
        f"`{name}`",
        stage.title,
        "" if is_root else f"`{stage.parent}`",
        _epochs(stage),
        str(len(records)),
        _spread(_right(records)),
        "" if is_root else _spread(_changes(subject, records), sign=True),
        f"{statistics.mean(record['cost']['macs'] for record in records) / 1e6:.2f} M",
        f"{stored / 1000:,.1f} kB",
        "" if is_root else f"{_stored(subject.root) / stored:.1f}x",
        f"{timing['median_ms']:.3f} ms" if timing else "",
        "{:.2f} [{:.2f}, {:.2f}]".format(*timing["faster"]) if timing else "",
    )


def _epochs(stage: Stage) -> str:
    if stage.settings is None:
        return ""
    return f"{stage.settings.epochs}, taught" if stage.teacher else str(stage.settings.epochs)


def _changes(subject: Subject, records: Sequence[Record]) -> list[float]:
    """Points gained on the uncompressed network of the same seed."""
    roots = {record["seed"]: record["test"]["accuracy"] for record in subject.root}
    return [100 * (r["test"]["accuracy"] - roots[r["seed"]]) for r in records if r["seed"] in roots]


def _spread(values: Sequence[float], *, sign: bool = False) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    mean = statistics.mean(values)
    return (f"{mean:+.2f}" if sign and not math.isclose(mean, 0, abs_tol=5e-3) else f"{mean:.2f}") + spread


def _surroundings(runs: Runs) -> list[str]:
    """Each distinct machine, and what was trained there."""
    groups: dict[str, list[str]] = {}
    for name, records in runs.items():
        for record in records:
            own = record["surroundings"]
            packages = ", ".join(f"{package} {version}" for package, version in sorted(own["packages"].items()))
            text = f"{own['cpus']} CPUs of {own['cpu']}; {packages}; training code {record['code'][:12]}"
            groups.setdefault(text, []).append(f"{name} of seed {record['seed']} ({record['seconds']:.0f} s)")
    return [f"{text}:\n{', '.join(names)}." for text, names in groups.items()]


def _timed_on(timings: Sequence[Record]) -> list[str]:
    """Ratios of every batch size, and where they were measured."""
    lines = []
    for timing in timings:
        own = timing["surroundings"]
        ratios = ", ".join(
            "{} {:.2f} [{:.2f}, {:.2f}]".format(name, *found["faster"]) for name, found in timing["stages"].items()
        )
        where = f"{own['cpus']} CPUs of {own['cpu']}, {timing['level']}, seed {timing['seed']}"
        lines.append(f"Batches of {timing['batch']} on {where}, times as fast as `{timing['reference']}`: {ratios}.")
    return lines
