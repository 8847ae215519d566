"""A short measured search for kernels that are faster on this machine than those that the cost model chooses.

Kernels are measured in place, where their weights come from as far away as they will: a bundle with an alternative of
each of some kernels takes turns with the bundle of the chosen ones. An alternative wins whose ratio is above 1 for
certain. In the end the winners are measured together and once more, and the network as a whole has to be faster with
them for certain, or nothing changes.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from ..ir.graph import Graph
from ..ir.target import Target
from .bench.session import random_inputs
from .bench.timing import Ratio, interleave, pair_ratio, raised_priority
from .bundle.loader import Bundle, load
from .bundle.manifest import Json
from .bundle.weights import WeightStore
from .findings import Findings
from .plan.builder import Choices
from .plan.planner import plan_graph
from .targets import tunable_level
from .tvm.isa import Isa, get_isa
from .tvm.kernels.base import KernelSpec


class Build(Protocol):
    """Writes the bundle of a target into a folder, with some kernels replaced by level."""

    def __call__(
        self, target: Target, output: Path, *, made: Mapping[str, Json], choices: Mapping[str, Choices]
    ) -> object: ...


Progress = Callable[[str, int, int | None], None]

MOST_ALTERNATIVES = 12
"""Alternatives of a kernel that are measured."""

LEAST_TASKS = 8
"""Parts for threads that an alternative has at least, or else as many as what it replaces."""

AT_ONCE = 24
"""Kernels that are measured in one bundle: enough to amortize linking and loading it, few enough to stop in time."""

FIRST_ROUNDS, ROUNDS, FINAL_ROUNDS = 5, 25, 61
"""Runs to see what takes how long, turns of both bundles to compare kernels, and the network as a whole."""


@dataclass(frozen=True)
class Tuning:
    """How long to search, in seconds, and where findings are kept for other compilations."""

    seconds: float
    folder: Path | None = None


@dataclass(frozen=True)
class Tuned:
    """The kernels that replace others on one level, and how much faster the network became.

    ``kernels`` have ``alternatives``, of which ``measured`` were measured, now or earlier.
    """

    level: str
    choices: Choices
    kernels: int
    alternatives: int
    measured: int
    ratio: Ratio | None

    @property
    def complete(self) -> bool:
        """Whether there was time for all of the search."""
        return self.measured == self.alternatives

    def to_json(self) -> Json:
        """What a bundle says about how it was made."""
        return {
            "level": self.level,
            "kernels": self.kernels,
            "replaced": len(self.choices),
            "alternatives": self.alternatives,
            "measured": self.measured,
            "ratio": None if self.ratio is None else [round(value, 4) for value in self.ratio.as_list()],
        }


def alternatives_of(spec: KernelSpec, isa: Isa) -> tuple[KernelSpec, ...]:
    """What may replace a kernel, the likeliest first. One thread is measured, but several find as much to share."""
    least = min(LEAST_TASKS, spec.tasks(isa))
    return tuple(other for other in spec.alternatives(isa) if other.tasks(isa) >= least)[:MOST_ALTERNATIVES]


def tune(
    graphs: Sequence[Graph], target: Target, tuning: Tuning, build: Build, progress: Progress = lambda *_: None
) -> Tuned:
    """Search for ``tuning.seconds``, on one thread, on the best level of ``target`` that this machine has.

    Other levels keep the choices of the cost model: what a level does here says little about the CPUs that take it.

    Raises:
        TargetError: this machine runs no level of the target.
        UnsupportedError, ToolchainError: as of compiling.
    """
    level = tunable_level(target)
    alone = replace(target, levels=tuple(each for each in target.levels if each.name == level))
    with tempfile.TemporaryDirectory(prefix="octavo-tune-") as folder, ExitStack() as stack:
        trials = _Trials(graphs, get_isa(level), alone, build, Path(folder), stack)
        return _Search(trials, Findings(tuning.folder, level), tuning.seconds, progress).run()


class _Search:
    """Measures alternatives until time is up, first those of the kernels that take longest."""

    def __init__(self, trials: _Trials, findings: Findings, seconds: float, progress: Progress) -> None:
        options = {spec: alternatives_of(spec, trials.isa) for spec in trials.seconds_of}
        self.trials, self.findings, self.seconds, self.progress = trials, findings, seconds, progress
        self.options = {spec: others for spec, others in options.items() if others}
        self.found = {spec: findings.read(spec, len(others)) for spec, others in self.options.items()}

    def run(self) -> Tuned:
        """Search, and decide."""
        start, rounds = time.monotonic(), 0
        while waiting := self._waiting():
            passed = time.monotonic() - start
            # The bundle of the chosen kernels, all of which were generated, took longer than others will.
            decision = self.trials.final_seconds if rounds else 0.0
            if passed + self.trials.round_seconds + decision > self.seconds:
                break
            self.progress("tune", int(passed), math.ceil(self.seconds))
            self._measure(waiting[:AT_ONCE])
            rounds += 1
        best = {spec: self.options[spec][found.best] for spec, found in self.found.items() if found.best is not None}
        kept, ratio = self.trials.decide(best)
        return Tuned(
            level=self.trials.isa.name,
            choices=kept,
            kernels=len(self.options),
            alternatives=sum(map(len, self.options.values())),
            measured=sum(found.tried for found in self.found.values()),
            ratio=ratio,
        )

    def _waiting(self) -> list[KernelSpec]:
        """Kernels with alternatives that were not measured: the longer it takes, the earlier and the more of them."""

        def worth(spec: KernelSpec) -> float:
            return self.trials.seconds_of[spec] / (1 + self.found[spec].tried)

        waiting = [spec for spec, others in self.options.items() if self.found[spec].tried < len(others)]
        return sorted(waiting, key=worth, reverse=True)

    def _measure(self, specs: Sequence[KernelSpec]) -> None:
        """The next alternative of each."""
        ratios = self.trials.compare({spec: self.options[spec][self.found[spec].tried] for spec in specs}, ROUNDS)
        for spec in specs:
            self.found[spec] = self.found[spec].after(ratios[spec])
            self.findings.write(spec, self.found[spec])


class _Trials:
    """Bundles with some kernels replaced, beside the one of the chosen kernels."""

    def __init__(
        self, graphs: Sequence[Graph], isa: Isa, target: Target, build: Build, folder: Path, stack: ExitStack
    ) -> None:
        self.isa, self._target, self._build, self._folder = isa, target, build, folder
        self._count = 0
        self._building = 0.0
        self._plans = [self._steps(graph) for graph in graphs]
        self._chosen = self._load(stack, {})
        self._feeds = [random_inputs(signature) for signature in self._chosen.manifest.signatures]
        self.seconds_of = self._time()
        self._running = sum(self.seconds_of.values())

    @property
    def round_seconds(self) -> float:
        """What a bundle with other kernels takes to build and to compare."""
        return self._building + 4 * ROUNDS * self._running

    @property
    def final_seconds(self) -> float:
        """What the decision takes: two bundles at most."""
        return 2 * self._building + 4 * (ROUNDS + FINAL_ROUNDS) * self._running

    def compare(self, choices: Choices, rounds: int) -> dict[KernelSpec, Ratio]:
        """How many times faster every kernel is in a bundle with ``choices``."""
        sums: dict[KernelSpec, np.ndarray] = {}
        with ExitStack() as stack:
            other = self._load(stack, choices)
            stack.enter_context(raised_priority())
            for steps, feeds in zip(self._plans, self._feeds, strict=True):
                for row in range(rounds):
                    for bundle in (self._chosen, other) if row % 2 == 0 else (other, self._chosen):
                        # The first run finds the caches full of the other's weights.
                        bundle.profile(feeds)
                        for spec, step in zip(steps, bundle.profile(feeds), strict=True):
                            table = sums.setdefault(spec, np.zeros((2, rounds)))
                            table[int(bundle is other), row] += max(1, step.nanoseconds)
        return {spec: pair_ratio(table[0].tolist(), table[1].tolist()) for spec, table in sums.items()}

    def decide(self, choices: Choices) -> tuple[Choices, Ratio | None]:
        """Those of ``choices`` that are faster together, too, if they make the network faster; and how much.

        The ratio is None where there is nothing to compare. Code lies elsewhere in every bundle, and the best of many
        measurements was lucky: so the kernels are measured once more.
        """
        if choices:
            ratios = self.compare(choices, ROUNDS)
            choices = {spec: other for spec, other in choices.items() if ratios[spec].low > 1}
        if not choices:
            return {}, None
        ratio = self._whole(choices)
        return (choices if ratio.low > 1 else {}), ratio

    def _whole(self, choices: Choices) -> Ratio:
        """How many times faster all plans together are."""
        sums = np.zeros((2, FINAL_ROUNDS))
        with ExitStack() as stack:
            other = self._load(stack, choices)
            stack.enter_context(raised_priority())
            for feeds in self._feeds:
                bound = {"chosen": self._chosen.bind(feeds), "other": other.bind(feeds)}
                # Not the time of the process: a progress bar has a thread of its own.
                columns = interleave({name: b.run for name, b in bound.items()}, FINAL_ROUNDS, time.thread_time_ns)
                sums += [columns["chosen"], columns["other"]]
                for name, array in bound["chosen"].outputs.items():
                    assert array.tobytes() == bound["other"].outputs[name].tobytes(), "a kernel's alternative is wrong"
        return pair_ratio(sums[0].tolist(), sums[1].tolist())

    def _steps(self, graph: Graph) -> list[KernelSpec]:
        """The kernels of one plan, in the order of their steps."""
        plan, kernels = plan_graph(graph, self.isa, WeightStore(), "tune")
        return [kernels[step.symbol] for step in plan.steps]

    def _load(self, stack: ExitStack, choices: Choices) -> Bundle:
        """The bundle with these kernels replaced, until the stack closes."""
        start = time.monotonic()
        path = self._folder / str(self._count)
        self._count += 1
        self._build(self._target, path, made={}, choices={self.isa.name: choices})
        stack.callback(shutil.rmtree, path)
        bundle = stack.enter_context(load(path, threads=1, level=self.isa.name))
        self._building = time.monotonic() - start
        return bundle

    def _time(self) -> dict[KernelSpec, float]:
        """Seconds that all steps of each kernel take, at best."""
        seconds: dict[KernelSpec, float] = {}
        for steps, feeds in zip(self._plans, self._feeds, strict=True):
            runs = [[step.nanoseconds for step in self._chosen.profile(feeds)] for _ in range(FIRST_ROUNDS)]
            for spec, least in zip(steps, np.min(runs, axis=0).tolist(), strict=True):
                seconds[spec] = seconds.get(spec, 0.0) + least / 1e9
        return seconds
