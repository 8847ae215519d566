"""Bundles of the zoo's networks, kept in ``.cache/benchmarks`` under what they were made from."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import octavo
import onnx
import torch
from octavo.backends.cache import digest_compiler
from zoo.registry import Inputs, ZooModel

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "benchmarks"


def source_of(model: ZooModel) -> dict[str, Any]:
    """``model`` and what else ``octavo.compile`` needs to read it: example inputs, or the shapes of the inputs."""
    made, example = model.make(), model.sample(0)
    if isinstance(made, Path):
        return {"model": made, "shapes": _shapes(made, example)}
    return {"model": made, "example_inputs": tuple(map(torch.from_numpy, example))}


def _shapes(path: Path, example: Inputs) -> dict[str, tuple[int, ...]]:
    graph = onnx.load(path, load_external_data=False).graph
    constants = {constant.name for constant in graph.initializer}
    names = [value.name for value in graph.input if value.name not in constants]
    return {name: array.shape for name, array in zip(names, example, strict=True)}


def build(
    model: ZooModel,
    calibration: Callable[[], Sequence[Inputs]],
    *,
    target: str = "x86-int8",
    mcpu: str | None = None,
    features: Sequence[str] | None = None,
    pipeline: str = "int8",
) -> Path:
    """The folder of the bundle; compiled unless this compiler has made it before."""
    parts = (digest_compiler(), model.name, target, str(mcpu), str(features), pipeline)
    digest = hashlib.sha256("|".join(parts).encode()).hexdigest()[:16]
    folder = CACHE / f"{model.name}-{digest}.bundle"
    if not folder.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        print(f"compiling {model.name} for {mcpu or features or target}", file=sys.stderr, flush=True)
        octavo.compile(
            **source_of(model),
            output=folder,
            target=target,
            mcpu=mcpu,
            features=features,
            calibration=list(calibration()),
            pipeline=pipeline,
            name=model.name,
            jobs=2,
        )
    return folder
