"""What a machine lacks skips a test wherever it is asked for, or fails it where nothing may be missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest
from support.missing import MissingError


def find():
    raise MissingError("no model", "OCTAVO_REQUIRE_MODELS")


@pytest.fixture
def model():
    find()


def test_with_a_fixture(model): ...


def test_that_asks_itself():
    find()
"""


@pytest.mark.parametrize(
    ("required", "code", "said"),
    [("0", 0, ["2 skipped", "no model"]), ("1", 1, ["1 failed, ", "1 error", "OCTAVO_REQUIRE_MODELS=1, but no model"])],
)
def test_what_is_missing_skips_or_fails(tmp_path: Path, required: str, code: int, said: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(TESTS, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OCTAVO_REQUIRE_MODELS": required}
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-rs", "test_it.py"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == code, result.stdout + result.stderr
    assert all(text in result.stdout for text in said), result.stdout
