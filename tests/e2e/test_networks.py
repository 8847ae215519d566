"""Trained networks answer with the interpreter's bytes on every level."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from e2e.bundles import ARM_LEVELS, Feeds, Job, build_all, run_jobs
from e2e.checking import differences, x86_levels
from e2e.networks import Network, frozen_network

pytestmark = pytest.mark.models

IN_CI = ("mobilenet_v2", "crepe_tiny")
NIGHTLY = (
    "efficientnet_lite0",
    "resnet18",
    "ppocr_cls",
    "ppocr_rec",
    "ppocr_det",
    "page_orientation",
    "minilm_l6",
    "silero_vad",
    "resnext50",
)
NETWORKS = [*IN_CI, *(pytest.param(name, marks=pytest.mark.nightly) for name in NIGHTLY)]
TOLERANCE = 1e-4
"""Relative to the largest output, of networks with float islands."""


def _check(network: Network, levels: Sequence[str], folder: Path) -> None:
    """One fat bundle, run on each of its levels."""
    (built,) = build_all([network.graph], levels, folder)
    answers = {level: run_jobs([Job(built, level, network.feeds)], level)[0] for level in levels}
    troubles = {level: answer.trouble for level, answer in answers.items() if answer.trouble}
    assert troubles == {}
    wrong = {level: _compare(network, answer.outputs) for level, answer in answers.items()}
    assert {level: lines for level, lines in wrong.items() if lines} == {}


def _compare(network: Network, found: Feeds) -> list[str]:
    if network.exact:
        return differences(network.expected, found)
    worst = {
        name: float(np.max(np.abs(found[name] - want)) / np.max(np.abs(want)))
        for name, want in network.expected.items()
    }
    return [f"{name} differs by {error:.2g}" for name, error in worst.items() if not error <= TOLERANCE]


@pytest.mark.parametrize("name", NETWORKS)
def test_x86_levels(name: str, tmp_path: Path) -> None:
    _check(frozen_network(name), x86_levels(), tmp_path)


@pytest.mark.arm
@pytest.mark.parametrize("name", NETWORKS)
def test_arm_levels(name: str, tmp_path: Path) -> None:
    _check(frozen_network(name), ARM_LEVELS, tmp_path)


@pytest.mark.parametrize("name", ["mobilenet_v2"])
def test_no_float_island(name: str) -> None:
    assert frozen_network(name).exact
