"""Compiles frozen graphs into bundles of one prefix, each distinct kernel once a session, and runs them in batches."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from kernels.harness import QEMU_CPUS, imitating_pool, is_imitated, pool
from octavo.backends.bundle.link import Toolchain, find_toolchain
from octavo.backends.bundle.program import LevelProgram, PlanProgram, Program, Signature, TensorSpec
from octavo.backends.bundle.sequencer import public_header
from octavo.backends.bundle.weights import WeightStore
from octavo.backends.bundle.writer import BundleContents, write_bundle
from octavo.backends.compiler import WEIGHT_SLACK
from octavo.backends.plan.planner import plan_graph
from octavo.backends.targets import ARM_INT8, X86_INT8
from octavo.backends.tvm.isa import get_isa
from octavo.backends.tvm.kernels.base import KernelSpec
from octavo.ir import Graph, Value
from octavo.ir.target import IsaLevel, Target
from octavo.ir.types import DType

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

PREFIX = "e2e"
HERE = Path(__file__).parent
CHUNK = 8
"""Kernels of one object."""

TARGETS: Mapping[str, Target] = {level.name: target for target in (X86_INT8, ARM_INT8) for level in target.levels}
LEVELS: Mapping[str, IsaLevel] = {level.name: level for target in (X86_INT8, ARM_INT8) for level in target.levels}
X86_LEVELS = tuple(level.name for level in X86_INT8.levels)
ARM_LEVELS = tuple(level.name for level in ARM_INT8.levels)


@dataclass(frozen=True)
class Built:
    """A bundle on disk and the graph that says what it must answer."""

    graph: Graph
    folder: Path
    levels: tuple[str, ...]


# Compiling ---------------------------------------------------------------------------------------------------------


class Kernels:
    """Objects of kernels, by symbol: a symbol names specification and level, so equal ones are compiled once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._objects: dict[str, Path] = {}

    def objects(self, kernels: Mapping[str, KernelSpec], level: str) -> list[Path]:
        """Objects that define all of the kernels (and more)."""
        compilers = imitating_pool() if is_imitated(level) else pool()
        missing = [(symbol, spec) for symbol, spec in kernels.items() if symbol not in self._objects]
        for chunk in _chunks(missing):
            path = self._folder / f"{chunk[0][0]}.o"
            path.write_bytes(compilers.compile(chunk, level))
            self._objects.update(dict.fromkeys((symbol for symbol, _ in chunk), path))
        return list(dict.fromkeys(self._objects[symbol] for symbol in kernels))


def _chunks(items: Sequence[tuple[str, KernelSpec]]) -> Iterator[list[tuple[str, KernelSpec]]]:
    for start in range(0, len(items), CHUNK):
        yield list(items[start : start + CHUNK])


def build_all(
    graphs: Sequence[Graph], levels: Sequence[str], folder: Path, kernels: Kernels | None = None
) -> list[Built]:
    """A bundle in ``folder`` for each graph, with some levels of one architecture; all kernels are compiled first."""
    folder.mkdir(parents=True, exist_ok=True)
    kernels = kernels or Kernels(folder)
    planned = [plan(graph, levels) for graph in graphs]
    for level in levels:
        kernels.objects({symbol: spec for each in planned for symbol, spec in each.kernels[level].items()}, level)
    return [
        each.write(graph, folder / f"{number}.octavo", kernels)
        for number, (each, graph) in enumerate(zip(planned, graphs, strict=True))
    ]


@dataclass(frozen=True)
class Planned:
    """The program of a graph, its constants, and the kernels of each level."""

    program: Program
    weights: WeightStore
    kernels: Mapping[str, Mapping[str, KernelSpec]]

    def write(self, graph: Graph, folder: Path, kernels: Kernels) -> Built:
        """Compile what is missing, link, and write the bundle."""
        objects = [path for level, called in self.kernels.items() for path in kernels.objects(called, level)]
        contents = BundleContents(
            name=graph.name,
            target=TARGETS[next(iter(self.kernels))].name,
            program=self.program,
            weights=self.weights,
            objects=tuple(objects),
        )
        write_bundle(folder, contents, overwrite=True)
        return Built(graph, folder, tuple(self.kernels))


def plan(graph: Graph, levels: Sequence[str]) -> Planned:
    """The plan of a frozen graph on levels of one architecture."""
    weights = WeightStore(WEIGHT_SLACK)
    plans = {level: plan_graph(graph, get_isa(level), weights, PREFIX) for level in levels}
    divided = {level: _divided(program) for level, (program, _) in plans.items()}
    programs = tuple(LevelProgram(level, LEVELS[level].features, (divided[level],)) for level in reversed(levels))
    program = Program(PREFIX, TARGETS[levels[0]].architecture, (_signature(graph),), programs)
    return Planned(program, weights, {level: called for level, (_, called) in plans.items()})


def _divided(program: PlanProgram) -> PlanProgram:
    """The same with work for every thread, though it be little: otherwise one would do all of a small network."""
    return replace(program, steps=tuple(replace(step, grain=1) for step in program.steps))


def _signature(graph: Graph) -> Signature:
    outputs = (_tensor(name, value) for name, value in zip(graph.output_names, graph.outputs, strict=True))
    return Signature(tuple(_tensor(value.name, value) for value in graph.inputs), tuple(outputs))


def _tensor(name: str, value: Value) -> TensorSpec:
    dtype = "bool" if value.type.dtype is DType.BOOL else value.type.dtype.numpy.name
    return TensorSpec(name, dtype, value.type.static_shape, alignment=1)


# Running -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """One run of a bundle on one level."""

    built: Built
    level: str
    feeds: Feeds


@dataclass(frozen=True)
class Answer:
    """Outputs by name, or what went wrong."""

    trouble: str
    outputs: Mapping[str, Array]


def run_jobs(jobs: Sequence[Job], level: str) -> list[Answer]:
    """Run jobs of one level in one process: native, with emulated AMX, imitated by AVX2, or under QEMU.

    A crash ends the process: the job it happened in says so, and those after it run in another.
    """
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory(prefix="octavo-e2e-run-") as name:
        folder = Path(name)
        while len(answers) < len(jobs):
            answers += _run_some(jobs[len(answers) :], level, folder)
    return answers


def _run_some(jobs: Sequence[Job], level: str, folder: Path) -> list[Answer]:
    lines, results = [], []
    for number, job in enumerate(jobs):
        sources = [folder / f"{number}.in{i}" for i in range(len(job.built.graph.inputs))]
        targets = [folder / f"{number}.out{i}" for i in range(len(job.built.graph.outputs))]
        for value, path in zip(job.built.graph.inputs, sources, strict=True):
            path.write_bytes(np.ascontiguousarray(job.feeds[value.name]).tobytes())
        bundle = (job.built.folder / f"lib{PREFIX}.so", job.built.folder / "weights.bin")
        unchecked = int(level == "amx" or is_imitated(level))
        lines.append(" ".join(map(str, (*bundle, level, unchecked, *sources, *targets))))
        results.append(targets)
    (folder / "jobs").write_text("\n".join(lines) + "\n")
    done = _execute(level, folder / "jobs")
    troubles = [line.partition(" ")[2] for line in done.stdout.splitlines()]
    answers = [_answer(job, *each) for job, each in zip(jobs, zip(troubles, results, strict=False), strict=False)]
    if done.returncode:
        crash = f"the runner ended with status {done.returncode}: {done.stderr.splitlines()[-3:]}"
        answers.append(Answer(crash, {}))
    return answers


def _answer(job: Job, trouble: str, targets: Sequence[Path]) -> Answer:
    if trouble != "ok":
        return Answer(trouble, {})
    outputs: dict[str, Array] = {}
    for name, value, path in zip(job.built.graph.output_names, job.built.graph.outputs, targets, strict=True):
        outputs[name] = np.frombuffer(path.read_bytes(), value.type.dtype.numpy).reshape(value.type.static_shape)
    return Answer("", outputs)


def _execute(level: str, jobs: Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [runner(level), jobs]
    environment = dict(os.environ)
    if level in QEMU_CPUS:
        sysroot = os.environ.get("OCTAVO_ARM_SYSROOT", "/usr/aarch64-linux-gnu")
        command = ["qemu-aarch64", "-L", sysroot, *command]
        environment["QEMU_CPU"] = QEMU_CPUS[level]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@functools.cache
def runner(level: str) -> Path:
    """The program that runs bundles of a level."""
    toolchain = find_toolchain(TARGETS[level].architecture)
    return _compile_runner(toolchain, emulated=level == "amx")


@functools.cache
def _compile_runner(toolchain: Toolchain, *, emulated: bool) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="octavo-e2e-runner-"))
    (folder / f"{PREFIX}.h").write_text(public_header(PREFIX))
    sources = [HERE / "runner.c", *([HERE.parent / "support" / "amx_emulator.c"] if emulated else [])]
    flags = ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror", f"-I{folder}", "-pthread"]
    toolchain.run(*flags, *(["-DEMULATE_AMX"] if emulated else []), *sources, "-o", folder / "runner", "-ldl")
    return folder / "runner"
