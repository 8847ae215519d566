"""Show what a model or a bundle is made of."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import format_bytes, format_count, format_tuned, print_json, print_table, print_text
from ..options import ConstantTexts, JsonFlag, NonFiniteFlag, ShapeTexts, read_constants

MEMORY = ("values", "alive", "scratch", "moved")
"""What a bundle says of a plan's memory, in bytes."""

if TYPE_CHECKING:
    from ...backends.bundle.manifest import Manifest
    from ...backends.models import Model
    from ...backends.shapes import Shapes
    from ...backends.summary import GraphSummary, Row
    from ...ir.graph import Graph


def command(
    model: Annotated[str, typer.Argument(metavar="MODEL|BUNDLE", help="A model as for compile, or a bundle's folder.")],
    shape: ShapeTexts = None,
    nodes: Annotated[bool, typer.Option("--nodes", help="Every node, not the float ones alone.")] = False,
    text: Annotated[bool, typer.Option("--text", help="Print the graph instead.")] = False,
    constant: ConstantTexts = None,
    allow_non_finite: NonFiniteFlag = False,
    json: JsonFlag = False,
) -> None:
    """Show inputs, outputs and sizes, and for every node whether it becomes integer, by which rule and why."""
    if Path(model).is_dir():
        _show_bundle(Path(model), nodes, json)
        return
    from ...backends.models import find_model
    from ...backends.shapes import parse_shapes

    found = find_model(model, constants=read_constants(constant), allow_non_finite=allow_non_finite)
    graph = _trace(found, parse_shapes(shape or ())[:1])
    if text:
        print(graph, end="")
        return
    from ...backends.summary import decision_rows, summarize

    summary, rows = summarize(graph), decision_rows(graph)
    if json:
        print_json({**_summary_json(summary), "decisions": [_row_json(row) for row in rows]})
    else:
        _print_graph(summary)
        _print_decisions(rows, nodes)


def _trace(model: Model, shapes: Sequence[Shapes]) -> Graph:
    """The graph with fixed shapes where they are known, so that work can be counted."""
    from ...ir.errors import ModelError

    if not shapes:
        with contextlib.suppress(ModelError):
            return model.trace_fixed(())[0]
    return model.trace(shapes[0] if shapes else None)


def _summary_json(summary: GraphSummary) -> dict[str, object]:
    return {
        **dataclasses.asdict(summary),
        "inputs": [{"name": name, "type": type} for name, type in summary.inputs],
        "outputs": [{"name": name, "type": type} for name, type in summary.outputs],
        "ops": dict(summary.ops),
        "largest": {"name": summary.largest[0], "bytes": summary.largest[1]},
    }


def _row_json(row: Row) -> dict[str, object]:
    return {
        "where": row.where,
        "op": row.op,
        "type": row.type,
        "macs": row.macs,
        "precision": row.decision.precision.value,
        "rule": row.decision.rule,
        "reason": row.decision.reason,
    }


def _print_graph(summary: GraphSummary) -> None:
    macs = "open shapes" if summary.macs is None else f"{format_count(summary.macs)} multiply-accumulates"
    print_text(summary.name, style="bold")
    print_table(
        ("", "", ""),
        [
            *(("input", name, type) for name, type in summary.inputs),
            *(("output", name, type) for name, type in summary.outputs),
        ],
    )
    ops = ", ".join(f"{count} {name}" for name, count in summary.ops)
    print_text(f"{summary.nodes} nodes: {ops}")
    parameters = f"{format_count(summary.parameters)} parameters, {format_bytes(summary.parameter_bytes)}"
    name, size = summary.largest
    print_text(f"{parameters}; {macs}; largest value %{name}, {format_bytes(size)}\n")


def _print_decisions(rows: list[Row], every: bool) -> None:
    from ...backends.summary import float_islands
    from ...ir.graph import Precision

    integer = [row for row in rows if row.decision.precision is Precision.QUANTIZED]
    total, inside = sum(row.macs for row in rows), sum(row.macs for row in integer)
    share = f", {inside / total:.1%} of the multiply-accumulates" if total else ""
    islands = list(float_islands(rows))
    print_text(f"{len(integer)} of {len(rows)} nodes become integer{share}; {len(islands)} float islands")
    shown = rows if every else [row for row in rows if row not in integer]
    if shown:
        print_text("")
        print_table(
            ("node", "op", "precision", "rule", "why"),
            [(r.where, r.op, r.decision.precision.value, r.decision.rule, r.decision.reason) for r in shown],
        )


def _show_bundle(folder: Path, every: bool, json: bool) -> None:
    from ...backends.bundle.manifest import read_manifest

    manifest = read_manifest(folder)
    if json:
        import json as library

        print_json(library.loads(manifest.to_text()))
        return
    print_text(manifest.name, style="bold")
    rows = [("target", f"{manifest.target}: {', '.join(level.name for level in manifest.levels)}, best first")]
    for number, plan in enumerate(manifest.signatures):
        label = "" if len(manifest.signatures) == 1 else f" of plan {number}"
        rows += [(f"input{label}", f"{t.name} {t.dtype}{list(t.shape)}{_grid(t)}") for t in plan.inputs]
        rows += [(f"output{label}", f"{t.name} {t.dtype}{list(t.shape)}{_grid(t)}") for t in plan.outputs]
    rows += [
        *_memory_rows(manifest),
        ("answers", manifest.exactness),
        *([("preprocess", _preprocessing(manifest))] if manifest.preprocessing is not None else []),
        ("files", ", ".join(f"{name} {format_bytes(f.bytes)}" for name, f in manifest.files.items())),
        ("symbols", f"{manifest.prefix}_*"),
        ("made by", f"octavo {manifest.made.get('octavo', '?')}"),
        ("passes", str(manifest.made.get("pipeline", "?")).replace(",", ", ")),
        *([("tuned", format_tuned(tuned))] if isinstance(tuned := manifest.made.get("tuned"), dict) else []),
    ]
    print_table(("", ""), rows)
    _print_bundle_decisions(manifest, every)


def _memory_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """What a run on the best level needs, a row for each plan."""
    level = manifest.levels[0].name
    plans = manifest.memory.get(level) if isinstance(manifest.memory, dict) else None
    if not isinstance(plans, list):
        return []
    rows: list[tuple[str, str]] = []
    for number, found in enumerate(plans):
        assert isinstance(found, dict)
        values, alive, scratch, moved = (format_bytes(int(str(found[key]))) for key in MEMORY)
        label = "memory" if len(plans) == 1 else f"memory of plan {number}"
        used = f"{values} for values, {alive} of them alive at once; {scratch} for each thread"
        rows.append((label, f"{used}; a run moves {moved} ({level})"))
    return rows


def _grid(tensor: object) -> str:
    scale = getattr(tensor, "scale", None)
    return "" if scale is None else f" scale {scale:g} zero point {getattr(tensor, 'zero_point', 0)}"


def _preprocessing(manifest: Manifest) -> str:
    from ...backends.preprocess import Preprocess

    return "" if manifest.preprocessing is None else str(Preprocess.from_json(manifest.preprocessing))


def _print_bundle_decisions(manifest: Manifest, every: bool) -> None:
    decisions = [d for d in manifest.decisions if isinstance(d, dict)] if isinstance(manifest.decisions, list) else []
    if not decisions:
        return
    integer = sum(d.get("precision") == "quantized" for d in decisions)
    print_text(f"\n{integer} of {len(decisions)} nodes are integer")
    shown = [d for d in decisions if every or d.get("precision") != "quantized"]
    if shown:
        keys = ("where", "op", "precision", "rule", "reason")
        rows = [tuple(str(d.get(key, "")) for key in keys) for d in shown]
        print_table(("node", "op", "precision", "rule", "why"), rows)
