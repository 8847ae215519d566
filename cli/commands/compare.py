"""Compare a float model with its compiled or frozen form."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sized
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...ir.errors import OctavoError, UsageError
from ..console import print_json, print_table, print_text, progress_bar
from ..options import (
    ConstantTexts,
    JsonFlag,
    LimitOption,
    LoadOption,
    ModelText,
    NonFiniteFlag,
    PreprocessOption,
    load_files,
    read_constants,
)

if TYPE_CHECKING:
    from ...backends.compare import Difference, Run, ValueDifference
    from ...backends.data import Batches
    from ...backends.models import Model
    from ...ir.graph import Graph

EXIT_DIFFERENT = 10


def command(
    model: ModelText,
    other: Annotated[str, typer.Argument(metavar="BUNDLE|MODEL", help="A bundle's folder, or a model, e.g. frozen.")],
    data: Annotated[
        str, typer.Option("--data", metavar="DATA", help="What to run on: an .npz or .npy file, a folder, a list.")
    ],
    limit: LimitOption = None,
    preprocess: PreprocessOption = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="The error of every value inside, from the interpreter.")
    ] = False,
    worst: Annotated[int | None, typer.Option("--worst", min=1, metavar="N", help="The N worst layers first.")] = None,
    min_sqnr: Annotated[
        float | None, typer.Option("--min-sqnr", metavar="DB", help="Exit with 10 when an output is below.")
    ] = None,
    max_flips: Annotated[
        float | None,
        typer.Option(
            "--max-flips", min=0, max=1, metavar="SHARE", help="Exit with 10 when more top-1 flip, e.g. 0.05."
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, metavar="N", help="Threads of the bundle.")] = None,
    load: LoadOption = None,
    constant: ConstantTexts = None,
    allow_non_finite: NonFiniteFlag = False,
    json: JsonFlag = False,
) -> None:
    """Run both on the same data: largest error, SQNR and top-1 flips of every output; with --layers, of every value."""
    from ...backends.compare import compare_outputs, compare_values
    from ...backends.models import find_model

    load_files(load)
    found = find_model(model, constants=read_constants(constant), allow_non_finite=allow_non_finite)
    is_bundle = Path(other).is_dir()
    pair = _pair_bundle(found, Path(other), threads, data, preprocess) if is_bundle else _pair_models(found, other)
    batches = pair.open(data, preprocess, limit)
    total = len(batches) if isinstance(batches, Sized) else None
    with progress_bar() as progress:
        outputs, count = compare_outputs(
            pair.reference, pair.other, batches, lambda done: progress("compare", done, total)
        )
        values: list[ValueDifference] = []
        if layers or worst:
            prepared, frozen = pair.freeze()
            values = compare_values(prepared, frozen, batches, lambda done: progress("layers", done, total))
    failed = _failures(outputs, min_sqnr, max_flips)
    if json:
        print_json(_document(outputs, values, count, failed))
    else:
        _print(outputs, _sorted(values, worst), count)
        for line in failed:
            print_text(line, style="bold red")
    if failed:
        raise typer.Exit(EXIT_DIFFERENT)


@dataclasses.dataclass(frozen=True)
class _Pair:
    """The two networks: how to run them, on what, and the graphs for a look inside.

    ``taking`` is ``graph`` behind the passes that change what it takes: data are for its inputs.
    """

    graph: Graph
    taking: Graph
    reference: Run
    other: Run
    preprocessing: Any
    frozen: Graph | None
    pipeline: str | None
    ranges: dict[str, tuple[float, float]]

    def open(self, data: str, preprocess: str | None, limit: int | None) -> Batches:
        """The data, for the graph's inputs."""
        from ...backends.data import open_data
        from ...backends.preprocess import Preprocess

        steps = Preprocess.parse(preprocess) if preprocess is not None else self.preprocessing
        inputs = {value.name: value.type for value in self.taking.inputs}
        return open_data(data, inputs, preprocess=steps, limit=limit)

    def freeze(self) -> tuple[Graph, Graph]:
        """The float graph before quantization, and the frozen one: run again with the bundle's ranges, or as given."""
        from ...backends.compare import freeze_and_keep
        from ...passes.pipeline import Pipeline

        if self.pipeline is not None and not self.ranges:
            raise UsageError(
                "the bundle was compiled from a frozen graph, so it does not tell how to freeze the model",
                hint="compare the model with that graph instead of the bundle",
            )
        if self.pipeline is not None:
            return freeze_and_keep(self.graph, self.pipeline, self.ranges)
        assert self.frozen is not None
        prepared = self.graph.clone()
        Pipeline.parse("prepare").run(prepared)
        return prepared, self.frozen


def _pair_bundle(model: Model, folder: Path, threads: int | None, data: str, preprocess: str | None) -> _Pair:
    """A model and its bundle, at the shapes of the first plan that the data fits."""
    from ...backends.bundle.loader import load
    from ...backends.entrance import entrance_of, model_shapes
    from ...backends.evaluate import fitting_plan, input_types, preprocessing_of
    from ...backends.job import manifest_ranges
    from ...ir.interpreter import run_graph

    bundle = load(folder, threads=threads)
    manifest = bundle.manifest
    signature = fitting_plan(manifest, data, preprocessing_of(manifest, preprocess))
    pipeline = str(manifest.made.get("pipeline"))
    entrance = entrance_of(pipeline)
    try:
        graph = model.trace(model_shapes(entrance, input_types(signature)))
        taking = entrance.entered(graph)
    except OctavoError as error:
        error.where = error.where or f"the inputs of {folder}"
        raise
    return _Pair(
        graph,
        taking,
        lambda feeds: run_graph(taking, feeds),
        bundle.run,
        preprocessing_of(manifest, None),
        None,
        pipeline,
        manifest_ranges(manifest),
    )


def _pair_models(model: Model, text: str) -> _Pair:
    from ...backends.models import find_model
    from ...ir.interpreter import run_graph

    (other,) = find_model(text).trace_fixed(())
    graph = model.trace({value.name: value.type.static_shape for value in other.inputs})
    if [v.name for v in graph.inputs] != [v.name for v in other.inputs]:
        names = ", ".join(v.name for v in other.inputs)
        raise UsageError(f"the inputs of {text} are {names}", expected=", ".join(v.name for v in graph.inputs))
    reference, frozen = (lambda feeds: run_graph(graph, feeds)), (lambda feeds: run_graph(other, feeds))
    return _Pair(graph, graph, reference, frozen, None, other, None, {})


def _failures(outputs: list[Difference], min_sqnr: float | None, max_flips: float | None) -> list[str]:
    failed: list[str] = []
    for output in outputs:
        if min_sqnr is not None and output.sqnr < min_sqnr:
            failed.append(f"{output.name}: {output.sqnr:.1f} dB is below {min_sqnr:g} dB")
        share = output.flips / output.rankings if output.rankings else 0.0
        if max_flips is not None and share > max_flips:
            failed.append(f"{output.name}: {share:.2%} of the top-1 flip, more than {max_flips:.2%}")
    return failed


def _sorted(values: list[ValueDifference], worst: int | None) -> list[ValueDifference]:
    from ...backends.compare import worst_first

    return worst_first(values)[:worst] if worst else values


def _print(outputs: list[Difference], values: list[ValueDifference], count: int) -> None:
    print_text(f"{count} batches", style="bold")
    print_table(
        ("output", "SQNR dB", "largest error", "differing", "top-1 flips"),
        [(o.name, _decibels(o), f"{o.largest_error:.4g}", _share(o.differing, o.elements), _flips(o)) for o in outputs],
        right=("SQNR dB", "largest error", "differing", "top-1 flips"),
    )
    if values:
        print_text("")
        print_table(
            ("layer", "op", "value", "SQNR dB", "largest error"),
            [
                (v.where, v.op, v.difference.name, _decibels(v.difference), f"{v.difference.largest_error:.4g}")
                for v in values
            ],
            right=("SQNR dB", "largest error"),
        )


def _decibels(difference: Difference) -> str:
    return "equal" if math.isinf(difference.sqnr) and difference.sqnr > 0 else f"{difference.sqnr:.1f}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else ""


def _flips(difference: Difference) -> str:
    return f"{difference.flips} of {difference.rankings}" if difference.rankings else ""


def _document(
    outputs: list[Difference], values: list[ValueDifference], count: int, failed: list[str]
) -> dict[str, object]:
    return {
        "batches": count,
        "outputs": [_difference(o) for o in outputs],
        "layers": [{"where": v.where, "op": v.op, **_difference(v.difference)} for v in values],
        "failed": failed,
    }


def _difference(d: Difference) -> dict[str, object]:
    return {
        "name": d.name,
        "sqnr_db": d.sqnr if math.isfinite(d.sqnr) else None,
        "equal": d.noise == 0.0,
        "largest_error": d.largest_error,
        "differing": d.differing,
        "elements": d.elements,
        "flips": d.flips,
        "rankings": d.rankings,
    }
