"""The measured figures, one JSON file for each part, with what they were measured on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .machine import describe

FOLDER = Path(__file__).with_name("results")
Record = dict[str, Any]


def read(part: str, folder: Path = FOLDER) -> Record:
    """The models' figures of a part by name; empty before it was first measured."""
    path = folder / f"{part}.json"
    content: Record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def write(part: str, model: str, figures: Any, folder: Path = FOLDER) -> None:
    """Replace the figures of one model."""
    content = read(part, folder)
    content[model] = {"figures": figures, "machine": describe()}
    folder.mkdir(exist_ok=True)
    text = json.dumps(dict(sorted(content.items())), indent=1, sort_keys=True)
    (folder / f"{part}.json").write_text(text + "\n", encoding="utf-8")
