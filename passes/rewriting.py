"""The rewrite driver: patterns in plain Python, tried on every node until none fires.

::

    @pattern(Relu)
    def relu_of_relu(node: Node, rewriter: Rewriter) -> bool:
        match node.inputs[0].op:
            case Relu():
                return rewriter.replace(node, node.inputs[0])
        return False

A pattern looks at one root node, and either changes nothing and returns False, or builds the replacement with the
rewriter's verbs and returns True. Only nodes near a change are visited again, so the work is linear in the graph.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.constants import Tensor
from ..ir.errors import PassError
from ..ir.graph import Graph, Node, Value
from ..ir.op import Op
from ..ir.ops.constant import Constant, trains_as
from .base import PassContext, Remark


@dataclass(frozen=True)
class RewritePattern:
    """A rule tried on every node whose op is one of ``roots`` (on all nodes when there are none)."""

    name: str
    roots: tuple[type[Op], ...]
    rewrite: Callable[[Node, Rewriter], bool]

    def __call__(self, node: Node, rewriter: Rewriter) -> bool:
        return self.rewrite(node, rewriter)


def pattern(*roots: type[Op]) -> Callable[[Callable[[Node, Rewriter], bool]], RewritePattern]:
    """Decorator: make a rewrite pattern of a function; its name, with dashes, names the pattern in messages."""

    def decorate(function: Callable[[Node, Rewriter], bool]) -> RewritePattern:
        return RewritePattern(function.__name__.strip("_").replace("_", "-"), roots, function)

    return decorate


class Rewriter:
    """The verbs of a pattern. Whatever it inserts stands before the root and inherits the root's origin."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.pattern = ""
        self.root: Node | None = None
        self._made: set[Node] = set()
        self._touched: dict[Node, None] = {}
        self._remarks: dict[tuple[str, Node], str] = {}
        self._heirs: list[tuple[Value, Value]] = []

    def insert(self, op: Op, *inputs: Value, origin: str | None = None, name: str = "") -> Value:
        """The output of a new node before the root."""
        (output,) = self.insert_all(op, *inputs, origin=origin, name=name)
        return output

    def insert_all(self, op: Op, *inputs: Value, origin: str | None = None, name: str = "") -> tuple[Value, ...]:
        """The outputs of a new node before the root."""
        root = self._root()
        origin = root.origin if origin is None else origin
        node = self.graph.insert(op, inputs, before=root, origin=origin, names=[name] if name else [])
        self._made.add(node)
        self._touched[node] = None
        return node.outputs

    def constant(
        self,
        array: np.ndarray | np.generic,
        name: str = "constant",
        *,
        origin: str | None = None,
        instead: Value | None = None,
        of: Iterable[Value] = (),
    ) -> Value:
        """A new constant before the root; it takes the name of ``instead`` if nothing uses that any more.

        It trains if ``instead``, or one of the other constants ``of`` which it is computed, does.
        """
        trains = trains_as(value.op for value in (instead, *of) if value is not None)
        op = Constant(Tensor.of(array), trains=trains)
        made = self.insert(op, origin=origin, name=instead.name if instead else name)
        return self.inherit(made, instead) if instead else made

    def inherit(self, new: Value, old: Value) -> Value:
        """``new``, which takes over the name of ``old`` if nothing uses ``old`` any more when the pattern is done."""
        self._heirs.append((new, old))
        return new

    def replace(self, node: Node, *values: Value) -> bool:
        """Let every use of the node's outputs read ``values``; erase the node and what only it used.

        A value made in this rewrite takes over the name of the output it stands for. Always True, so that a pattern
        can end with it.
        """
        for old, new in zip(node.outputs, values, strict=True):
            if new.type.dtype is not old.type.dtype or new.type.shape != old.type.shape:
                raise PassError(f"{self.pattern} would replace {old!r} by {new!r}", where=node.where)
            if new.producer in self._made:
                old.name, new.name = new.name, old.name
            self._touched.update(dict.fromkeys(old.users))
            self.graph.replace(old, new)
            if new.producer:
                self._touched[new.producer] = None
        self.erase(node)
        return True

    def set_input(self, node: Node, position: int, value: Value) -> bool:
        """Make one operand read ``value``; what it read before goes when nothing else needs it. Always True."""
        former = node.inputs[position]
        node.set_input(position, value)
        self._touched[node] = None
        if former.producer and not self._used(former.producer):
            self.erase(former.producer)
        return True

    def erase(self, node: Node) -> None:
        """Remove an unused node, and everything that only it used."""
        pending = [node]
        while pending:
            dead = pending.pop()
            if dead.graph is None or self._used(dead):
                continue
            producers = [v.producer for v in dead.inputs if v.producer]
            self.graph.erase(dead)
            pending += producers
            self._touched.update(dict.fromkeys(producers))
            for producer in producers:
                self._touch_users(*producer.outputs)

    def note(self, node: Node, reason: str) -> bool:
        """Say why this pattern leaves a candidate alone. Always False, so that a pattern can end with it."""
        self._remarks[self.pattern, node] = reason
        return False

    def remarks(self) -> list[Remark]:
        """The reasons that still hold: their nodes are in the graph."""
        return [Remark(p, node.where, reason) for (p, node), reason in self._remarks.items() if _alive(node)]

    def attempt(self, rule: RewritePattern, node: Node) -> bool:
        """Try one pattern on one node."""
        self.pattern, self.root = rule.name, node
        self._remarks.pop((rule.name, node), None)
        self._made.clear()
        fired = rule(node, self)
        for new, old in self._heirs:
            if fired and old.producer and old.producer.graph is None:
                old.name, new.name = new.name, old.name
        self._heirs.clear()
        return fired

    def take_touched(self) -> list[Node]:
        """Nodes near the changes since the last call."""
        touched = [node for node in self._touched if _alive(node)]
        self._touched.clear()
        return touched

    def _root(self) -> Node:
        assert self.root is not None, "a rewriter works inside a pattern"
        assert self.root.graph is not None, "insert before replacing the root"
        return self.root

    def _used(self, node: Node) -> bool:
        return any(v.uses or self.graph.is_output(v) for v in node.outputs)

    def _touch_users(self, *values: Value) -> None:
        for value in values:
            # A value with many users (a shared constant) learns nothing from one of them going away.
            if len(value.uses) <= 8:
                self._touched.update(dict.fromkeys(value.users))


def rewrite(graph: Graph, patterns: Sequence[RewritePattern], context: PassContext | None = None) -> bool:
    """Apply ``patterns``, in their order, to every node until none fires; returns whether any did.

    Raises:
        PassError: patterns keep firing without end; the busiest one is named.
    """
    rewriter = Rewriter(graph)
    queue = deque(graph.nodes)
    waiting = set(queue)
    by_op: dict[type[Op], list[RewritePattern]] = {}
    fired: Counter[str] = Counter()
    limit = 1000 + 16 * len(queue)
    while queue:
        node = queue.popleft()
        waiting.discard(node)
        kind = type(node.op)
        if kind not in by_op:
            by_op[kind] = [p for p in patterns if not p.roots or issubclass(kind, p.roots)]
        for rule in by_op[kind]:
            if not _alive(node) or not rewriter.attempt(rule, node):
                continue
            fired[rule.name] += 1
            if fired.total() > limit:
                raise _endless(fired, node)
            again = [n for n in rewriter.take_touched() if n not in waiting]
            if _alive(node) and node not in waiting:
                again.append(node)
            again = list(dict.fromkeys(again))
            queue.extend(again)
            waiting.update(again)
            break
    if context and context.explain:
        for remark in rewriter.remarks():
            context.explain(remark)
    return bool(fired)


def _alive(node: Node) -> bool:
    # Never by truth: the truth of a graph is its length, which takes a walk.
    return node.graph is not None


def _endless(fired: Counter[str], node: Node) -> PassError:
    busiest = ", ".join(f"{name} ({count} times)" for name, count in fired.most_common(3))
    return PassError(
        f"rewriting does not end: {busiest}",
        where=node.where,
        hint="a pattern must not match what it builds",
    )
