"""How many images a network gets right, and what it costs."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import octavo
from numpy.typing import NDArray
from octavo.backends.bench import interleave, pair_ratio, raised_priority, random_inputs
from octavo.backends.freeze import is_frozen
from octavo.ir import Graph
from octavo.ir.ops.constant import Constant
from octavo.passes.training.loop import Samples, evaluate

BATCH = 100
#: Of which bundles the size is told.
CODED_LEVEL = "avx512vnni"


def measure(graph: Graph, samples: Samples) -> dict[str, Any]:
    """The share of right answers: a frozen network's compiled bundle gives them, torch those of a float one.

    ``coded_bytes`` is the size of entropy coded weights.
    """
    if is_frozen(graph):
        return _measure_bundle(graph, samples)
    accuracy = evaluate(octavo.to_torch(graph), samples, BATCH)
    return {"accuracy": accuracy, "images": len(samples), "by": "torch"}


def cost(graph: Graph) -> dict[str, float]:
    """Multiplications of one image, elements and bytes of constants, and the share of zeros in weights."""
    single = graph.clone(inputs={v.name: v.type.with_shape((1, *v.type.shape[1:])) for v in graph.inputs})
    macs = sum(n.op.cost([v.type for v in n.inputs], [v.type for v in n.outputs]).macs for n in single.nodes)
    constants = [node.op.data for node in graph.nodes if isinstance(node.op, Constant)]
    weights = [data.numpy() for data in constants if len(data.shape) > 1]
    zeros = sum(int(np.count_nonzero(weight == 0)) for weight in weights)
    return {
        "macs": macs,
        "parameters": sum(data.size for data in constants),
        "bytes": sum(data.numpy().nbytes for data in constants),
        "zeros": round(zeros / sum(weight.size for weight in weights), 4),
    }


def latency(graphs: Mapping[str, Graph], reference: str, batch: int, rounds: int) -> dict[str, Any]:
    """How long bundles of frozen networks take for a batch, in turn with each other, on one thread of this machine.

    Returns:
        by name: ``median_ms`` and ``best_ms`` of a batch, and ``faster``: the median of the ratios to the reference
        in the same turn, above 1 if this one is faster, with the ends of its 95 % interval.
    """
    with tempfile.TemporaryDirectory(prefix="octavo-compression-") as folder, ExitStack() as stack:
        stack.enter_context(raised_priority())
        calls: dict[str, Callable[[], object]] = {}
        level = ""
        for name, graph in graphs.items():
            path = Path(folder) / name
            octavo.compile(graph, output=path, mcpu="native", shapes=_shapes(graph, batch))
            bundle = stack.enter_context(octavo.load(path, threads=1))
            calls[name], level = bundle.bind(random_inputs(bundle.manifest.signatures[0])).run, bundle.level
        times = interleave(calls, rounds, time.process_time_ns)
    return {"level": level, "batch": batch, "rounds": rounds, "reference": reference} | {
        "stages": {name: _timing(times[reference], column) for name, column in times.items()}
    }


def _timing(reference: Sequence[float], own: Sequence[float]) -> dict[str, Any]:
    faster = pair_ratio(reference, own).as_list()
    return {"median_ms": float(np.median(own)), "best_ms": min(own), "faster": faster}


def _measure_bundle(graph: Graph, samples: Samples) -> dict[str, Any]:
    assert samples.labels is not None
    images, labels = samples.inputs[0].numpy(), samples.labels.numpy()
    with tempfile.TemporaryDirectory(prefix="octavo-compression-") as folder:
        path = Path(folder) / "network.bundle"
        octavo.compile(graph, output=path, mcpu="native", shapes=_shapes(graph, BATCH))
        coded = _coded_bytes(graph, Path(folder) / "coded.bundle")
        with octavo.load(path) as bundle:
            answers = [bundle(_filled(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
            level = bundle.level
    classes = np.concatenate(answers)[: len(labels)].argmax(1)
    accuracy = float(np.mean(classes == labels))
    return {"accuracy": accuracy, "images": len(labels), "by": f"bundle, {level}", "coded_bytes": coded}


def _coded_bytes(graph: Graph, path: Path) -> int:
    """Of one level whatever machine measures: others keep filters of Winograd's, or words, in place of some weights."""
    octavo.compile(graph, output=path, features=[CODED_LEVEL], shapes=_shapes(graph, BATCH), compress=True)
    return (path / "weights.bin").stat().st_size


def _shapes(graph: Graph, batch: int) -> dict[str, tuple[int, ...]]:
    return {v.name: (batch, *(size for size in v.type.shape[1:] if isinstance(size, int))) for v in graph.inputs}


def _filled(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """The last batch may lack images."""
    return np.pad(batch, ((0, BATCH - len(batch)), (0, 0), (0, 0), (0, 0)))
