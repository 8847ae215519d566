"""One compilation: everything that decides the bytes of a bundle, run or copied from a cache."""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir.errors import UsageError
from ..ir.graph import Graph
from ..ir.target import Target
from ..passes.base import Ranges
from ..passes.observers import PipelineObserver
from ..passes.options import split_outside
from ..passes.pipeline import NAMED, Pipeline
from ..passes.registry import is_builtin
from .bundle.manifest import Manifest
from .bundle.writer import check_destination
from .cache import Cache, digest_compiler, digest_files, digest_json
from .data import Source, open_data
from .freeze import Freezer, Progress, Report
from .models import Model, digest_graphs
from .preprocess import Preprocess
from .shapes import Shapes
from .targets import host_cpu, tunable_level

if TYPE_CHECKING:
    from .bundle.loader import Bundle
    from .bundle.manifest import Json


@dataclass(frozen=True)
class CompileResult:
    """A written bundle: its folder, its manifest, and whether it came from the cache."""

    path: Path
    manifest: Manifest
    cached: bool = False

    @property
    def ranges(self) -> Ranges:
        """The ranges of every quantized activation; given as ``ranges`` they make the same bundle without data."""
        return manifest_ranges(self.manifest)

    def load(self) -> Bundle:
        """The bundle, ready to run on this machine."""
        from .bundle.loader import load

        return load(self.path)


@dataclass(frozen=True)
class Job:
    """Everything that decides the bytes of a bundle, and where it goes.

    ``tune`` says how many seconds to search for faster kernels. How many they were decides nothing once all of the
    search is done.
    """

    model: Model
    output: Path
    target: Target
    plans: Sequence[Shapes]
    pipeline: str
    calibration: Source | None
    preprocess: Preprocess | None
    limit: int | None
    ranges: Ranges
    name: str | None
    labels: tuple[str, ...] | None
    compress: bool = False
    tune: float | None = None

    def key(self, model: str) -> str | None:
        """The digest that names the bundle in a cache, given the model's.

        None for calibration data in memory and for passes of others: their content is not known beforehand.
        """
        if not _only_builtin(self.pipeline) or (calibration := self._digest_calibration()) is None:
            return None
        return digest_json(
            {
                "compiler": digest_compiler(),
                "model": [model, self.model.stem, self.name],
                "target": [self.target.name, *(level.name for level in self.target.levels)],
                "plans": [{name: list(shape) for name, shape in plan.items()} for plan in self.plans],
                "pipeline": self.pipeline,
                "calibration": [calibration, self.limit, None if self.preprocess is None else str(self.preprocess)],
                "ranges": {name: list(pair) for name, pair in self.ranges.items()},
                "labels": None if self.labels is None else list(self.labels),
                "compress": self.compress,
                "tuned for": None if self.tune is None else host_cpu(),
            }
        )

    def _digest_calibration(self) -> str | None:
        if self.calibration is None:
            return ""
        files = open_data(self.calibration, {}).files
        return digest_files(files) if files else None


def _only_builtin(pipeline: str) -> bool:
    """Whether all passes are octavo's own, whose sources are part of the key."""
    names = [piece.partition("{")[0].strip() for piece in split_outside(pipeline, ",")]
    return all(name in NAMED or is_builtin(name) for name in names)


def run_job(
    job: Job,
    cache: Cache | None,
    overwrite: bool,
    jobs: int,
    observers: Sequence[PipelineObserver],
    report: Report,
    progress: Progress,
) -> CompileResult:
    """Compile, or copy from the cache."""
    check_destination(job.output, overwrite)
    if job.tune is not None:
        check_seconds(job.tune, job.tune)
        tunable_level(job.target)
    progress("read the model", 0, None)
    graphs: tuple[Graph, ...] = ()
    model = job.model.digest()
    if model is None:
        graphs = job.model.trace_fixed(job.plans)
        model = digest_graphs(graphs)
    key = job.key(model) if cache else None
    if cache and key and (manifest := cache.fetch(key, job.output, overwrite=overwrite)):
        return CompileResult(job.output, manifest, cached=True)
    from .. import __version__
    from .compiler import compile_graphs
    from .objects import TOGETHER, KernelObjects
    from .tune import Tuned, Tuning, tune

    pipeline = Pipeline.parse(job.pipeline)
    graphs = graphs or job.model.trace_fixed(job.plans)
    freezer = Freezer(
        pipeline, job.calibration, job.preprocess, job.limit, job.ranges, observers, report, progress, job.target
    )
    frozen = freezer.freeze(graphs)
    name = job.name or graphs[0].name
    made: dict[str, Json] = {
        "octavo": __version__,
        "model": model,
        "pipeline": str(pipeline),
        "ranges": {key: [low, high] for key, (low, high) in sorted(freezer.ranges.items())},
    }
    tuned: Tuned | None = None
    with KernelObjects(jobs, TOGETHER if job.tune is None else 1) as objects:
        build = functools.partial(compile_graphs, frozen, name=name, prefix=prefix_of(name), objects=objects)
        if job.tune is not None:
            tuned = tune(frozen, job.target, Tuning(job.tune, cache.folder if cache else None), build, progress)
            made["tuned"] = tuned.to_json()
        manifest = build(
            job.target,
            job.output,
            made=made,
            choices={tuned.level: tuned.choices} if tuned else {},
            preprocessing=None if job.preprocess is None else job.preprocess.to_json(),
            labels=job.labels,
            compress=job.compress,
            overwrite=overwrite,
            progress=progress,
        )
    # A search that had too little time goes on when the same is compiled again.
    if cache and key and (tuned is None or tuned.complete):
        cache.store(key, job.output)
    return CompileResult(job.output, manifest)


def manifest_ranges(manifest: Manifest) -> dict[str, tuple[float, float]]:
    """The ranges that a bundle was made with."""
    ranges = manifest.made.get("ranges")
    pairs = ranges.items() if isinstance(ranges, dict) else ()
    return {name: (float(p[0]), float(p[1])) for name, p in pairs if isinstance(p, list)}  # type: ignore[arg-type]


_TAKEN = frozenset({"f", "r", "w", "x", "pthread", "sem", "timer"})
"""Prefixes of the C library's: R_OK, pthread_create and so on."""


def prefix_of(name: str) -> str:
    """The C identifier that a bundle of this name puts before its symbols."""
    word = re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("_")
    return word if word[:1].isalpha() and word.lower() not in _TAKEN else f"net_{word}".rstrip("_")


_UNITS = {"s": 1, "m": 60}


def read_labels(labels: Sequence[str] | Path | str | None) -> tuple[str, ...] | None:
    """Class names, from a file with one on each line when it is a path.

    Raises:
        UsageError: the file cannot be read, or is empty.
    """
    if labels is None or not isinstance(labels, str | Path):
        return None if labels is None else tuple(labels)
    try:
        lines = tuple(Path(labels).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the labels cannot be read: {reason}", where=str(labels)) from error
    if not lines:
        raise UsageError("the file of labels is empty", where=str(labels), expected="one label on each line")
    return lines


def read_seconds(text: str) -> float:
    """``30``, ``30s`` or ``2m`` in seconds.

    Raises:
        UsageError: it is no positive length of time.
    """
    number, unit = (text[:-1], text[-1:]) if text[-1:] in _UNITS else (text, "s")
    try:
        return check_seconds(float(number) * _UNITS[unit], text)
    except ValueError:
        return check_seconds(0, text)


def check_seconds(seconds: float, given: object) -> float:
    """A length of time as it is.

    Raises:
        UsageError: it is none; the error shows what was ``given``.
    """
    if not 0 < seconds < math.inf:
        raise UsageError(f"{given!r} is no time to tune for", expected="seconds or minutes, such as 30s or 2m")
    return seconds
