"""``docs/compression.md`` and its curves, rendered from the JSON of runs alone."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from octavo.ir.errors import UsageError

from .experiments import STAGES
from .records import ROOT, Record, Store

DOCS = ROOT / "docs"
PAGE, CURVES = "compression.md", "compression-{network}.svg"

INTRODUCTION = """\
What pruning, few bits, sparsity and shared weights cost networks that are trained here, measured by
`python -m compression` in `tests` and written by it. Every number is the mean over seeds with its standard deviation.
Choices were made on held-back training images; the test images were read once for each number. Integer networks are
measured as compiled bundles. *Bytes* are those of all constants, *coded* those of the bundle's file of weights with
`--compress`."""

DATA = {
    "fashion-mnist": "Fashion-MNIST: 55,000 images to train on, 5,000 to choose by, 10,000 to test.",
    "digits": "MNIST, 5,000 digits of it: 3,500 to train on, 500 to choose by, 1,000 to test.",
}

COLORS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#da8bc3", "#8c8c8c", "#ccb974", "#64b5cd")
AXES = "epoch, 1 to {epochs}; right of the held-back images, in percent"
WIDTH, HEIGHT, LEFT, TOP, LINE = 560, 260, 50, 20, 18

Runs = Mapping[str, Sequence[Record]]


def write(store: Store, docs: Path = DOCS) -> None:
    """Write the document and a picture for each network.

    Raises:
        UsageError: nothing was measured.
    """
    runs = measured(store)
    if not runs:
        raise UsageError("no run has been measured on test images", hint="python -m compression evaluate")
    (docs / PAGE).write_text(page(runs), encoding="utf-8")
    for network in _networks(runs):
        (docs / CURVES.format(network=network)).write_text(curves(runs, network), encoding="utf-8")


def measured(store: Store) -> Runs:
    """The records of every stage that have a figure on test images, in the order of the stages."""
    found = {name: [store.read(name, seed) for seed in store.seeds(name)] for name in STAGES}
    known = {name: [record for record in records if record and record["test"]] for name, records in found.items()}
    return {name: records for name, records in known.items() if records}


def page(runs: Runs) -> str:
    """The document."""
    parts = ["# Compression", INTRODUCTION]
    for dataset, text in DATA.items():
        networks = [network for network in _networks(runs) if _dataset(network) == dataset]
        if networks:
            own = {name: records for name, records in runs.items() if STAGES[name].dataset == dataset}
            parts += [f"## {text.partition(':')[0].partition(',')[0]}", text, _table(own)]
            parts += [f"![Validation by epoch of {network}]({CURVES.format(network=network)})" for network in networks]
    return "\n\n".join([*parts, "## Measured on", *_surroundings(runs)]) + "\n"


def _networks(runs: Runs) -> list[str]:
    return list(dict.fromkeys(STAGES[name].network for name in runs))


def _dataset(network: str) -> str:
    return next(stage.dataset for stage in STAGES.values() if stage.network == network)


def _table(runs: Runs) -> str:
    head = ("stage", "", "from", "right, %", "seeds", "MACs", "bytes", "coded", "zeros, %")
    lines: list[Sequence[str]] = [head, ["---"] * len(head)]
    for name, records in runs.items():
        costs = [record["cost"] for record in records]
        coded = [record["test"].get("coded_bytes") for record in records]
        lines.append(
            (
                f"`{name}`",
                STAGES[name].title,
                f"`{STAGES[name].parent}`" if STAGES[name].parent else "",
                _spread([100 * record["test"]["accuracy"] for record in records]),
                str(len(records)),
                _thousands([cost["macs"] for cost in costs]),
                _thousands([cost["bytes"] for cost in costs]),
                _thousands(coded) if all(coded) else "",
                f"{100 * statistics.mean(cost['zeros'] for cost in costs):.0f}",
            )
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _spread(values: Sequence[float]) -> str:
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def _thousands(values: Sequence[float]) -> str:
    return f"{statistics.mean(values) / 1000:,.0f} k"


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


# Curves --------------------------------------------------------------------------------------------------------------


def curves(runs: Runs, network: str) -> str:
    """Validation by epoch in SVG: a line for each stage of a network that trains, the mean over its seeds."""
    lines = {name: _by_epoch(records) for name, records in runs.items() if STAGES[name].network == network}
    lines = {name: values for name, values in lines.items() if values}
    values = [value for line in lines.values() for value in line]
    low, high = min(values, default=0.0), max(values, default=1.0)
    epochs = max(map(len, lines.values()), default=1)
    spread = max(high - low, 1e-3)
    width, height = LEFT + WIDTH + 170, TOP + max(HEIGHT, LINE * len(lines)) + 40
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M{LEFT} {TOP}V{TOP + HEIGHT}H{LEFT + WIDTH}" fill="none" stroke="black"/>',
        f'<text x="{LEFT}" y="{TOP + HEIGHT + 32}">{AXES.format(epochs=epochs)}</text>',
    ]
    for step in range(5):
        y = TOP + HEIGHT * (1 - step / 4)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + WIDTH}" stroke="#dddddd"/>')
        parts.append(
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{100 * (low + spread * step / 4):.1f}</text>'
        )
    for index, (name, line) in enumerate(lines.items()):
        color = COLORS[index % len(COLORS)]
        places = [
            (LEFT + WIDTH * (epoch + 1) / epochs, TOP + HEIGHT * (1 - (value - low) / spread))
            for epoch, value in enumerate(line)
        ]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        x, y = places[-1]
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{color}"/>')
        label = f'x="{LEFT + WIDTH + 14}" y="{TOP + 10 + LINE * index}" fill="{color}"'
        parts.append(f"<text {label}>{escape(name)}</text>")
    return "\n".join([*parts, "</svg>", ""])


def _by_epoch(records: Sequence[Record]) -> list[float]:
    """The mean over seeds, as far as all of them went."""
    histories = [[epoch["validation"] for epoch in record["history"]] for record in records]
    return [statistics.mean(values) for values in zip(*histories, strict=False)]
