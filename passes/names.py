"""Nodes by the names that users give them: shell patterns, as options of passes list them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable

from ..ir.errors import UsageError
from ..ir.graph import Graph, Node
from ..ir.op import all_ops
from ..ir.ops.constant import Constant


def is_named(node: Node, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns fits what messages call a node, or ``op:NAME`` of its op."""
    names = (node.where, _kind(node.op.name))
    return any(fnmatch.fnmatchcase(name, pattern) for name in names for pattern in patterns)


def check_patterns(graph: Graph, patterns: Iterable[str], option: str) -> None:
    """Refuse patterns that fit no node which computes, and so keep nothing; a kind of op may be absent.

    Raises:
        UsageError: there is such a pattern; close names are listed.
    """
    names = dict.fromkeys(node.where for node in graph.nodes if not isinstance(node.op, Constant))
    known = [*names, *(_kind(op.name) for op in all_ops())]
    for pattern in patterns:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in known):
            close = difflib.get_close_matches(pattern, known, 3)
            raise UsageError(
                f"{option}: no layer is named {pattern!r}",
                expected=f"shell patterns over {len(names)} names, for example {', '.join(list(names)[:5])}",
                hint=f"did you mean {' or '.join(close)}?" if close else None,
            )


def _kind(op: str) -> str:
    return f"op:{op}"
