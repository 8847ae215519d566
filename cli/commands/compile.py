"""Compile models into bundles."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...ir.errors import OctavoError, UsageError
from ..console import format_bytes, format_tuned, ignore, print_error, print_json, print_text, progress_bar, remark
from ..options import (
    ActRangeTexts,
    CalibOption,
    ConstantTexts,
    JsonFlag,
    LimitOption,
    LoadOption,
    NonFiniteFlag,
    PreprocessOption,
    RangesOption,
    ShapeTexts,
    VerboseFlag,
    load_files,
    read_act_ranges,
    read_constants,
)

if TYPE_CHECKING:
    import numpy as np

    from ...backends.cache import Cache
    from ...backends.job import CompileResult, Job


def command(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help=".onnx, .pt2 or .octavo files, or package.module:factory.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="The bundle's folder; for several models, their parent."),
    ] = None,
    target: Annotated[str, typer.Option("--target", help="x86-int8 or arm-int8.")] = "x86-int8",
    mcpu: Annotated[
        str | None, typer.Option("--mcpu", metavar="CPU", help="Only the best level of this CPU; native: this machine.")
    ] = None,
    features: Annotated[
        str | None, typer.Option("--features", metavar="LEVELS", help="Only these levels, e.g. avx2,amx.")
    ] = None,
    calib: CalibOption = None,
    limit: LimitOption = None,
    preprocess: PreprocessOption = None,
    image_input: Annotated[
        bool,
        typer.Option(
            "--image-input", help="Take images uint8[N,H,W,C]; the bundle normalizes them as --preprocess says."
        ),
    ] = False,
    shape: ShapeTexts = None,
    ranges: RangesOption = None,
    act_range: ActRangeTexts = None,
    save_ranges: Annotated[
        Path | None, typer.Option("--save-ranges", metavar="FILE", help="Write the ranges that reproduce the bundle.")
    ] = None,
    pipeline: Annotated[str, typer.Option("--pipeline", metavar="PASSES", help="The passes to run.")] = "int8",
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="Names of the classes, one on each line.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The bundle's name; its symbols start with it.")] = None,
    compress: Annotated[
        bool, typer.Option("--compress", help="Store the weights entropy coded; loading decodes them.")
    ] = False,
    tune: Annotated[
        str | None,
        typer.Option("--tune", metavar="TIME", help="Measure this long, e.g. 30s, to find faster kernels here."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle of the same name.")] = False,
    jobs: Annotated[
        int | None, typer.Option("--jobs", "-j", min=1, metavar="N", help="Processes that generate kernels.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option("--cache", metavar="DIR", help="Where bundles are kept; default ~/.cache/octavo.")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Neither read nor write the cache.")] = False,
    load: LoadOption = None,
    constant: ConstantTexts = None,
    allow_non_finite: NonFiniteFlag = False,
    verbose: VerboseFlag = False,
    json: JsonFlag = False,
) -> None:
    """Compile models into bundles that run without Python, torch or TVM."""
    from ...backends.cache import Cache, default_folder
    from ...backends.freeze import fold_normalization, parse_preprocess, read_ranges
    from ...backends.job import Job, read_labels, read_seconds
    from ...backends.models import Model
    from ...backends.shapes import parse_shapes
    from ...backends.targets import resolve_target

    load_files(load)
    if len(models) > 1 and (name or save_ranges):
        raise UsageError(f"--{'name' if name else 'save-ranges'} is for one model, and {len(models)} are given")
    if save_ranges and not save_ranges.absolute().parent.is_dir():
        raise UsageError("there is no folder for the ranges", where=str(save_ranges))
    selected = resolve_target(target, mcpu, features.split(",") if features is not None else None)
    steps = parse_preprocess(preprocess)
    if image_input:
        pipeline, steps = fold_normalization(pipeline, steps)
    job = Job(
        model=Model(None),
        output=Path(),
        target=selected,
        plans=parse_shapes(shape or ()),
        pipeline=pipeline,
        calibration=calib,
        preprocess=steps,
        limit=limit,
        ranges={**read_ranges(ranges), **read_act_ranges(act_range)},
        name=name,
        labels=read_labels(labels),
        compress=compress,
        tune=read_seconds(tune) if tune is not None else None,
    )
    run = _Run(
        job=job,
        cache=None if no_cache else Cache(cache or default_folder()),
        overwrite=overwrite,
        jobs=jobs or len(os.sched_getaffinity(0)),
        constants=read_constants(constant),
        allow_non_finite=allow_non_finite,
        verbose=verbose,
        json=json,
    )
    if len(models) == 1:
        described = run.compile(models[0], output or Path(f"{_stem(models[0])}.bundle"), save_ranges)
        if json:
            print_json(described)
    else:
        run.compile_all(models, output or Path())


@dataclasses.dataclass(frozen=True)
class _Run:
    """What all models of one run share."""

    job: Job
    cache: Cache | None
    overwrite: bool
    jobs: int
    constants: Mapping[str, np.ndarray]
    allow_non_finite: bool
    verbose: bool
    json: bool

    def compile_all(self, models: Sequence[str], parent: Path) -> None:
        """Compile each model; a mistake in one does not stop the others, but decides the exit code."""
        names = [_stem(model) for model in models]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            raise UsageError(f"two models would become {parent / twice}.bundle", hint="compile them in separate runs")
        results: list[dict[str, Any]] = []
        failures: list[OctavoError] = []
        for model, stem in zip(models, names, strict=True):
            try:
                results.append(self.compile(model, parent / f"{stem}.bundle", None))
            except OctavoError as error:
                failures.append(error)
                details = {"what": error.what, "where": error.where, "expected": error.expected, "hint": error.hint}
                results.append({"model": model, "error": {**details, "exit_code": error.exit_code}})
                if not self.json:
                    print_error(error)
        if self.json:
            print_json({"bundles": results})
        if failures:
            raise typer.Exit(failures[0].exit_code)

    def compile(self, text: str, output: Path, save_ranges: Path | None) -> dict[str, Any]:
        """Compile one model, and say so."""
        from ...backends.freeze import write_ranges
        from ...backends.job import run_job
        from ...backends.models import find_model

        start = time.perf_counter()
        model = find_model(text, constants=self.constants, allow_non_finite=self.allow_non_finite)
        job = dataclasses.replace(self.job, model=model, output=output)
        report = remark if self.verbose else ignore
        with progress_bar() as progress:
            result = run_job(job, self.cache, self.overwrite, self.jobs, (), report, progress)
        if save_ranges:
            write_ranges(result.ranges, save_ranges)
        described = _describe(text, result, time.perf_counter() - start)
        if not self.json:
            _print(described)
        return described


def _stem(model: str) -> str:
    """The name of a model's bundle: the file's, or the factory's."""
    path = Path(model)
    return path.stem if path.suffix in (".onnx", ".pt2", ".octavo") else model.rpartition(":")[2] or path.stem


def _describe(model: str, result: CompileResult, seconds: float) -> dict[str, Any]:
    manifest = result.manifest
    decisions = [d for d in manifest.decisions if isinstance(d, dict)] if isinstance(manifest.decisions, list) else []
    integer = sum(d.get("precision") == "quantized" for d in decisions)
    return {
        "model": model,
        "bundle": str(result.path),
        "name": manifest.name,
        "target": manifest.target,
        "levels": [level.name for level in manifest.levels],
        "plans": len(manifest.signatures),
        "integer_nodes": integer,
        "float_nodes": len(decisions) - integer,
        "exactness": manifest.exactness,
        "tuned": manifest.made.get("tuned"),
        "files": {name: record.bytes for name, record in manifest.files.items()},
        "seconds": round(seconds, 3),
        "cached": result.cached,
    }


def _print(described: dict[str, Any]) -> None:
    total = described["integer_nodes"] + described["float_nodes"]
    size = sum(described["files"].values())
    print_text(f"{described['model']} -> {described['bundle']}", style="bold")
    plans = f", {described['plans']} input shapes" if described["plans"] > 1 else ""
    print_text(f"  {described['target']} ({', '.join(described['levels'])}){plans}")
    took = "from the cache" if described["cached"] else f"in {described['seconds']:.1f} s"
    print_text(f"  {described['integer_nodes']} of {total} nodes integer, {described['exactness']}")
    if described["tuned"]:
        print_text(f"  tuned: {format_tuned(described['tuned'])}")
    print_text(f"  {format_bytes(size)} {took}")
