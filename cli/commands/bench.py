"""Time a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...ir.errors import UsageError
from ..console import print_json, print_table, print_text, progress_bar
from ..options import BundlePath, JsonFlag

if TYPE_CHECKING:
    from ...backends.bench import BenchResult, Timing


def command(
    bundle: BundlePath,
    threads: Annotated[str, typer.Option("--threads", metavar="N,...", help="Numbers of threads, e.g. 1,2.")] = "1",
    runs: Annotated[int, typer.Option("--runs", min=3, metavar="N", help="Measured runs of each.")] = 50,
    warmup: Annotated[
        float, typer.Option("--warmup", min=0.0, metavar="SECONDS", help="Unmeasured time before.")
    ] = 0.5,
    against: Annotated[
        tuple[str, Path] | None,
        typer.Option("--against", metavar="onnxruntime MODEL.onnx", help="Take turns with another runtime."),
    ] = None,
    level: Annotated[str | None, typer.Option("--level", help="One of the bundle's levels.")] = None,
    plan: Annotated[int, typer.Option("--plan", min=0, metavar="N", help="Which of the bundle's input shapes.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Time a bundle on random inputs; with --against, in turn with ONNX Runtime."""
    from ...backends.bench import bench
    from ...backends.bundle.manifest import read_manifest

    counts = _read_threads(threads)
    plans = len(read_manifest(bundle).signatures)
    if plan >= plans:
        raise UsageError(f"there is no plan {plan}", where=str(bundle), expected=f"0 to {plans - 1}")
    if against and against[0] != "onnxruntime":
        raise UsageError(f"no runtime is named {against[0]!r}", expected="--against onnxruntime MODEL.onnx")
    results: list[BenchResult] = []
    with progress_bar() as progress:
        for count in counts:
            label = f"{count} thread(s)"
            results.append(
                bench(
                    bundle,
                    threads=count,
                    runs=runs,
                    warmup=warmup,
                    against=against[1] if against else None,
                    level=level,
                    plan=plan,
                    progress=lambda done, label=label: progress(label, done, runs),  # type: ignore[misc]
                )
            )
    if json:
        print_json({"bundle": str(bundle), "runs": runs, "results": [_document(result) for result in results]})
    else:
        _print(bundle, results, runs)


def _read_threads(text: str) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")]
    except ValueError:
        counts = []
    if not counts or min(counts) < 1:
        raise UsageError(f"--threads {text} is not a list of numbers", expected="for example 1,2")
    return counts


def _print(bundle: Path, results: list[BenchResult], runs: int) -> None:
    print_text(f"{bundle}, level {results[0].level}, {runs} runs, milliseconds", style="bold")
    rows: list[tuple[str, ...]] = []
    for result in results:
        for timing in (result.octavo, result.other):
            if timing is not None:
                numbers = (timing.median, timing.best, timing.percentile(90))
                ratio = result.ratio if timing is result.octavo else None
                shown = f"{ratio.median:.2f}x  [{ratio.low:.2f}, {ratio.high:.2f}]" if ratio else ""
                rows.append((timing.name, str(timing.threads), *(f"{n:.3f}" for n in numbers), shown))
    faster = "faster" if any(result.ratio for result in results) else ""
    columns = ("", "threads", "median", "best", "90 %", faster)
    print_table(columns, rows, right=("threads", "median", "best", "90 %"))


def _document(result: BenchResult) -> dict[str, object]:
    ratio = result.ratio
    return {
        "threads": result.threads,
        "level": result.level,
        "octavo": _timing(result.octavo),
        "onnxruntime": _timing(result.other) if result.other else None,
        "ratio": {"median": ratio.median, "low": ratio.low, "high": ratio.high} if ratio else None,
    }


def _timing(timing: Timing) -> dict[str, object]:
    return {
        "median_ms": timing.median,
        "best_ms": timing.best,
        "p90_ms": timing.percentile(90),
        "milliseconds": list(timing.milliseconds),
    }
