"""Random graphs through the whole pipeline: every level answers with the interpreter's bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from e2e.bundles import ARM_LEVELS, X86_LEVELS
from e2e.checking import check_samples, need
from e2e.samples import BATCH, CI_BATCHES, NIGHTLY_BATCHES, batch_levels, count, entropies, frozen, is_exact, samples

LEAST_EXACT = 0.95
"""The share of random graphs that must be integer throughout; the others hold a float island."""
LEAST_ENTROPY = 1.0
LEAST_MEAN_ENTROPY = 5.0
"""Bits per stored byte: of any arithmetic result, and on average. A uniform distribution has 8."""

BATCHES = [
    pytest.param(batch, marks=() if batch < CI_BATCHES else pytest.mark.nightly) for batch in range(NIGHTLY_BATCHES)
]


@pytest.mark.parametrize("batch", BATCHES)
def test_x86_level_answers_as_the_interpreter(batch: int, tmp_path: Path) -> None:
    level = batch_levels(batch)[0]
    need(level)
    assert check_samples(list(samples(batch)), level, tmp_path) == []


@pytest.mark.arm
@pytest.mark.parametrize("batch", BATCHES)
def test_arm_level_answers_as_the_interpreter(batch: int, tmp_path: Path) -> None:
    level = batch_levels(batch)[1]
    assert check_samples(list(samples(batch)), level, tmp_path) == []


def test_every_level_is_in_the_sample() -> None:
    chosen = {level for batch in range(CI_BATCHES) for level in batch_levels(batch)}
    assert chosen == {*X86_LEVELS, *ARM_LEVELS}


def test_graphs_are_mostly_integer() -> None:
    assert count(CI_BATCHES, is_exact) >= LEAST_EXACT * CI_BATCHES * BATCH


def test_results_are_no_constants() -> None:
    """A comparison of bytes means little where they are all alike."""
    found = {s.seed: entropies(s.graph, s.feeds) for batch in range(CI_BATCHES) for s in samples(batch)}
    flat = {f"seed {seed}, %{name}": bits for seed, each in found.items() for name, bits in each.items()}
    poor = {name: round(bits, 2) for name, bits in flat.items() if bits < LEAST_ENTROPY}
    assert len(poor) <= len(flat) // 50, f"{len(poor)} of {len(flat)} values carry next to nothing: {poor}"
    assert np.mean(list(flat.values())) >= LEAST_MEAN_ENTROPY


def test_a_seed_always_gives_the_same_graph() -> None:
    first, again = str(frozen(3)), str(frozen.__wrapped__(3))
    assert first == again
