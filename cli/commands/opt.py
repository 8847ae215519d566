"""Run passes on a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from ..console import print_json, progress_bar, remark
from ..options import (
    ActRangeTexts,
    CalibOption,
    ConstantTexts,
    JsonFlag,
    LimitOption,
    LoadOption,
    ModelText,
    NonFiniteFlag,
    PreprocessOption,
    RangesOption,
    ShapeTexts,
    load_files,
    read_act_ranges,
    read_constants,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...ir.graph import Graph
    from ...passes.observers import PipelineObserver, Time
    from ...passes.pipeline import Pipeline


def command(
    model: ModelText,
    pipeline: Annotated[
        str, typer.Option("--passes", "-p", metavar="PIPELINE", help="Passes, e.g. 'simplify,fuse{padding=false}'.")
    ] = "prepare",
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write the graph here (.octavo), not to stdout."),
    ] = None,
    print_after_all: Annotated[
        bool, typer.Option("--print-after-all", help="Print the graph after every pass.")
    ] = False,
    print_after: Annotated[
        list[str] | None,
        typer.Option("--print-after", metavar="PASS", help="Print the graph after this pass; repeatable."),
    ] = None,
    time_passes: Annotated[bool, typer.Option("--time-passes", help="Say how long each pass took.")] = False,
    check_numerics: Annotated[
        str | None,
        typer.Option("--check-numerics", metavar="DATA", help="Compare the outputs around every pass on this data."),
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why rewrite patterns left nodes alone.")] = False,
    calib: CalibOption = None,
    limit: LimitOption = None,
    preprocess: PreprocessOption = None,
    ranges: RangesOption = None,
    act_range: ActRangeTexts = None,
    save_ranges: Annotated[
        Path | None, typer.Option("--save-ranges", metavar="FILE", help="Write the ranges that calibration found.")
    ] = None,
    shape: ShapeTexts = None,
    load: LoadOption = None,
    constant: ConstantTexts = None,
    allow_non_finite: NonFiniteFlag = False,
    json: JsonFlag = False,
) -> None:
    """Run a pipeline of passes on a model and print or write the graph."""
    from ...backends.freeze import RangeKeeper, open_calibration, read_ranges, write_ranges
    from ...backends.models import find_model, write_graph
    from ...backends.shapes import parse_shapes
    from ...ir.text import print_graph
    from ...passes.base import PassContext
    from ...passes.observers import Time
    from ...passes.pipeline import Pipeline

    load_files(load)
    passes = Pipeline.parse(pipeline)
    _check_names(pipeline, passes, print_after or [])
    shapes = parse_shapes(shape or ())
    found = find_model(model, constants=read_constants(constant), allow_non_finite=allow_non_finite)
    graph = found.trace(shapes[0] if shapes else None)
    fixed = {**read_ranges(ranges), **read_act_ranges(act_range)}
    timer, keeper = Time(), RangeKeeper()
    observers = [
        timer,
        keeper,
        *_printers(print_after_all, print_after, sys.stderr if json else sys.stdout),
        *_numerics(graph, check_numerics, preprocess, limit, passes),
    ]
    with progress_bar() as progress:
        context = PassContext(
            calibration=open_calibration(graph, calib, preprocess, limit, passes),
            ranges=fixed,
            report=remark,
            progress=progress,
            explain=(lambda line: remark(str(line))) if explain else None,
        )
        passes.run(graph, context, observers)
    if save_ranges:
        write_ranges(keeper.ranges, save_ranges)
    if output:
        write_graph(graph, output)
    if json:
        where = str(output) if output else None
        print_json({"pipeline": str(passes), "output": where, "passes": _times(timer), "nodes": len(graph)})
        return
    if time_passes:
        remark(timer.table())
    if not output:
        print(print_graph(graph), end="")


def _times(timer: Time) -> list[dict[str, object]]:
    return [
        {"pass": name, "seconds": seconds, "changed": changed, "nodes": nodes}
        for name, seconds, changed, nodes in timer.rows
    ]


def _check_names(text: str, passes: object, names: Sequence[str]) -> None:
    from ...ir.errors import UsageError
    from ...passes.pipeline import Pipeline

    assert isinstance(passes, Pipeline)
    known = dict.fromkeys(p.name for p in passes.passes)
    for name in names:
        if name not in known:
            raise UsageError(f"{name} is not in the pipeline {text}", expected=f"one of {', '.join(known)}")


def _printers(every: bool, names: Sequence[str] | None, stream: TextIO) -> list[PipelineObserver]:
    from ...passes.observers import Print

    if not (every or names):
        return []
    chosen = frozenset({"*"} if every else names or ())
    return [Print(lambda text: print(text, end="", file=stream), after_passes=chosen)]


def _numerics(
    graph: Graph, data: str | None, preprocess: str | None, limit: int | None, passes: Pipeline
) -> list[PipelineObserver]:
    from ...backends.freeze import open_calibration
    from ...passes.observers import NumericsCheck

    batches = open_calibration(graph, data, preprocess, limit or 4, passes)
    return [] if batches is None else [NumericsCheck(list(batches), report=remark)]
