"""What a run leaves behind: one JSON file, and the network beside it."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import octavo
from benchmarks.machine import describe
from octavo.ir import Graph
from octavo.ir.text import load_graph, save_graph

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CODE = ("data.py", "networks.py", "runner.py")
"""What of this package decides the bits of a network; the settings are in every record themselves."""

Record = dict[str, Any]


@dataclass(frozen=True)
class Store:
    """Folders: ``results`` (JSON) and ``checkpoints`` (graphs) are kept, ``work`` is what a run can go on from."""

    results: Path = HERE / "results"
    checkpoints: Path = HERE / "checkpoints"
    work: Path = ROOT / ".cache" / "compression"

    @classmethod
    def within(cls, folder: Path) -> Store:
        """A store of its own, for trials."""
        return cls(folder / "results", folder / "checkpoints", folder / "work")

    def read(self, stage: str, seed: int) -> Record | None:
        """The record of a run; None before it has ended."""
        path = self._record(stage, seed)
        if not path.is_file():
            return None
        found: Record = json.loads(path.read_text(encoding="utf-8"))
        return found

    def write(self, record: Record) -> None:
        """All or nothing."""
        _write(self._record(record["stage"], record["seed"]), record)

    def seeds(self, stage: str) -> list[int]:
        """Those whose runs have ended."""
        found = (path.stem.rpartition(".") for path in self.results.glob(f"{stage}.*.json"))
        return sorted(int(seed) for name, _, seed in found if name == stage)

    def graph(self, stage: str, seed: int) -> Graph:
        """The network that a run made."""
        return load_graph(self._checkpoint(stage, seed))

    def save(self, stage: str, seed: int, graph: Graph) -> str:
        """Keep a network; returns the SHA-256 of its files."""
        path = self._checkpoint(stage, seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        save_graph(graph, path)
        return self.digest(stage, seed)

    def digest(self, stage: str, seed: int) -> str:
        """SHA-256 of a network's files."""
        path = self._checkpoint(stage, seed)
        return _digest(part for part in (path, path.with_suffix(".safetensors")) if part.exists())

    def timings(self) -> list[Record]:
        """What :meth:`write_timings` kept; none before it was measured."""
        path = self.results / "latency.json"
        found: list[Record] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
        return found

    def write_timings(self, timings: Sequence[Record]) -> None:
        """All or nothing."""
        _write(self.results / "latency.json", timings)

    def _record(self, stage: str, seed: int) -> Path:
        return self.results / f"{stage}.{seed}.json"

    def _checkpoint(self, stage: str, seed: int) -> Path:
        return self.checkpoints / f"{stage}-seed{seed}.octavo"


def code_digest() -> str:
    """SHA-256 of the sources that make a network: the IR and all passes, training among them, and the experiments."""
    package = Path(octavo.__file__).parent
    passes = sorted(path for part in ("ir", "passes") for path in (package / part).rglob("*.py"))
    return _digest([*passes, *(HERE / name for name in CODE)])


def surroundings() -> dict[str, Any]:
    """The versions and the machine that took part."""
    found = describe()
    found["packages"] |= {name: metadata.version(name) for name in ("numpy", "safetensors")}
    found["packages"] |= {"octavo": octavo.__version__, "python": platform.python_version()}
    return found


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
