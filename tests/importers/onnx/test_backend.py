"""The onnx package's backend tests: those listed as passing pass, and the lists hold every test.

``pytest tests/importers/onnx/test_backend.py --update-golden`` writes both lists anew.
"""

from __future__ import annotations

import pytest
from importers.onnx import backend

CHUNKS = 48
# Their expected values carry the float32 noise of another FFT, 1e-6, where the right answer is 0.
NOISY = {"node/test_dft_inverse", "node/test_dft_inverse_opset19"}


def test_the_lists_hold_every_test_once(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--update-golden"):
        backend.write_lists()
    passing, reasons = backend.read_lists()
    assert len(passing) == len(set(passing))
    assert not set(passing) & set(reasons)
    assert set(passing) | set(reasons) == set(backend.cases()), "pytest --update-golden writes the lists anew"


def test_reasons_are_ours() -> None:
    """No test is left out for a crash, or for a wrong result beyond the rounding of 16-bit floats."""
    _, reasons = backend.read_lists()
    wrong = {n for n, r in reasons.items() if r.startswith("differs") and "16-bit floats" not in r}
    assert wrong == NOISY
    assert not [n for n, reason in reasons.items() if "malformed" in reason or not reason]


def test_enough_pass() -> None:
    passing, _ = backend.read_lists()
    node = [n for n in passing if n.startswith("node/")]
    converted = [n for n in passing if n.startswith("pytorch-")]
    assert len(node) >= 1500
    assert len(converted) >= 110


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.filterwarnings("ignore:.*encountered in.*:RuntimeWarning")
def test_listed_as_passing(chunk: int) -> None:
    passing, _ = backend.read_lists()
    failures = {
        name: reason
        for name in passing[chunk::CHUNKS]
        if (reason := backend.failure(backend.cases()[name])) is not None
    }
    assert not failures
