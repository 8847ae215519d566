"""How many images a network gets right, and what it costs."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import octavo
from numpy.typing import NDArray
from octavo.backends.freeze import is_frozen
from octavo.ir import Graph
from octavo.ir.ops.constant import Constant
from octavo.passes.training.loop import Samples, evaluate

BATCH = 100


def measure(graph: Graph, samples: Samples) -> dict[str, Any]:
    """The share of right answers: a frozen network's compiled bundle gives them, torch those of a float one.

    ``coded_bytes`` is the size of the bundle's entropy coded weights.
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


def _measure_bundle(graph: Graph, samples: Samples) -> dict[str, Any]:
    assert samples.labels is not None
    images, labels = samples.inputs[0].numpy(), samples.labels.numpy()
    shapes = {graph.inputs[0].name: (BATCH, *images.shape[1:])}
    with tempfile.TemporaryDirectory(prefix="octavo-compression-") as folder:
        path = Path(folder) / "network.bundle"
        octavo.compile(graph, output=path, mcpu="native", shapes=shapes, compress=True)
        coded = (path / "weights.bin").stat().st_size
        with octavo.load(path) as bundle:
            answers = [bundle(_filled(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
            level = bundle.level
    classes = np.concatenate(answers)[: len(labels)].argmax(1)
    accuracy = float(np.mean(classes == labels))
    return {"accuracy": accuracy, "images": len(labels), "by": f"bundle, {level}", "coded_bytes": coded}


def _filled(batch: NDArray[np.float32]) -> NDArray[np.float32]:
    """The last batch may lack images."""
    return np.pad(batch, ((0, BATCH - len(batch)), (0, 0), (0, 0), (0, 0)))
