"""Every op with an integer form runs on every level in the graphs of ``test_random.py``."""

from __future__ import annotations

from collections import defaultdict

import pytest
from e2e.bundles import ARM_LEVELS, X86_LEVELS, plan
from e2e.random_graphs import RECIPES
from e2e.samples import BATCH, CI_BATCHES, integer_ops, samples
from octavo.backends.tvm.kernels.sparse import SparseConvSpec
from octavo.backends.tvm.lower.registry import LOWERINGS, find_lowering
from octavo.ir.op import Op, Quantization, Stage, all_ops
from octavo.ir.ops.cast import Identity
from octavo.ir.ops.resize import Resize

LEVELS = (*X86_LEVELS, *ARM_LEVELS)

NO_LOWERING = {
    "as_quantized": "exists before the freeze of imported models only",
    "constant": "becomes bytes of the bundle, not a kernel",
    "fake_quantize": "exists before the freeze only",
    "observer": "exists before the freeze only",
}
"""Ops that move elements, and have no kernel for quantized ones."""

NOT_IN_PIPELINES = {
    "gather_elements": "runs on every level in test_ops.py",
    "gather_nd": "runs on every level in test_ops.py",
    "identity": "canonicalize removes it; its lowering is a view",
    "qimage": "runs on every level in test_image_input.py",
    "reverse_sequence": "runs on every level in test_ops.py",
}


def expected_ops() -> dict[str, type[Op]]:
    """Integer ops, those that move elements of any type, and the two conversions at the edges."""
    moves = (Quantization.PRESERVING, Quantization.JOINING)
    chosen = {op.name: op for op in all_ops() if op.stage is Stage.INTEGER or op.quantization in moves}
    edges = {op.name: op for op in all_ops() if op.name in ("quantize", "dequantize")}
    return {**chosen, **edges, Resize.name: Resize}


@pytest.fixture(scope="module")
def covered() -> dict[str, set[str]]:
    """Levels by op."""
    found: dict[str, set[str]] = defaultdict(set)
    for batch in range(CI_BATCHES):
        for sample in samples(batch):
            for name in integer_ops(sample.graph):
                found[name].update(sample.levels)
    return found


def test_every_op_runs_on_every_level(covered: dict[str, set[str]]) -> None:
    wanted = expected_ops().keys() - NO_LOWERING.keys() - NOT_IN_PIPELINES.keys()
    missing = [f"{name} on {level}" for name in sorted(wanted) for level in LEVELS if level not in covered[name]]
    assert not missing, f"{len(missing)} pairs are in no graph of the sample: {', '.join(missing)}"


def test_sparse_kernels_run_on_every_level() -> None:
    met = {
        level
        for batch in range(CI_BATCHES)
        for sample in samples(batch)
        for level in sample.levels
        if any(isinstance(spec, SparseConvSpec) for spec in plan(sample.graph, [level]).kernels[level].values())
    }
    assert met == set(LEVELS)


def test_exceptions_are_true() -> None:
    """An op that got a kernel must leave the list of those that have none."""
    find_lowering(Identity())
    wrong = [name for name, op in expected_ops().items() if (op in LOWERINGS) == (name in NO_LOWERING)]
    assert wrong == []


def test_batches_mix_recipes_and_levels() -> None:
    assert len(RECIPES) % BATCH
    assert BATCH % len(RECIPES)
