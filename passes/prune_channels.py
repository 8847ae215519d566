"""Channel pruning: whole channels go, so that every kernel has less to do."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from ..ir.errors import PassError, UsageError
from ..ir.graph import Graph, Node
from ..ir.op import Quantization, Stage
from ..ir.ops.constant import Constant
from ..ir.ops.matmul import Linear
from ..ir.types import TensorType
from .base import Exactness, Pass, PassContext
from .pruning.groups import ChannelGroup, Channels, find_channels
from .pruning.importance import score_units
from .pruning.removal import remove_units
from .registry import register_pass

STEPS = 24
"""How often the search for the right amount halves its interval."""


@register_pass
@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove the least important channels until a share of the work, the parameters or the channels is gone.

    ``ratio`` is that share, ``of`` what it is a share of. ``scope``: ``local`` takes the same share of every group of
    channels that belong together, ``global`` compares channels of all groups. ``importance``: ``l1``, ``l2``,
    ``geometric-median``, ``batch-norm`` or ``random`` (with ``seed``). Groups keep a multiple of ``multiple`` channels,
    and at least the share ``least``. ``keep`` lists shell patterns over names of layers whose channels stay.
    """

    ratio: float
    of: Literal["macs", "parameters", "channels"] = "macs"
    scope: Literal["local", "global"] = "local"
    importance: Literal["l1", "l2", "geometric-median", "batch-norm", "random"] = "l2"
    multiple: int = 1
    least: float = 0.1
    keep: tuple[str, ...] = ()
    seed: int = 0

    name: ClassVar[str] = "prune-channels"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    def __post_init__(self) -> None:
        for option in ("ratio", "least"):
            if not 0 <= getattr(self, option) < 1:
                raise UsageError(f"prune-channels: {option}={getattr(self, option)}", expected="a share in [0, 1)")
        if self.multiple < 1:
            raise UsageError(f"prune-channels: multiple={self.multiple}", expected="at least 1")

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Groups that cannot be shrunk are reported with the reason.

        Raises:
            PassError: the graph is frozen, or holds nothing that could be removed.
        """
        frozen = next((node for node in graph.nodes if node.op.stage is Stage.INTEGER), None)
        if frozen is not None:
            hint = "put prune-channels before lower-integer"
            raise PassError("channels are pruned before the freeze", where=frozen.where, hint=hint)
        channels = find_channels(graph)
        for line in _describe_fixed(graph, channels):
            context.report(line)
        groups = [group for group in channels.groups if not self._is_kept(group)]
        if not groups:
            raise PassError("no channel can be removed", hint="the report above says why")
        order = self._order(channels, groups)
        before = _amount(graph, self.of)
        amount = self._search(graph, channels, order, before)
        units = self._chosen(order, amount)
        if not len(units):
            return False
        remove_units(graph, channels, units)
        total = sum(len(group.units) for group in channels.groups)
        after = _amount(graph, self.of)
        context.report(f"{len(units)} of {total} channels removed; {self.of} {before:,} -> {after:,}")
        return True

    def _is_kept(self, group: ChannelGroup) -> bool:
        origins = {node.origin for value, _ in group.axes for node in [value.producer] if node}
        return any(fnmatch.fnmatchcase(origin, pattern) for origin in origins for pattern in self.keep)

    def _order(self, channels: Channels, groups: Sequence[ChannelGroup]) -> list[tuple[np.ndarray, np.ndarray]]:
        """The units of each group, least important first, and their scores."""
        random = np.random.default_rng(self.seed)
        found = []
        for group in groups:
            scores = score_units(channels, group, self.importance, random)
            ranking = np.argsort(scores, kind="stable")
            found.append((group.units[ranking], scores[ranking]))
        return found

    def _chosen(self, order: Sequence[tuple[np.ndarray, np.ndarray]], amount: float) -> np.ndarray:
        """The units that go at ``amount``: a share of every group, or all scores up to that quantile."""
        if self.scope == "global":
            bar = np.quantile(np.concatenate([scores for _, scores in order]), amount)
            counts = [int(np.count_nonzero(scores < bar)) for _, scores in order]
        else:
            counts = [int(amount * len(units)) for units, _ in order]
        chosen = [units[: self._allowed(count, len(units))] for count, (units, _) in zip(counts, order, strict=True)]
        return np.concatenate(chosen)

    def _allowed(self, count: int, size: int) -> int:
        """At most ``count`` such that what remains is a multiple, and not less than the least."""
        left = max(size - count, int(np.ceil(self.least * size)), 1)
        left = min(-(-left // self.multiple) * self.multiple, size)
        return size - left

    def _search(
        self, graph: Graph, channels: Channels, order: Sequence[tuple[np.ndarray, np.ndarray]], before: int
    ) -> float:
        """The smallest amount that removes at least the wanted share, or else the largest there is."""
        low, high = 0.0, 1.0
        known: dict[int, int] = {}
        for _ in range(STEPS):
            middle = (low + high) / 2
            units = self._chosen(order, middle)
            if len(units) not in known:
                known[len(units)] = self._left(graph, channels, units)
            if known[len(units)] <= (1 - self.ratio) * before:
                high = middle
            else:
                low = middle
        return high

    def _left(self, graph: Graph, channels: Channels, units: np.ndarray) -> int:
        if self.of == "channels":
            return _amount(graph, self.of) - len(units)
        trial = graph.clone()
        remove_units(trial, find_channels(trial), units)
        return _amount(trial, self.of)


def _amount(graph: Graph, of: str) -> int:
    if of == "parameters":
        return sum(node.output.type.size for node in graph.nodes if isinstance(node.op, Constant))
    if of == "channels":
        return sum(len(group.units) for group in find_channels(graph).groups)
    single = graph.clone(inputs={value.name: _of_one(value.type) for value in graph.inputs})
    return sum(n.op.cost([v.type for v in n.inputs], [v.type for v in n.outputs]).macs for n in single.nodes)


def _of_one(type: TensorType) -> TensorType:
    """The type with 1 for every unknown dimension, such as the batch's."""
    return type.with_shape(tuple(size if isinstance(size, int) else 1 for size in type.shape))


def _describe_fixed(graph: Graph, channels: Channels) -> list[str]:
    """A line for each weighted node whose channels all stay, with the reason."""
    lines = []
    for node in graph.nodes:
        if node.op.rule is Quantization.WEIGHTED:
            reason = _why_fixed(node, channels)
            if reason:
                lines.append(f"{node.where} keeps its channels: {reason}")
    return lines


def _why_fixed(node: Node, channels: Channels) -> str | None:
    axis = node.output.type.rank - 1 if isinstance(node.op, Linear) else 1
    units = channels.unit_of.get((node.output, axis), np.zeros(0, np.int64))
    reasons = [channels.reasons.get(int(unit)) for unit in units]
    return reasons[0] if reasons and None not in reasons else None
