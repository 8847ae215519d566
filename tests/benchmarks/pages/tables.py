"""What pages are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .. import results

Record = results.Record


def interval_of(ratio: Sequence[float]) -> str:
    """A median in bold and its interval."""
    median, low, high = ratio
    return f"**{median:.2f}** [{low:.2f}, {high:.2f}]"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machines(found: Iterable[tuple[str, Record]]) -> str:
    """Each distinct machine and what, by name, was measured on it. The load says how busy others kept it."""
    groups: dict[str, list[str]] = {}
    for name, record in found:
        m = record["machine"]
        packages = ", ".join(f"{package} {version}" for package, version in m["packages"].items())
        text = f"{m['cpus']} CPUs of {m['cpu']} ({', '.join(m['levels'])}); {packages}"
        groups.setdefault(text, []).append(f"{name} at {m['commit']}, load {m['load']}")
    return "\n\n".join(f"{text}.\n\n{'; '.join(names)}." for text, names in groups.items())
