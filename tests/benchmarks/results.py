"""The measured figures, one JSON file for each part, with what they were measured on.

Parts whose figures are of one processor alone lie in a folder of that machine's own.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .machine import describe

FOLDER = Path(__file__).with_name("results")
OF_A_MACHINE = ("speed", "profile", "compiling")
"""Parts that are measured on every kind of machine."""

Record = dict[str, Any]


def machines(folder: Path = FOLDER) -> list[Path]:
    """The folders of all machines that something was measured on, those with the most instructions first."""
    return sorted((path for path in folder.glob("*") if path.is_dir()), reverse=True, key=_rank)


def read(part: str, folder: Path = FOLDER) -> Record:
    """The models' figures of a part by name; empty before it was first measured."""
    path = folder / f"{part}.json"
    content: Record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content


def write(part: str, model: str, figures: Any, folder: Path = FOLDER) -> None:
    """Replace the figures of one model, those of this kind of machine where they depend on it."""
    machine = describe()
    place = folder / _name(machine) if part in OF_A_MACHINE else folder
    content = read(part, place)
    content[model] = {"figures": figures, "machine": machine}
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps(dict(sorted(content.items())), indent=1, sort_keys=True)
    (place / f"{part}.json").write_text(text + "\n", encoding="utf-8")


def described(folder: Path) -> Record:
    """What a machine's figures say of it; empty when there are none."""
    records = [record for part in OF_A_MACHINE for record in read(part, folder).values()]
    machine: Record = records[0]["machine"] if records else {}
    return machine


def _name(machine: Record) -> str:
    """Such as ``amd-epyc-avx2-avx512vnni``: the processor and its levels, for one name is sold for several designs."""
    words = re.sub(r"\([^)]*\)", "", machine["cpu"])
    return "-".join([*re.findall(r"[a-z0-9]+", words.lower()), *machine["levels"]])


def _rank(folder: Path) -> tuple[int, str]:
    return len(described(folder).get("levels", ())), folder.name
