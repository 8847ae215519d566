"""A short measured search for kernels that are faster on this machine than those that the cost model chooses.

All kernels of a network are measured at once and in place, where their weights come from as far away as they will: a
bundle with the next alternative of each takes turns with the bundle of the chosen ones. An alternative wins whose
ratio is above 1 for certain; in the end the winners together have to make the whole network faster, or nothing changes.
"""

from __future__ import annotations

import json
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..ir.errors import UsageError
from ..ir.graph import Graph
from ..ir.target import Target
from .bench.session import random_inputs
from .bench.timing import Ratio, interleave, pair_ratio, raised_priority
from .bundle.loader import Bundle, load
from .bundle.manifest import Json
from .bundle.weights import WeightStore
from .cache import digest_compiler, digest_json
from .plan.builder import Choices
from .plan.planner import plan_graph
from .targets import host_cpu, tunable_level
from .tvm.isa import Isa, get_isa
from .tvm.kernels.base import KernelSpec


class Build(Protocol):
    """Writes the bundle of a target into a folder, with some kernels replaced by level."""

    def __call__(self, target: Target, output: Path, *, choices: Mapping[str, Choices]) -> object: ...


Progress = Callable[[str, int, int | None], None]

MOST_ALTERNATIVES = 8
"""Alternatives of a kernel that are measured."""

LEAST_GAIN = 1.01
"""What an alternative's ratio is certainly above when it is chosen: smaller gains are not worth another kernel."""

ROUNDS, TOTAL_ROUNDS = 15, 41
"""Turns of both bundles for one alternative of every kernel, and to compare the network as a whole."""


@dataclass(frozen=True)
class Tuning:
    """How long to search, in seconds, and where findings are kept for other compilations."""

    seconds: float
    folder: Path | None = None


@dataclass(frozen=True)
class Finding:
    """How many alternatives of a kernel were measured, which was the best and how many times faster (None: none)."""

    tried: int = 0
    best: int | None = None
    ratio: float = 1.0

    def after(self, index: int, ratio: Ratio) -> Finding:
        """With one more alternative measured."""
        if ratio.low > LEAST_GAIN and ratio.median > self.ratio:
            return Finding(index + 1, index, ratio.median)
        return replace(self, tried=index + 1)


@dataclass(frozen=True)
class Tuned:
    """The kernels that replace others on one level, of how many, and how much faster the network became."""

    level: str
    choices: Choices
    kernels: int
    measured: int
    ratio: Ratio | None

    @property
    def by_level(self) -> Mapping[str, Choices]:
        return {self.level: self.choices}

    def to_json(self) -> Json:
        """What a bundle says about how it was made."""
        return {
            "level": self.level,
            "kernels": self.kernels,
            "replaced": len(self.choices),
            "alternatives": self.measured,
            "ratio": None if self.ratio is None else [round(value, 4) for value in self.ratio.as_list()],
        }


def tune(
    graphs: Sequence[Graph], target: Target, tuning: Tuning, build: Build, progress: Progress = lambda *_: None
) -> Tuned:
    """Search for ``tuning.seconds``, on one thread, on the best level of ``target`` that this machine has.

    Other levels keep the choices of the cost model: what a level does here says little about the CPUs that take it.

    Raises:
        TargetError: this machine runs no level of the target.
    """
    level = tunable_level(target)
    alone = replace(target, levels=tuple(each for each in target.levels if each.name == level))
    with tempfile.TemporaryDirectory(prefix="octavo-tune-") as folder, raised_priority():
        return _Search(graphs, get_isa(level), tuning, alone, build, Path(folder), progress).run()


def parse_seconds(text: str) -> float:
    """``30``, ``30s`` or ``2m`` in seconds.

    Raises:
        UsageError: it is no positive length of time.
    """
    number, unit = (text[:-1], text[-1:]) if text[-1:] in ("s", "m") else (text, "s")
    with suppress(ValueError):
        seconds = float(number) * {"s": 1, "m": 60}[unit]
        if 0 < seconds < float("inf"):
            return seconds
    raise UsageError(f"{text!r} is no length of time", expected="seconds or minutes, such as 30s or 2m")


@dataclass(frozen=True)
class _Search:
    graphs: Sequence[Graph]
    isa: Isa
    tuning: Tuning
    target: Target
    build: Build
    folder: Path
    progress: Progress

    def run(self) -> Tuned:
        start = time.monotonic()
        store = _Store(self.tuning.folder, self.isa.name)
        plans = [self._steps(graph) for graph in self.graphs]
        options = {spec: spec.alternatives(self.isa)[:MOST_ALTERNATIVES] for steps in plans for spec in steps}
        findings = {spec: store.read(spec) for spec, others in options.items() if others}
        measured = 0
        with ExitStack() as stack:
            chosen = self._load(stack, {}, "chosen")
            # What a bundle takes to build and to measure; another like it is built for the winners.
            step = time.monotonic() - start
            while waiting := {spec: found for spec, found in findings.items() if found.tried < len(options[spec])}:
                begin = time.monotonic()
                if begin - start + 2 * step > self.tuning.seconds:
                    break
                self.progress("tune", int(begin - start), int(self.tuning.seconds))
                choices = {spec: options[spec][found.tried] for spec, found in waiting.items()}
                with ExitStack() as inner:
                    ratios = self._compare(chosen, self._load(inner, choices, f"other{measured}"), plans)
                for spec, found in waiting.items():
                    findings[spec] = found.after(found.tried, ratios[spec])
                    store.write(spec, findings[spec])
                measured += len(waiting)
                step = max(step, time.monotonic() - begin)
            best = {spec: options[spec][found.best] for spec, found in findings.items() if found.best is not None}
            ratio = self._whole(chosen, self._load(stack, best, "best")) if best else None
        kept = best if ratio is not None and ratio.low > 1 else {}
        return Tuned(self.isa.name, kept, len(findings), measured, ratio)

    def _steps(self, graph: Graph) -> list[KernelSpec]:
        """The kernels of one plan, in the order of their steps."""
        plan, kernels = plan_graph(graph, self.isa, WeightStore(), "tune")
        return [kernels[step.symbol] for step in plan.steps]

    def _load(self, stack: ExitStack, choices: Choices, name: str) -> Bundle:
        self.build(self.target, self.folder / name, choices={self.isa.name: choices})
        return stack.enter_context(load(self.folder / name, threads=1, level=self.isa.name))

    def _compare(self, chosen: Bundle, other: Bundle, plans: Sequence[Sequence[KernelSpec]]) -> dict[KernelSpec, Ratio]:
        """How many times faster every kernel is in the other bundle."""
        sums: dict[KernelSpec, np.ndarray] = {}
        for steps, signature in zip(plans, chosen.manifest.signatures, strict=True):
            feeds = random_inputs(signature)
            for row in range(ROUNDS):
                pair = (chosen, other) if row % 2 == 0 else (other, chosen)
                for bundle in pair:
                    # The first run finds the caches full of the other's weights.
                    bundle.profile(feeds)
                    for spec, time_of in zip(steps, bundle.profile(feeds), strict=True):
                        table = sums.setdefault(spec, np.zeros((2, ROUNDS)))
                        table[int(bundle is other), row] += max(1, time_of.nanoseconds)
        return {spec: pair_ratio(table[0].tolist(), table[1].tolist()) for spec, table in sums.items()}

    def _whole(self, chosen: Bundle, best: Bundle) -> Ratio:
        """How many times faster all plans together are."""
        columns: list[Mapping[str, Sequence[float]]] = []
        for signature in chosen.manifest.signatures:
            feeds = random_inputs(signature)
            calls = {name: bundle.bind(feeds).run for name, bundle in (("chosen", chosen), ("best", best))}
            columns.append(interleave(calls, TOTAL_ROUNDS, time.process_time_ns))
        sums = {name: np.sum([column[name] for column in columns], axis=0) for name in ("chosen", "best")}
        return pair_ratio(sums["chosen"].tolist(), sums["best"].tolist())


@dataclass(frozen=True)
class _Store:
    """Findings by everything that a kernel's speed depends on: its specification, the CPU, and what generates it."""

    folder: Path | None
    level: str

    def read(self, spec: KernelSpec) -> Finding:
        """What is known of a kernel; nothing when the file is not there, or damaged."""
        if self.folder is not None:
            with suppress(OSError, ValueError, TypeError):
                return Finding(**json.loads(self._path(self.folder, spec).read_text(encoding="utf-8")))
        return Finding()

    def write(self, spec: KernelSpec, finding: Finding) -> None:
        """Keep it. A folder that cannot be written is no reason to fail."""
        if self.folder is None:
            return
        path = self._path(self.folder, spec)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(vars(finding)), encoding="utf-8")
            draft.rename(path)

    def _path(self, folder: Path, spec: KernelSpec) -> Path:
        key: Json = [digest_compiler(), host_cpu(), self.level, f"{type(spec).__module__} {spec!r}"]
        return folder / "kernels" / f"{digest_json(key)}.json"
