"""Ranges as users write them: ``NAME=MIN:MAX`` on the command line, and JSON files that reproduce a calibration."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path

from ...ir.errors import UsageError
from ..base import Ranges


def parse_range(text: str) -> tuple[str, tuple[float, float]]:
    """Name and (low, high) from ``NAME=MIN:MAX``.

    Raises:
        UsageError: it is spelled otherwise, or MIN exceeds MAX.
    """
    name, equals, numbers = text.rpartition("=")
    low, colon, high = numbers.partition(":")
    try:
        if not (equals and colon and name):
            raise ValueError(text)
        return name, _checked(float(low), float(high))
    except ValueError:
        raise UsageError(f"{text!r} is not a range", expected="NAME=MIN:MAX with MIN at most MAX") from None


def load_ranges(path: Path) -> dict[str, tuple[float, float]]:
    """The ranges of a JSON file: an object of name to ``[min, max]``.

    Raises:
        UsageError: the file cannot be read or holds something else; names the entry.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read the ranges: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise UsageError(f"the ranges are not JSON: {error}", where=str(path)) from error
    if not isinstance(content, dict):
        raise UsageError("the ranges are no JSON object", where=str(path), expected='{"name": [min, max], ...}')
    ranges: dict[str, tuple[float, float]] = {}
    for name, pair in content.items():
        try:
            low, high = pair
            ranges[str(name)] = _checked(float(low), float(high))
        except (TypeError, ValueError):
            raise UsageError(
                f"the range of {name} is {json.dumps(pair)}", where=str(path), expected="[min, max], min at most max"
            ) from None
    return ranges


def save_ranges(ranges: Ranges, path: Path) -> None:
    """Write ranges so that :func:`load_ranges` reads the same floats; whole or not at all."""
    lines = [f"  {json.dumps(name)}: [{low!r}, {high!r}]" for name, (low, high) in ranges.items()]
    draft = path.with_name(path.name + ".part")
    draft.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    draft.replace(path)


def check_names(ranges: Mapping[str, object], known: Collection[str]) -> None:
    """Raise :class:`UsageError` when a range names no observed value; close names are listed."""
    for name in ranges:
        if name not in known:
            close = difflib.get_close_matches(name, known, 3)
            raise UsageError(
                f"a range is given for {name!r}, but no observed value has that name",
                expected=f"one of {len(known)} names, for example {', '.join(list(known)[:5])}" if known else None,
                hint=f"did you mean {' or '.join(close)}?" if close else None,
            )


def _checked(low: float, high: float) -> tuple[float, float]:
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError((low, high))
    return low, high
