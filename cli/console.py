"""What commands write: results to stdout (tables, or pure JSON), everything else to stderr."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from ..ir.errors import OctavoError

Progress = Callable[[str, int, int | None], None]
_WIDE = 500
"""Columns where the output is no terminal: nothing is cut off in a file or a pipe."""


def stdout() -> Console:
    """The console for results."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, soft_wrap=False)


def stderr() -> Console:
    """The console for progress, remarks and errors."""
    from rich.console import Console

    return Console(stderr=True, width=None if sys.stderr.isatty() else _WIDE, highlight=False)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_error(error: OctavoError) -> None:
    """An error for people: what in red, then where, expected and the way out."""
    from rich.text import Text

    first, *rest = str(error).splitlines()
    text = Text("error: ", style="bold red")
    text.append(first, style="bold default")
    for line in rest:
        label, colon, tail = line.partition(": ")
        known = colon and label in ("  where", "  expected", "  try")
        text.append("\n")
        text.append(f"{label}{colon}", style="dim" if known else "default not bold")
        text.append(tail, style="default not bold")
    stderr().print(text, soft_wrap=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> None:
    """A table without lines; columns in ``right`` are aligned to the right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim", show_header=any(columns), padding=(0, 2, 0, 0))
    for column in columns:
        align: Any = "right" if column in right else "left"
        table.add_column(column, justify=align, overflow="fold", no_wrap=column in right)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    console = stdout()
    if console.is_terminal:
        console.print(table)
        return
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_text(text: str, *, style: str = "") -> None:
    """Lines on stdout."""
    from rich.text import Text

    stdout().print(Text(text, style=style))


def remark(line: str) -> None:
    """A line on stderr that is no result."""
    from rich.text import Text

    stderr().print(Text(line, style="dim"), soft_wrap=True)


def ignore(*_: object) -> None:
    """A sink."""


@contextlib.contextmanager
def progress_bar(enabled: bool = True) -> Generator[Progress]:
    """A callback that shows (label, done, total or None) on stderr, when that is a terminal."""
    if not (enabled and sys.stderr.isatty()):
        yield ignore
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=stderr(), transient=True) as bars:
        task = bars.add_task("", total=None)
        current = ""

        def show(label: str, done: int, total: int | None) -> None:
            nonlocal current
            if label != current:
                current = label
                bars.reset(task, description=label)
            bars.update(task, completed=done, total=total)

        yield show


def format_bytes(count: int) -> str:
    """A number of bytes for people."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def format_count(count: int) -> str:
    """A large number for people, e.g. ``3.5 M``."""
    for limit, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return str(count)


def format_tuned(found: Mapping[str, Any]) -> str:
    """What measuring found, as bundles record it, in a line."""
    result = f"nothing is faster for certain on {found['level']}"
    if found["replaced"]:
        median, low, high = found["ratio"]
        which = f"{found['replaced']} of {found['kernels']} kernels replaced on {found['level']}"
        result = f"{which}, {median:.2f} times as fast [{low:.2f}, {high:.2f}]"
    if found["measured"] < found["alternatives"]:
        result += f"; there was time for {found['measured']} of {found['alternatives']} alternatives"
    return result
