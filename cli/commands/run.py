"""Run a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import print_json, print_table, print_text, remark
from ..options import BundlePath, JsonFlag, PreprocessOption

if TYPE_CHECKING:
    import numpy as np


def command(
    bundle: BundlePath,
    input: Annotated[Path, typer.Argument(metavar="INPUT", help="An image, or an .npy or .npz file.")],
    top: Annotated[int, typer.Option("--top", min=1, metavar="N", help="Show the N largest elements.")] = 5,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.npz", help="Write all outputs here.")
    ] = None,
    preprocess: PreprocessOption = None,
    threads: Annotated[int | None, typer.Option("--threads", min=1, metavar="N", help="Threads of the run.")] = None,
    level: Annotated[str | None, typer.Option("--level", help="One of the bundle's levels.")] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show the time of every step.")] = False,
    json: JsonFlag = False,
) -> None:
    """Run a bundle on an image or on arrays, and show the largest elements of every output."""
    from ...backends.bundle.loader import load
    from ...backends.evaluate import preprocessing_of, read_bundle_labels, read_inputs
    from ...backends.evaluate import top as largest

    with load(bundle, threads=threads, level=level) as network:
        feeds = read_inputs(input, network.manifest, preprocessing_of(network.manifest, preprocess))
        results = network.run(feeds)
        steps = network.profile(feeds) if profile else []
        used = f"{network.level}, {network.threads} thread(s)"
    if output:
        _write(results, output)
    labels = read_bundle_labels(bundle)
    ranking = {name: largest(array, top) for name, array in results.items()}
    if json:
        print_json(
            {
                "bundle": str(bundle),
                "level": network.level,
                "threads": network.threads,
                "outputs": {
                    name: {
                        "dtype": str(array.dtype),
                        "shape": list(array.shape),
                        "top": [{"index": i, "value": v, "label": _label(labels, i)} for i, v in ranking[name]],
                    }
                    for name, array in results.items()
                },
                "steps": [{"label": step.label, "nanoseconds": step.nanoseconds} for step in steps],
            }
        )
        return
    for name, array in results.items():
        print_text(f"{name} {array.dtype}{list(array.shape)}", style="bold")
        rows = [(i, f"{v:.6g}", _label(labels, i) or "") for i, v in ranking[name]]
        print_table(("index", "value", "label" if labels else ""), rows, right=("index", "value"))
    if steps:
        _print_steps([(step.label, step.nanoseconds) for step in steps])
    remark(used)


def _label(labels: tuple[str, ...], index: int) -> str | None:
    return labels[index] if index < len(labels) else None


def _print_steps(steps: list[tuple[str, int]]) -> None:
    total = sum(time for _, time in steps) or 1
    print_text(f"\n{total / 1e6:.3f} ms in {len(steps)} steps", style="bold")
    rows = [(label, f"{time / 1e3:.1f}", f"{time / total:.1%}") for label, time in steps]
    print_table(("step", "us", "share"), rows, right=("us", "share"))


def _write(results: dict[str, np.ndarray], path: Path) -> None:
    import numpy as np

    from ...ir.errors import UsageError

    draft = path.with_name(f".{path.name}.part.npz")
    try:
        np.savez(draft, **results)  # type: ignore[arg-type]
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise UsageError(f"the outputs cannot be written: {error.strerror}", where=str(path)) from error
