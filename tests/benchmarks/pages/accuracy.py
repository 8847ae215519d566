"""``docs/accuracy.md``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .. import calibrators, results
from ..subjects import SUBJECTS
from .tables import Record, machines, table

INTRODUCTION = """\
What eight bits do to trained networks, measured by `make bench` and written by it. *octavo* is the compiled bundle with
the default pipeline; *ONNX Runtime* is its own static int8 quantization of the same network (u8 activations, s8 weights
per channel, after its pre-process step) with the same calibration inputs. Both are compared with the float network in
ONNX Runtime, on inputs that calibration has not seen.

*Flips* are predictions whose first class changed, *SQNR* compares whole outputs, in dB: more is better."""

LABELS = """\
The share whose first class is right. The pictures are likely ones the networks were trained on, so only the difference
from float says something."""

CALIBRATORS = """\
SQNR in dB and flips by the method of `observe`, in the interpreter's fake quantization, on every n-th of the evaluation
inputs."""


def page(folder: Path = results.FOLDER) -> str:
    """The accuracy document."""
    found = results.read("accuracy", folder)
    parts = [
        "# Accuracy",
        INTRODUCTION,
        _accuracy_table(found),
        "## Photographs with labels",
        LABELS,
        _labelled_table(found),
        "## What stays in float",
        "Ops that compute in float32 in the compiled network; `octavo inspect` gives the reason for each.",
        _float_table(found),
    ]
    parts += _calibrators(results.read("calibrators", folder))
    parts += ["## Measured on", machines(found.items())]
    return "\n\n".join(parts) + "\n"


def _accuracy_table(found: Record) -> str:
    rows: list[tuple[str, ...]] = []
    for name, subject in SUBJECTS.items():
        if name not in found:
            continue
        figures = found[name]["figures"]
        used = f"{figures['evaluation']} {figures['data']}"
        for runner in ("octavo", "onnxruntime", "onnxruntime dynamic"):
            if runner not in figures:
                continue
            own = figures[runner]
            extra = ", ".join(f"{key} {own[key]:.3f}" for key in subject.extras or {})
            first = runner == "octavo"
            title = f"**{subject.title}**" if first else ""
            rows.append((title, used if first else "", _runner(runner), _percent(own), f"{own['sqnr']:.1f}", extra))
    return table(("network", "evaluated on", "", "flips", "SQNR", ""), rows)


def _labelled_table(found: Record) -> str:
    rows: list[tuple[str, ...]] = []
    for name, subject in SUBJECTS.items():
        if subject.labels and name in found:
            figures = found[name]["figures"]
            rows.append((subject.title, *(f"{figures[r]['top1']:.3f}" for r in ("float", "octavo", "onnxruntime"))))
    return table(("network", "float", "octavo", "ONNX Runtime int8"), rows)


def _float_table(found: Record) -> str:
    rows: list[tuple[str, ...]] = []
    for name, subject in SUBJECTS.items():
        if name in found:
            kept = found[name]["figures"]["stays_float"]
            rows.append((subject.title, ", ".join(f"{op} x {count}" for op, count in kept.items()) or "nothing"))
    return table(("network", "in float"), rows)


def _calibrators(found: Record) -> list[str]:
    if not found:
        return []
    titles = [name for name in calibrators.MODELS if name in found]
    options = list(dict.fromkeys(option for name in titles for option in found[name]["figures"]))
    rows = [(option, *(_sqnr_and_flips(found[name]["figures"].get(option)) for name in titles)) for option in options]
    return [
        "## Ways to calibrate",
        CALIBRATORS,
        table(("method", *(SUBJECTS[name].title for name in titles)), rows),
    ]


def _sqnr_and_flips(figures: Mapping[str, float] | None) -> str:
    return f"{figures['sqnr']:.1f} ({100 * figures['flips']:.1f} %)" if figures else ""


def _runner(name: str) -> str:
    return name.replace("onnxruntime", "ONNX Runtime")


def _percent(figures: Mapping[str, float]) -> str:
    return f"{100 * figures['flips']:.1f} %" if "flips" in figures else ""
