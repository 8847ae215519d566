"""``docs/accuracy.md``, ``performance.md`` and ``sparsity.md``, rendered from the measured JSON alone."""

from __future__ import annotations

from pathlib import Path

from . import results
from .building import ROOT
from .pages import accuracy, performance, sparsity

DOCS = ROOT / "docs"


def write(docs: Path = DOCS, folder: Path = results.FOLDER) -> None:
    """Write the documents."""
    (docs / "accuracy.md").write_text(accuracy.page(folder), encoding="utf-8")
    (docs / "performance.md").write_text(performance.page(folder), encoding="utf-8")
    (docs / "sparsity.md").write_text(sparsity.page(folder), encoding="utf-8")
