"""Accuracy floors of the two ImageNet networks, and instructions on ARM: figures that do not depend on the machine."""

from __future__ import annotations

import pytest

from benchmarks import accuracy, arm
from benchmarks.subjects import SUBJECTS


@pytest.mark.nightly
@pytest.mark.models
@pytest.mark.eval
@pytest.mark.parametrize(("name", "flips", "sqnr"), [("mobilenet_v2", 0.09, 14.0), ("efficientnet_lite0", 0.04, 18.0)])
def test_accuracy(name: str, flips: float, sqnr: float) -> None:
    found = accuracy.measure(SUBJECTS[name])["octavo"]
    assert found["flips"] <= flips
    assert found["sqnr"] >= sqnr


@pytest.mark.nightly
@pytest.mark.models
@pytest.mark.arm
@pytest.mark.parametrize(("name", "cpu", "millions"), [("mobilenet_v2", "neoverse-n1", 61), ("resnet18", "max", 110)])
def test_instructions_on_arm(name: str, cpu: str, millions: float) -> None:
    assert arm.measure(name, [cpu])[cpu]["millions"] <= millions
