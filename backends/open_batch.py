"""Graphs whose batch has a name instead of a size, so that batches of any size train."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from ..ir.errors import ModelError, OctavoError, UnsupportedError
from ..ir.graph import Graph
from ..ir.interpreter import run_graph
from ..ir.ops.shape import Reshape
from ..ir.types import Dim, TensorType
from .models import Model
from .shapes import Shapes

BATCH = Dim("batch")


def trace_open(model: Model, shapes: Shapes | None) -> Graph:
    """The graph of a model, for batches of any size where its operations allow that, else for its own.

    Raises:
        ModelError: the model cannot be read.
    """
    graph = _export_open(model) if shapes is None else None
    graph = graph or model.trace(shapes)
    return graph if fixed_batch(graph) is None else open_batch(graph) or graph


def fixed_batch(graph: Graph) -> int | None:
    """The batch that a graph is tied to; None when it has a name."""
    first = graph.inputs[0].type.shape[:1]
    return first[0] if first and isinstance(first[0], int) else None


def open_batch(graph: Graph) -> Graph | None:
    """The graph for batches of any size; None where its operations hold it to one.

    Reshapes that spell out the batch get its name instead. Whether samples are still computed independently of each
    other is tried out: with two batches of different samples at once, the answers must be those of each alone.
    """
    size = fixed_batch(graph)
    if size is None or any(v.type.shape[:1] != (size,) for v in (*graph.inputs, *graph.outputs)):
        return None
    copy = graph.clone()
    for node in copy.nodes:
        if isinstance(node.op, Reshape) and node.op.shape[:1] == (size,) == node.inputs[0].type.shape[:1]:
            node.op = dataclasses.replace(node.op, shape=(BATCH, *node.op.shape[1:]))
    types = {v.name: v.type.with_shape((BATCH, *v.type.shape[1:])) for v in copy.inputs}
    try:
        opened = copy.clone(inputs=types)
        named = all(v.type.shape[:1] == (BATCH,) for v in opened.outputs)
        return opened if named and _agree(graph, opened) else None
    except (OctavoError, RuntimeError, IndexError):
        return None


def _export_open(model: Model) -> Graph | None:
    if not isinstance(model.source, torch.nn.Module) or model.example_inputs is None:
        return None
    from ..ir.importers.torch import import_torch

    finite = model.allow_non_finite
    try:
        return import_torch(
            model.source, model.example_inputs, dynamic_batch=True, name=model.name, allow_non_finite=finite
        )
    except UnsupportedError:
        raise
    except ModelError:
        return None


def _agree(fixed: Graph, opened: Graph) -> bool:
    random = np.random.default_rng(0)
    batches = [{v.name: _draw(v.type, random) for v in fixed.inputs} for _ in range(2)]
    alone = [run_graph(fixed, batch) for batch in batches]
    together = run_graph(opened, {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]})
    return all(
        np.allclose(np.concatenate([answers[name] for answers in alone]), found, rtol=1e-3, atol=1e-4)
        for name, found in together.items()
    )


def _draw(type: TensorType, random: np.random.Generator) -> np.ndarray:
    """Floats in [0, 1), or integers that any table to look up has a row for: 0 and 1."""
    shape = type.static_shape
    drawn = random.random(shape) if type.dtype.is_float else random.integers(0, 2, shape)
    return drawn.astype(type.dtype.numpy)
