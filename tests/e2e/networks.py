"""Trained networks of the zoo, frozen: graph, one real input, and what the interpreter answers. Kept between runs.

The interpreter takes seconds for such a network, so its answer is kept under ``.cache/e2e``, in a folder named by the
code that decides it.
"""

from __future__ import annotations

import functools
import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import octavo
import onnx
import torch
from e2e.bundles import Array
from e2e.samples import is_exact
from octavo.backends.api import trace
from octavo.ir import Graph, load_graph, run_graph, save_graph
from octavo.passes.base import PassContext
from octavo.passes.pipeline import Pipeline
from zoo.registry import ONNX_MODELS, ZooModel, zoo_model

ROOT = Path(octavo.__file__).parent
CALIBRATION = 4
"""Inputs that calibrate; the first one is also the one to answer."""


@dataclass(frozen=True)
class Network:
    """A frozen network with an input and the answer."""

    name: str
    graph: Graph
    feeds: dict[str, Array]
    expected: dict[str, Array]

    @property
    def exact(self) -> bool:
        return is_exact(self.graph)


def frozen_network(name: str) -> Network:
    """The network, from the cache if the code is still the same."""
    folder = ROOT / ".cache" / "e2e" / f"{name}-{_digest()[:16]}"
    if not folder.exists():
        _make(zoo_model(name), folder)
    graph = load_graph(folder / "graph.octavo")
    names = {"feeds": [value.name for value in graph.inputs], "expected": graph.output_names}
    parts = {part: {n: np.load(folder / part / f"{i}.npy") for i, n in enumerate(each)} for part, each in names.items()}
    return Network(name, graph, parts["feeds"], parts["expected"])


def _make(model: ZooModel, folder: Path) -> None:
    """Write the folder: whole or not at all, since two test processes may want it at once."""
    inputs = model.inputs(CALIBRATION)
    graph = _trace(model, inputs[0])
    batches = [{value.name: array for value, array in zip(graph.inputs, each, strict=True)} for each in inputs]
    Pipeline.parse("int8").run(graph, PassContext(calibration=batches))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        staging = Path(name) / "whole"
        staging.mkdir()
        save_graph(graph, staging / "graph.octavo")
        for part, arrays in {"feeds": batches[0], "expected": run_graph(graph, batches[0])}.items():
            (staging / part).mkdir()
            for number, array in enumerate(arrays.values()):
                np.save(staging / part / f"{number}.npy", array)
        try:
            staging.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(staging)


def _trace(model: ZooModel, inputs: tuple[Array, ...]) -> Graph:
    if model.name in ONNX_MODELS:
        names = [value.name for value in onnx.load(model.path()).graph.input]
        return trace(model.path(), shapes={name: x.shape for name, x in zip(names, inputs, strict=True)})
    return trace(model.module(), tuple(map(torch.from_numpy, inputs)))


@functools.cache
def _digest() -> str:
    """What decides a frozen network: the IR, the passes, the zoo, and what computes float and calibrates."""
    digest = hashlib.sha256(f"{torch.__version__} {np.__version__}".encode())
    for folder in ("ir", "passes", "tests/zoo"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(path.read_bytes())
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()
