"""Measure, then write the documents.

python -m benchmarks                          everything
python -m benchmarks accuracy speed           some parts
python -m benchmarks speed --models resnet18 --threads 1
python -m benchmarks report                   only render what was measured before
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from typing import Any

from support.missing import MissingError

from . import accuracy, arm, arm_peer, calibrators, compiling, cycles, profiles, report, results, sparsity, speed
from .subjects import SUBJECTS

Measure = Callable[[str, argparse.Namespace], Any]

PARTS: dict[str, tuple[Sequence[str], Measure]] = {
    "accuracy": (tuple(SUBJECTS), lambda name, _: accuracy.measure(SUBJECTS[name])),
    "calibrators": (calibrators.MODELS, lambda name, _: calibrators.measure(SUBJECTS[name])),
    "speed": (
        tuple(speed.MODELS),
        lambda name, given: speed.measure(name, rounds=given.rounds, threads=given.threads, levels=given.levels),
    ),
    "profile": (profiles.MODELS, lambda name, _: profiles.measure(name)),
    "arm": (arm.MODELS, lambda name, _: arm.measure(name)),
    "cycles": (tuple(cycles.CPUS), lambda name, _: cycles.measure(name)),
    "sparsity": (sparsity.LEVELS, lambda name, given: sparsity.measure(name, given.rounds)),
    "sparse_networks": (sparsity.NETWORKS, lambda name, given: sparsity.measure_network(name, given.rounds)),
    "compiling": (("mobilenet_v2", *compiling.CHAINS), lambda name, _: compiling.measure(name)),
    # Last, for it fetches what it runs: where it cannot, everything else has been measured.
    "arm_peer": (arm.MODELS, lambda name, _: arm_peer.measure(name)),
}


def main() -> None:
    given = _parser().parse_args()
    unnamed = sorted(set(given.parts) - set(PARTS) - {"report"})
    if unnamed:
        raise SystemExit(f"no part is named {', '.join(unnamed)}; there are {', '.join(PARTS)} and report")
    parts = [part for part in given.parts or PARTS if part != "report"]
    known = {name for part in parts for name in PARTS[part][0]}
    unknown = sorted(set(given.models or ()) - known)
    if unknown:
        listed = ", ".join(sorted(known))
        raise SystemExit(f"{', '.join(parts)}: no model is named {', '.join(unknown)}; there are {listed}")
    for part in parts:
        models, measure = PARTS[part]
        for name in models:
            if given.models and name not in given.models:
                continue
            start = time.perf_counter()
            try:
                figures = measure(name, given)
            except MissingError as missing:
                raise SystemExit(f"{part} of {name} cannot be measured here: {missing}") from None
            results.write(part, name, figures)
            print(f"{part} {name} ({time.perf_counter() - start:.0f} s)\n  {_brief(figures)}", flush=True)
    report.write()


def _brief(figures: Any) -> Any:
    """Figures without those of single kernels, which are for the documents."""
    if not isinstance(figures, dict):
        return figures
    return {name: _brief(value) for name, value in figures.items() if name != "kernels"}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure, then write the documents.")
    parser.add_argument("parts", nargs="*", help=f"{', '.join(PARTS)} or report; all by default")
    parser.add_argument("--models", nargs="+", help="only these models of the zoo")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2], help="numbers of threads for speed")
    parser.add_argument("--levels", nargs="+", help="only these instruction set levels for speed")
    parser.add_argument("--rounds", type=int, default=40, help="how often each runner has its turn")
    return parser


if __name__ == "__main__":
    main()
