"""manifest.json: what a bundle is, for people and for the loader."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from .errors import BundleFormatError
from .program import DTYPES, Program, Signature, TensorSpec

VERSION = 1
FILE_NAME = "manifest.json"
VERSION_KEY = "octavo_bundle"

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"


@dataclass(frozen=True)
class FileRecord:
    """Size in bytes and SHA-256 (hexadecimal) of one file of the bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class LevelRecord:
    """One instruction-set level and the features it needs."""

    name: str
    features: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """A bundle's description. ``signatures`` holds inputs and outputs of each plan; everything opaque is JSON.

    ``exactness`` is ``bit-exact`` or the stated tolerance; ``made`` says how the bundle came to be (octavo's version,
    the pipeline's text, the source model's digest); ``weights`` is ``file`` or ``embedded``. ``work`` says by level and
    plan what each step computes and moves, in the order of the steps, and ``memory`` what a run needs
    (`describe_memory`); both are None in bundles that older versions made.
    """

    name: str
    prefix: str
    build: str
    target: str
    architecture: str
    levels: tuple[LevelRecord, ...]
    signatures: tuple[Signature, ...]
    weights: str
    files: Mapping[str, FileRecord]
    exactness: str
    preprocessing: Json
    made: Mapping[str, Json]
    decisions: Json
    work: Json = None
    memory: Json = None

    @property
    def library(self) -> str:
        return f"lib{self.prefix}.so"

    def to_text(self) -> str:
        """The file's text; the format version is its first key."""
        document = {
            VERSION_KEY: VERSION,
            "name": self.name,
            "prefix": self.prefix,
            "build": self.build,
            "target": {"name": self.target, "architecture": self.architecture},
            "levels": [{"name": level.name, "features": list(level.features)} for level in self.levels],
            "plans": [
                {"inputs": [_tensor(t) for t in s.inputs], "outputs": [_tensor(t) for t in s.outputs]}
                for s in self.signatures
            ],
            "preprocessing": self.preprocessing,
            "exactness": self.exactness,
            "weights": self.weights,
            "files": {name: {"bytes": f.bytes, "sha256": f.sha256} for name, f in sorted(self.files.items())},
            "made": dict(self.made),
            "decisions": self.decisions,
            "work": self.work,
            "memory": self.memory,
        }
        return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """Reads ``manifest.json`` of a bundle.

    Raises:
        BundleFormatError: no bundle there, a newer format, or text that is not a manifest.
    """
    path = folder / FILE_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text"
        raise BundleFormatError(
            "not a readable octavo bundle", where=str(folder), expected=f"a folder that holds {FILE_NAME} ({reason})"
        ) from error
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BundleFormatError(f"{FILE_NAME} is not JSON: {error}", where=str(path)) from error
    return _parse(_Reader(document, str(path), ""))


def digest_file(path: Path) -> FileRecord:
    """Size and SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(path.stat().st_size, digest)


def describe_levels(program: Program) -> tuple[LevelRecord, ...]:
    """The levels of a program, best first."""
    return tuple(LevelRecord(level.name, level.features) for level in program.levels)


def describe_work(program: Program) -> Json:
    """What each step of each plan does, by level, without what is zero."""
    return {
        level.name: [
            [{key: value for key, value in asdict(step.work).items() if value} for step in plan.steps]
            for plan in level.plans
        ]
        for level in program.levels
    }


def describe_memory(program: Program) -> Json:
    """Bytes that a run of each plan needs, by level.

    ``values`` between layers, of which at most ``alive`` are needed at once, ``scratch`` for each thread, and what its
    steps read and write together, constants included, as ``moved``.
    """
    return {
        level.name: [
            {
                "values": plan.arena_bytes,
                "alive": plan.alive_bytes,
                "scratch": plan.scratch_bytes,
                "moved": sum(step.work.read + step.work.written + step.work.constants for step in plan.steps),
            }
            for plan in level.plans
        ]
        for level in program.levels
    }


def _tensor(spec: TensorSpec) -> dict[str, Json]:
    return {
        "name": spec.name,
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "scale": spec.scale,
        "zero_point": spec.zero_point,
        "alignment": spec.alignment,
    }


@dataclass(frozen=True)
class _Reader:
    """A JSON value that knows where it stands, for messages."""

    value: Any
    file: str
    place: str

    def wrong(self, expected: str) -> BundleFormatError:
        shown = repr(self.value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return BundleFormatError(
            f"malformed {FILE_NAME}: {self.place or 'document'} is {shown}", where=self.file, expected=expected
        )

    def __getitem__(self, key: str) -> _Reader:
        if not isinstance(self.value, dict) or key not in self.value:
            raise self.wrong(f"an object with {key!r}")
        return _Reader(self.value[key], self.file, f"{self.place}.{key}".lstrip("."))

    def items(self) -> Iterator[_Reader]:
        if not isinstance(self.value, list):
            raise self.wrong("a list")
        for index, item in enumerate(self.value):
            yield _Reader(item, self.file, f"{self.place}[{index}]")

    def mapping(self) -> dict[str, _Reader]:
        if not isinstance(self.value, dict):
            raise self.wrong("an object")
        return {str(key): self[key] for key in self.value}

    def text(self) -> str:
        if not isinstance(self.value, str):
            raise self.wrong("a string")
        return self.value

    def integer(self) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            raise self.wrong("an integer")
        return self.value

    def number(self) -> float:
        if not isinstance(self.value, (int, float)) or isinstance(self.value, bool):
            raise self.wrong("a number")
        return float(self.value)

    def optional(self, read: Callable[[], Any]) -> Any:
        return None if self.value is None else read()


def _parse(document: _Reader) -> Manifest:
    version = document[VERSION_KEY].integer()
    if version > VERSION:
        raise BundleFormatError(
            f"the bundle has format version {version}",
            where=document.file,
            expected=f"at most {VERSION}",
            hint="update octavo",
        )
    if version < 1:
        raise document[VERSION_KEY].wrong("a format version")
    prefix = document["prefix"]
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", prefix.text()):
        raise prefix.wrong("a C identifier")
    target = document["target"]
    signatures = tuple(
        Signature(tuple(map(_parse_tensor, p["inputs"].items())), tuple(map(_parse_tensor, p["outputs"].items())))
        for p in document["plans"].items()
    )
    if not signatures:
        raise document["plans"].wrong("at least one plan")
    return Manifest(
        name=document["name"].text(),
        prefix=prefix.text(),
        build=document["build"].text(),
        target=target["name"].text(),
        architecture=target["architecture"].text(),
        levels=tuple(
            LevelRecord(level["name"].text(), tuple(f.text() for f in level["features"].items()))
            for level in document["levels"].items()
        ),
        signatures=signatures,
        weights=document["weights"].text(),
        files=_parse_files(document["files"]),
        exactness=document["exactness"].text(),
        preprocessing=document["preprocessing"].value,
        made={key: reader.value for key, reader in document["made"].mapping().items()},
        decisions=document["decisions"].value,
        work=document.value.get("work"),
        memory=document.value.get("memory"),
    )


def _parse_files(reader: _Reader) -> dict[str, FileRecord]:
    """Plain names only: a manifest never points outside of its folder."""
    for name in reader.mapping():
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise reader.wrong(f"plain file names, not {name!r}")
    return {name: FileRecord(f["bytes"].integer(), f["sha256"].text()) for name, f in reader.mapping().items()}


def _parse_tensor(reader: _Reader) -> TensorSpec:
    dtype = reader["dtype"]
    if dtype.text() not in DTYPES:
        raise dtype.wrong(f"one of {', '.join(DTYPES)}")
    return TensorSpec(
        name=reader["name"].text(),
        dtype=dtype.text(),
        shape=tuple(extent.integer() for extent in reader["shape"].items()),
        scale=reader["scale"].optional(reader["scale"].number),
        zero_point=reader["zero_point"].optional(reader["zero_point"].integer),
        alignment=reader["alignment"].integer(),
    )
