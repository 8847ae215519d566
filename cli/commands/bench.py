"""Time a bundle."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...ir.errors import UsageError
from ..console import print_json, print_table, print_text, progress_bar, remark
from ..options import BundlePath, CalibOption, JsonFlag, LimitOption, PreprocessOption
from ..profiles import show_kernels

if TYPE_CHECKING:
    from ...backends.bench import BenchResult, PeerResult, Timing
    from ...backends.bench.peers import Arrays, Peer, PeerFiles
    from ...backends.bundle.manifest import Manifest

RANDOM_CALLS = 16
"""Inputs drawn for the peers' quantizers where there is no data: times hardly depend on ranges."""


def command(
    bundle: BundlePath,
    threads: Annotated[str, typer.Option("--threads", metavar="N,...", help="Numbers of threads, e.g. 1,2.")] = "1",
    runs: Annotated[int, typer.Option("--runs", min=3, metavar="N", help="Measured runs of each.")] = 50,
    warmup: Annotated[
        float, typer.Option("--warmup", min=0.0, metavar="SECONDS", help="Unmeasured time before.")
    ] = 0.5,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="RUNTIME,...", help="Take turns with onnxruntime, openvino or both."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", metavar="MODEL.onnx", help="The float network, for --against.")
    ] = None,
    calib: CalibOption = None,
    limit: LimitOption = None,
    preprocess: PreprocessOption = None,
    level: Annotated[str | None, typer.Option("--level", help="One of the bundle's levels.")] = None,
    plan: Annotated[int, typer.Option("--plan", min=0, metavar="N", help="Which of the bundle's input shapes.")] = 0,
    per_kernel: Annotated[
        bool, typer.Option("--per-kernel", help="Time every kernel beside what this machine reaches.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE.svg", help="With --per-kernel, draw the network's roofline.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Time a bundle on random inputs; with --against, in turn with other runtimes.

    The other runtimes' int8 models are made from the same float network by their own quantizers, with the data of
    --calib or random inputs, and kept in octavo's cache. An int8 --model runs as it is.

    With --per-kernel, a profile instead: the time of every kernel, the share of what its instruction reaches on this
    machine, measured first, and which limit bounds it.
    """
    from ...backends.bench import bench
    from ...backends.bundle.manifest import read_manifest

    counts = _read_threads(threads)
    manifest = read_manifest(bundle)
    plans = len(manifest.signatures)
    if plan >= plans:
        raise UsageError(f"there is no plan {plan}", where=str(bundle), expected=f"0 to {plans - 1}")
    if plot is not None and not per_kernel:
        raise UsageError("--plot draws what --per-kernel measures", expected="--per-kernel --plot FILE.svg")
    if per_kernel:
        if against is not None or len(counts) > 1:
            raise UsageError("--per-kernel is for a bundle alone and one number of threads")
        show_kernels(bundle, counts[0], runs, level, plan, plot, json)
        return
    peers, files = _peers(against, model, manifest, plan, (calib, limit, preprocess), level)
    with progress_bar() as progress:
        measure = partial(
            bench, bundle, runs=runs, warmup=warmup, peers=peers, files=files, level=level, plan=plan, progress=progress
        )
        results = [measure(threads=count) for count in counts]
    if json:
        print_json(_report(bundle, model, calib, runs, results))
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


_Data = tuple[str | None, int | None, str | None]
"""--calib, --limit and --preprocess."""


def _peers(
    against: str | None, model: Path | None, manifest: Manifest, plan: int, data: _Data, level: str | None
) -> tuple[Sequence[Peer], PeerFiles | None]:
    """Who takes part, and the files of their models."""
    if against is None:
        return (), None
    if model is None:
        raise UsageError("--against needs the float network", expected="--model MODEL.onnx")
    from ...backends.bench import peer_inputs, random_inputs
    from ...backends.bench.peers import PeerFiles, chosen_peers, read_runtimes
    from ...backends.cache import default_folder
    from ...backends.data import open_data
    from ...backends.evaluate import input_types, preprocessing_of

    signature = manifest.signatures[plan]
    calib, limit, preprocess = data

    def calibration() -> list[Arrays]:
        if calib is None:
            return [peer_inputs(manifest, random_inputs(signature, seed)) for seed in range(RANDOM_CALLS)]
        types = input_types(signature)
        batches = open_data(calib, types, preprocess=preprocessing_of(manifest, preprocess), limit=limit)
        return [peer_inputs(manifest, {name: feeds[name] for name in types}) for feeds in batches]

    runtimes = read_runtimes(against)
    files = PeerFiles(model, calibration, default_folder() / "peers")
    return chosen_peers(runtimes, files.ops, level), files


def _print(bundle: Path, results: Sequence[BenchResult], runs: int) -> None:
    print_text(f"{bundle}, level {results[0].level}, {runs} runs, milliseconds", style="bold")
    rows: list[tuple[str, ...]] = []
    for result in results:
        rows.append((*_times(result.octavo, result.threads), "", result.level))
        for peer in result.peers:
            mark = " *" if peer is result.fastest else ""
            shown = f"{peer.ratio.median:.2f}x  [{peer.ratio.low:.2f}, {peer.ratio.high:.2f}]{mark}"
            rows.append((*_times(peer.timing, result.threads), shown, _runs_on(peer)))
    others = any(result.peers for result in results)
    columns = ("", "threads", "median", "best", "90 %", "octavo is faster" if others else "", "runs on")
    print_table(columns, rows, right=("threads", "median", "best", "90 %"))
    if others:
        print_text("* the fastest of the others; ratios are medians of pairs of runs, with their 95 % interval")
    for name, reason in _failures(results).items():
        remark(f"{name} does not take part: {reason}")


def _times(timing: Timing, threads: int) -> tuple[str, ...]:
    numbers = (timing.median, timing.best, timing.percentile(90))
    return (timing.name, str(threads), *(f"{number:.3f}" for number in numbers))


def _runs_on(peer: PeerResult) -> str:
    """What is known of the instructions that a peer uses: its limit, else its most frequent kernel."""
    kernel = next(iter(peer.kernels), "")
    limit = f"at most {peer.isa}" if peer.isa else ""
    return ", ".join(part for part in (limit, kernel) if part) or "its own choice"


def _failures(results: Sequence[BenchResult]) -> dict[str, str]:
    return {name: reason for result in results for name, reason in (result.failures or {}).items()}


def _report(
    bundle: Path, model: Path | None, calib: str | None, runs: int, results: Sequence[BenchResult]
) -> dict[str, Any]:
    compared = any(result.peers for result in results)
    return {
        "bundle": str(bundle),
        "model": None if model is None else str(model),
        "calibration": (calib or f"{RANDOM_CALLS} random inputs") if compared else None,
        "runs": runs,
        "results": [_document(result) for result in results],
    }


def _document(result: BenchResult) -> dict[str, Any]:
    return {
        "threads": result.threads,
        "level": result.level,
        "clock": "processor time" if result.threads == 1 else "wall time",
        "octavo": _timing(result.octavo),
        "peers": [_peer(peer) for peer in result.peers],
        "fastest": result.fastest.peer.name if result.fastest else None,
        "failures": dict(result.failures or {}),
    }


def _peer(result: PeerResult) -> dict[str, Any]:
    ratio = result.ratio
    return {
        "name": result.peer.name,
        "runtime": result.peer.runtime,
        "version": result.version,
        "model": result.peer.form,
        "isa": result.isa,
        "kernels": dict(result.kernels),
        **_timing(result.timing),
        "ratio": {"median": ratio.median, "low": ratio.low, "high": ratio.high},
    }


def _timing(timing: Timing) -> dict[str, Any]:
    return {
        "median_ms": timing.median,
        "best_ms": timing.best,
        "p90_ms": timing.percentile(90),
        "milliseconds": list(timing.milliseconds),
    }
