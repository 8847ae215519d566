"""Train a network as a configuration says."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...ir.errors import OctavoError, UsageError
from ..console import ignore, print_json, print_text, progress_bar, remark
from ..options import JsonFlag, LoadOption, load_files

_SECONDS_TO_SAY_WHY = 5.0

if TYPE_CHECKING:
    from ...backends.training import TrainingResult, TrainingRun


def command(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="A .toml file; docs/training.md lists its keys.")],
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="Draw loss and validation by epoch here.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew instead of going on.")] = False,
    load: LoadOption = None,
    json: JsonFlag = False,
) -> None:
    """Train a network as a file says; the same command goes on with an interrupted run."""
    from ...backends.training import TrainingRun, is_first_process, write_curves
    from ...backends.training_config import read_config

    try:
        if plot and not plot.absolute().parent.is_dir():
            raise UsageError("there is no folder for the plot", where=str(plot))
        if plot and plot.is_dir():
            raise UsageError("a folder stands where the plot would be", where=str(plot))
        load_files(load)
        read = read_config(config)
        with progress_bar(is_first_process()) as progress:
            run = TrainingRun(read, remark if is_first_process() else ignore, progress)
            result = _train(run, restart)
    except OctavoError as error:
        if is_first_process():
            raise
        # Every process finds the same mistake. The first one says so, unless it is ended because others are gone.
        time.sleep(_SECONDS_TO_SAY_WHY)
        raise typer.Exit(error.exit_code) from error
    if not is_first_process():
        return
    if plot:
        write_curves(read.folder, plot)
    if json:
        print_json(_describe(config, result))
    else:
        _print(config, result)


def _train(run: TrainingRun, restart: bool) -> TrainingResult:
    try:
        return run.run(restart=restart)
    except KeyboardInterrupt:
        run.report("the same command goes on after the last whole epoch")
        raise


def _describe(config: Path, result: TrainingResult) -> dict[str, Any]:
    """The result as JSON; epochs count from 1, as they do in what is printed."""
    return {
        "config": str(config),
        "graph": str(result.graph),
        "bundle": None if result.bundle is None else str(result.bundle),
        "measure": result.measure,
        "before": result.before,
        "best": result.best,
        "best_epoch": result.best_epoch + 1,
        "epochs": len(result.history),
        "history": [{**entry, "epoch": entry["epoch"] + 1} for entry in result.history],
    }


def _print(config: Path, result: TrainingResult) -> None:
    print_text(f"{config} -> {result.graph}", style="bold")
    epochs = f"epoch {result.best_epoch + 1} of {len(result.history)}"
    print_text(f"  validation {result.before:.4f} before, {result.best:.4f} in {epochs} ({result.measure})")
    if result.bundle is not None:
        print_text(f"  {result.bundle}")
