"""A network that `sparsify` made sparse: a smaller bundle, kernels that skip its zeros, and the interpreter's bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import octavo
import pytest
import torch
from e2e.bundles import ARM_LEVELS, X86_LEVELS, plan
from e2e.checking import native_levels
from octavo.backends.bundle.link import host_architecture
from octavo.backends.bundle.weights import WeightStore
from octavo.backends.plan.builder import Notes
from octavo.backends.plan.planner import plan_graph
from octavo.backends.tvm.isa import get_isa
from octavo.ir import Graph, run_graph
from torch import nn

SPARSIFY = "sparsify{pattern=block:16x4,ratio=0.88}"
"""Enough for every level, AMX too."""


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(16, 96, 3, padding=1)
        self.second = nn.Conv2d(96, 80, 3, stride=2)
        self.last = nn.Linear(80, 48)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.last(self.second(self.first(x).relu()).relu().mean((2, 3)))
        return y


def _images(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=(1, 16, 15, 15)).astype(np.float32) for _ in range(count)]


def _frozen(pipeline: str) -> Graph:
    graph = octavo.trace(_Network().eval(), (torch.zeros(1, 16, 15, 15),))
    return octavo.optimize(graph, pipeline, calibration=_images(4))


@pytest.fixture(scope="module")
def sparse() -> Graph:
    return _frozen(f"{SPARSIFY},int8")


def test_layers_without_a_sparse_kernel_say_so() -> None:
    weight = np.zeros((16, 16, 2, 2), np.float32)
    weight[:2] = 0.1
    up = nn.ConvTranspose2d(16, 16, 2, stride=2)
    up.weight = nn.Parameter(torch.from_numpy(weight))
    graph = octavo.trace(up.eval(), (torch.zeros(1, 16, 15, 15),))
    frozen = octavo.optimize(graph, "int8", calibration=_images(2))
    notes: Notes = {}
    plan_graph(frozen, get_isa("avx2"), WeightStore(), "n", notes)
    assert [list(reasons) for reasons in notes.values()] == [["dense: transposed convolutions have no sparse kernel"]]


@pytest.mark.parametrize("levels", [X86_LEVELS, ARM_LEVELS], ids=["x86", "arm"])
def test_zeros_are_not_stored(sparse: Graph, levels: tuple[str, ...]) -> None:
    dense, small = (plan(graph, levels).weights.data_bytes for graph in (_frozen("int8"), sparse))
    assert small < 0.25 * dense


@pytest.mark.skipif(host_architecture() != "x86_64", reason="runs the native levels of x86-64")
def test_bundle_answers_as_the_interpreter_and_names_its_kernels(sparse: Graph, tmp_path: Path) -> None:
    made = octavo.compile(sparse, output=tmp_path / "sparse.bundle", features=native_levels())
    (image,) = _images(1)
    (expected,) = run_graph(sparse, {sparse.inputs[0].name: image}).values()
    for level in native_levels():
        with octavo.load(tmp_path / "sparse.bundle", level=level) as bundle:
            (found,) = bundle.run({bundle.inputs[0].name: image}).values()
            np.testing.assert_array_equal(found, expected, err_msg=level)
    decisions: Any = made.manifest.decisions
    reasons = {row["where"]: row["reason"] for row in decisions if row["op"] in ("qconv", "qlinear")}
    assert set(reasons) == {"first", "second", "last"}
    kernels = rf"sparse kernel: 1[23]% of 16x4 blocks \({', '.join(native_levels())}\)"
    assert all(re.search(kernels, reason) for reason in reasons.values()), reasons
