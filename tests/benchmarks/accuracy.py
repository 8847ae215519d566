"""How far compiled networks are from their float originals, beside ONNX Runtime's own int8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import octavo
from numpy.typing import NDArray
from octavo.backends.bundle.loader import Bundle
from octavo.backends.compare import Difference
from zoo import peers
from zoo.registry import Inputs

from .building import build
from .subjects import Subject

Answer = Callable[[Inputs], NDArray[Any]]

SILENT = frozenset({"constant", "quantize", "dequantize", "reshape", "transpose"})
"""Ops whose precision says nothing: they carry no arithmetic of their own."""


def measure(subject: Subject, pipeline: str = "int8") -> dict[str, Any]:
    """All figures of one network, as JSON."""
    calibration, inputs = subject.calibration(), subject.evaluation()
    labels = subject.labels() if subject.labels else None
    reference = _collect(_session(peers.float_session(subject.model)), inputs)
    folder = build(subject.model, lambda: calibration, mcpu="native", pipeline=pipeline)
    with octavo.load(folder, threads=1) as bundle:
        own = _collect(_bundle(bundle), inputs)
    int8 = _collect(_session(peers.int8_session(subject.model, calibration)), inputs)
    found = {
        "calibration": len(calibration),
        "evaluation": len(inputs),
        "data": subject.data,
        "float": _judge(subject, reference, reference, labels),
        "octavo": _judge(subject, reference, own, labels),
        "onnxruntime": _judge(subject, reference, int8, labels),
        "stays_float": float_ops(folder),
    }
    if subject.name.startswith("minilm"):
        dynamic = _collect(_session(peers.dynamic_session(subject.model)), inputs)
        found["onnxruntime dynamic"] = _judge(subject, reference, dynamic, labels)
    return found


def float_ops(folder: Path) -> dict[str, int]:
    """How often each op that computes stays in float32 in a bundle."""
    manifest = octavo.load(folder, threads=1).manifest
    decisions: Any = manifest.decisions
    kept = (d["op"] for d in decisions if d["precision"] == "float" and d["op"] not in SILENT)
    return dict(sorted(Counter(kept).items()))


def _session(peer: Any) -> Answer:
    return lambda inputs: peers.answers(peer, inputs)[0]


def _bundle(bundle: Bundle) -> Answer:
    names = [spec.name for spec in bundle.inputs]
    first = bundle.outputs[0].name
    return lambda inputs: bundle.run(dict(zip(names, inputs, strict=True)))[first]


def _collect(answer: Answer, inputs: Iterable[Inputs]) -> list[NDArray[Any]]:
    return [answer(arrays) for arrays in inputs]


def _judge(
    subject: Subject, reference: list[NDArray[Any]], other: list[NDArray[Any]], labels: list[int] | None
) -> dict[str, float]:
    difference = Difference(subject.name)
    for left, right in zip(reference, other, strict=True):
        difference.add(left, right)
    figures: dict[str, float] = {}
    if labels is not None:
        figures["top1"] = float(np.mean([a.argmax() == label for a, label in zip(other, labels, strict=True)]))
    if other is not reference:
        figures["sqnr"] = round(difference.sqnr, 3)
        if subject.flips and difference.rankings:
            figures["flips"] = difference.flips / difference.rankings
        for name, extra in (subject.extras or {}).items():
            figures[name] = float(np.mean([extra(a, b) for a, b in zip(reference, other, strict=True)]))
    return figures
