"""Train, measure, then write the document.

python -m compression run baseline pruned50 --seeds 0 1 2   train, and what they need before
python -m compression run --smoke                           every stage on few images, apart from the results
python -m compression evaluate                              measure on the test images what was not measured yet
python -m compression evaluate --again                      measure all stored networks once more
python -m compression latency                               time the bundles of all frozen networks of the first seed
python -m compression report                                render docs/compression.md from what was measured
"""

from __future__ import annotations

import argparse
import sys

import octavo

from . import report
from .experiments import STAGES
from .records import Record, Store
from .runner import Runner

SMOKE = 256
BATCHES, ROUNDS = (1, 32), 200


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says."""
    given = _parser().parse_args(arguments)
    unknown = sorted(set(given.stages) - set(STAGES))
    if unknown:
        raise SystemExit(f"no stage is named {', '.join(unknown)}; there are {', '.join(STAGES)}")
    store = Store.within(Store().work / "smoke") if given.smoke else Store()
    runner = Runner(store, SMOKE if given.smoke else None, report=lambda line: print(f"  {line}", flush=True))
    try:
        if given.action == "report":
            report.write(runner, store.work if given.smoke else report.DOCS)
            return
        if given.action == "latency":
            runner.time(given.seeds[0], BATCHES, ROUNDS)
            return
        for name in given.stages or STAGES:
            for seed in given.seeds:
                if given.action == "run":
                    _show(runner.run(name, seed), "validation")
                elif store.read(name, seed) or given.stages:
                    _show(runner.evaluate(name, seed, again=given.again), "test")
    except octavo.OctavoError as error:
        sys.exit(f"error: {error}")


def _show(record: Record, images: str) -> None:
    found, cost = record[images], record["cost"]
    figures = f"{100 * found['accuracy']:.2f} % of {found['images']} {images} images right ({found['by']})"
    print(f"{record['stage']} seed {record['seed']}: {figures}, {cost['macs']:,} MACs", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="compression", description="Train small networks and compress them.")
    parser.add_argument("action", choices=("run", "evaluate", "latency", "report"))
    parser.add_argument("stages", nargs="*", help=f"{', '.join(STAGES)}; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--smoke", action="store_true", help=f"a trial: {SMOKE} images, two epochs")
    parser.add_argument("--again", action="store_true", help="evaluate: also what was measured before")
    return parser


if __name__ == "__main__":
    main()
