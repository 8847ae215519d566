"""What torch.nn and tensor functions offer, each imported, verified, run beside torch, printed and parsed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from octavo.ir import Graph, parse_graph, print_graph, run_graph, verify
from octavo.ir.constants import from_tensors
from octavo.ir.importers.torch import import_torch
from torch.utils import _pytree as pytree

from .calls import CALLS
from .cases import Case
from .layers import LAYERS

CASES = [*LAYERS, *CALLS]


def answers(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    with torch.no_grad():
        result: Any = module(*[tensor.clone() for tensor in inputs])
    return [leaf.numpy() for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]


def run(graph: Graph, inputs: tuple[torch.Tensor, ...]) -> list[np.ndarray]:
    feeds = {value.name: tensor.numpy() for value, tensor in zip(graph.inputs, inputs, strict=True)}
    return list(run_graph(graph, feeds).values())


def assert_close(got: list[np.ndarray], want: list[np.ndarray], tolerance: float) -> None:
    assert len(got) == len(want)
    for ours, theirs in zip(got, want, strict=True):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        if ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(ours, theirs)


def test_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_imported_op_computes_what_torch_computes(case: Case) -> None:
    module, inputs = case.module(), case.tensors()
    graph = import_torch(module, inputs)
    verify(graph)
    assert_close(run(graph, inputs), answers(module, inputs), case.tolerance)
    text = print_graph(graph)
    parsed = parse_graph(text, from_tensors(graph.constants()))
    assert print_graph(parsed) == text
    verify(parsed)
