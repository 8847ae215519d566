"""Files that take long to make, kept between runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "peers"


def cached(name: str, write: Callable[[Path], None]) -> Path:
    """The file ``name`` of the cache; two processes may write it at once, each gets a whole one."""
    path = CACHE / name
    if not path.is_file():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            write(Path(folder) / name)
            (Path(folder) / name).replace(path)
    return path
