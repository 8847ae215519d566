"""One toy bundle for the host, written once, and copies of it for tests that break it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from bundle.toys import Toy


@pytest.fixture(scope="session")
def toy() -> Toy:
    return Toy()


@pytest.fixture(scope="session")
def toy_folder(toy: Toy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy's bundle; not to be changed."""
    scratch = tmp_path_factory.mktemp("toy")
    toy.write(scratch / "toy.octavo", scratch, labels=("cat", "dog"))
    return scratch / "toy.octavo"


@pytest.fixture
def toy_copy(toy_folder: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(toy_folder, tmp_path / "copy.octavo")
