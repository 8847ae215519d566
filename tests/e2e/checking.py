"""Compares what bundles answer with what the interpreter says, byte for byte, and finds where they part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import octavo
from e2e.bundles import Array, Built, Job, Kernels, build_all, run_jobs
from e2e.samples import Sample
from kernels.harness import runnable_levels
from octavo.ir import run_graph
from octavo.ir.ops.constant import Constant
from support.missing import MissingError

REQUIRED = "OCTAVO_REQUIRE_LEVELS"


def differences(expected: Mapping[str, Array], found: Mapping[str, Array]) -> list[str]:
    """One line for each output whose bytes differ."""
    lines = []
    for name, want in expected.items():
        have = found[name]
        assert have.dtype == want.dtype
        assert have.shape == want.shape
        if have.tobytes() != want.tobytes():
            wrong = int(np.count_nonzero(have != want))
            lines.append(f"{name}: {wrong} of {want.size} elements differ")
    return lines


def check_samples(
    samples: Sequence[Sample], level: str, folder: Path, kernels: Kernels | None = None, *, blame: bool = True
) -> list[str]:
    """Compile, run and compare every sample on a level; one line for each that fails, and where it went wrong."""
    built = build_all([sample.graph for sample in samples], [level], folder, kernels)
    answers = run_jobs([Job(each, level, sample.feeds) for each, sample in zip(built, samples, strict=True)], level)
    failures: list[str] = []
    for sample, each, answer in zip(samples, built, answers, strict=True):
        expected = run_graph(sample.graph, sample.feeds)
        wrong = [answer.trouble] if answer.trouble else differences(expected, answer.outputs)
        if wrong:
            failures.append(
                f"seed {sample.seed} on {level}: {'; '.join(wrong)}; {_blame(sample, level, folder) if blame else ''}"
            )
        elif level in native_levels():
            failures += [f"seed {sample.seed} from Python: {line}" for line in _from_python(each, sample, expected)]
    return failures


def native_levels() -> list[str]:
    """The levels that this machine runs by itself."""
    flags = set(Path("/proc/cpuinfo").read_text().split())
    needs = {"avx2": "avx2", "avxvnni": "avx_vnni", "avx512vnni": "avx512_vnni", "amx": "amx_int8"}
    return [name for name, flag in needs.items() if flag in flags]


def x86_levels() -> list[str]:
    """The x86 levels that run here, natively or imitated. Raises :class:`MissingError` if none does."""
    found = runnable_levels()
    if not found:
        raise MissingError("this machine runs no x86 level", REQUIRED)
    return found


def need(level: str) -> None:
    """Raises :class:`MissingError` where an x86 level does not run, not even imitated."""
    if level not in runnable_levels():
        raise MissingError(f"this machine does not run {level}", REQUIRED)


def need_native(level: str) -> None:
    """Raises :class:`MissingError` where the machine lacks instructions of an x86 level."""
    if level not in native_levels():
        raise MissingError(f"this machine does not have the instructions of {level}", REQUIRED)


def _from_python(built: Built, sample: Sample, expected: Mapping[str, Array]) -> list[str]:
    with octavo.load(built.folder, level=built.levels[0], threads=2) as bundle:
        return differences(expected, bundle.run(sample.feeds))


# Where a graph goes wrong ------------------------------------------------------------------------------------------


def _blame(sample: Sample, level: str, folder: Path) -> str:
    """The first value that differs when every value is an output (which keeps tables out of epilogues)."""
    graph = sample.graph.clone()
    made = [v for node in graph.nodes if not isinstance(node.op, Constant) for v in node.outputs]
    graph.set_outputs(made, [v.name for v in made])
    (built,) = build_all([graph], [level], folder / f"blame{sample.seed}")
    (answer,) = run_jobs([Job(built, level, sample.feeds)], level)
    if answer.trouble:
        return answer.trouble
    wrong = differences(run_graph(graph, sample.feeds), answer.outputs)
    if not wrong:
        return "nothing differs once every value is an output"
    (value,) = (v for v in made if v.name == wrong[0].partition(":")[0])
    return f"first in {value.producer!r} -> {value.type}"
