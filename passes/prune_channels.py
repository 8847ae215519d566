"""Channel pruning: whole channels go, so that every kernel has less to do."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from ..ir.errors import PassError, UsageError
from ..ir.graph import Graph, Node
from ..ir.op import Quantization, Stage
from ..ir.ops.matmul import Linear
from ..ir.target import IsaLevel
from .base import Exactness, Pass, PassContext
from .pruning.amounts import (
    Amount,
    ChannelAmount,
    Counts,
    Measure,
    NodeAmount,
    Ranking,
    chosen,
    count_macs,
    count_parameters,
)
from .pruning.choices import below, greedy, one_bar, same_share
from .pruning.groups import ChannelGroup, Channels, find_channels
from .pruning.importance import Evidence, Importance, gather_evidence, score_units
from .pruning.latency import modelled_latency
from .pruning.removal import remove_units
from .registry import register_pass


@register_pass
@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove the least important channels until a share of the work, the parameters or the channels is gone.

    Either ``ratio``, the share of the amount that goes, or ``threshold``: every channel with a lower score goes, where
    1 is the average of its group. ``of`` is the amount: ``macs``, ``parameters``, ``channels`` or ``latency``. Latency
    is what the context's cost model says of the target's best level, or else a roofline in which output channels come
    in tiles of the target's size, or of ``multiple`` when there is no target: modelled, not measured.

    ``scope``: ``local`` takes the same share of every group of channels that belong together; ``global`` compares the
    channels of all groups; ``greedy`` takes those that lose the least importance for the amount they save. With
    ``steps`` the share goes in so many rounds, and what is left is judged anew in each.

    ``importance``: ``l1``, ``l2``, ``geometric-median``, ``batch-norm`` or ``random`` (with ``seed``) ask the weights;
    ``taylor`` (gradients) and ``activation`` (mean magnitudes) ask the calibration data, too. Groups keep a multiple of
    ``multiple`` channels, and at least the share ``least``. ``keep`` lists shell patterns over names of layers whose
    channels stay.
    """

    ratio: float | None = None
    threshold: float | None = None
    of: Literal["macs", "parameters", "channels", "latency"] = "macs"
    scope: Literal["local", "global", "greedy"] = "local"
    importance: Importance = "l2"
    steps: int = 1
    multiple: int = 1
    least: float = 0.1
    keep: tuple[str, ...] = ()
    seed: int = 0

    name: ClassVar[str] = "prune-channels"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    def __post_init__(self) -> None:
        if self.ratio is not None and self.threshold is not None:
            raise UsageError("prune-channels takes a ratio or a threshold, and not both")
        for option in ("ratio", "least"):
            if not 0 <= (getattr(self, option) or 0) < 1:
                raise UsageError(f"prune-channels: {option}={getattr(self, option)}", expected="a share in [0, 1)")
        for option in ("multiple", "steps"):
            if getattr(self, option) < 1:
                raise UsageError(f"prune-channels: {option}={getattr(self, option)}", expected="at least 1")
        if self.threshold is not None and self.threshold <= 0:
            raise UsageError(f"prune-channels: threshold={self.threshold}", expected="above 0; 1 is the average")
        if self.threshold is not None and (self.steps > 1 or self.scope == "greedy"):
            option = "steps" if self.steps > 1 else "scope=greedy"
            raise UsageError(f"prune-channels: {option} has no meaning with a threshold", hint="give a ratio")

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Groups that cannot be shrunk are reported with the reason, and so is a share that cannot be reached.

        Raises:
            UsageError: there is neither a ratio nor a threshold.
            PassError: the graph is frozen, holds nothing that could be removed, or there is no calibration data to
                judge importance by.
        """
        if self.ratio is None and self.threshold is None:
            raise UsageError("prune-channels needs a ratio or a threshold", hint="prune-channels{ratio=0.3}")
        frozen = next((node for node in graph.nodes if node.op.stage is Stage.INTEGER), None)
        if frozen is not None:
            hint = "put prune-channels before lower-integer"
            raise PassError("channels are pruned before the freeze", where=frozen.where, hint=hint)
        channels = find_channels(graph)
        for line in _describe_fixed(graph, channels):
            context.report(line)
        if all(map(self._is_kept, channels.groups)):
            raise PassError("no channel can be removed", hint="the report above says why")
        return self._prune(graph, channels, context)

    def _prune(self, graph: Graph, channels: Channels, context: PassContext) -> bool:
        sizes = {group.axes: len(group.units) for group in channels.groups}
        multiple = self._multiple(context)
        random = np.random.default_rng(self.seed)
        before = left = self._amount(graph, channels, (), context).left(())
        removed = 0
        for step in range(1, self.steps + 1):
            evidence = gather_evidence(graph, channels, self.importance, context.calibration, random)
            free = [group for group in channels.groups if not self._is_kept(group)]
            rankings = [self._ranking(channels, group, sizes[group.axes], evidence, multiple) for group in free]
            amount = self._amount(graph, channels, rankings, context)
            counts = self._counts(rankings, amount, before * (1 - (self.ratio or 0) * (step / self.steps)))
            units, left = chosen(rankings, counts), amount.left(counts)
            remove_units(graph, channels, units)
            channels = channels.without(units)
            removed += len(units)
        if self.ratio is not None and left > before * (1 - self.ratio):
            share = 1 - left / before
            context.report(f"no more than {share:.1%} of the {self.of} can go: the other channels must stay")
        total = sum(sizes.values())
        context.report(f"{removed} of {total} channels removed; {self.of} {before:,.0f} -> {left:,.0f}")
        return removed > 0

    def _ranking(
        self, channels: Channels, group: ChannelGroup, size: int, evidence: Evidence, multiple: int
    ) -> Ranking:
        """The units of a group that had ``size`` of them in the beginning."""
        scores = score_units(channels, group, self.importance, evidence)
        order = np.argsort(scores, kind="stable")
        return Ranking(group, group.units[order], scores[order], int(np.ceil(self.least * size)), multiple)

    def _counts(self, rankings: Sequence[Ranking], amount: Amount, goal: float) -> Counts:
        if self.threshold is not None:
            return below(rankings, self.threshold)
        if self.scope == "greedy":
            return greedy(rankings, amount, goal)
        return (same_share if self.scope == "local" else one_bar)(rankings, amount.left, goal)

    def _amount(self, graph: Graph, channels: Channels, rankings: Sequence[Ranking], context: PassContext) -> Amount:
        if self.of == "channels":
            return ChannelAmount(sum(len(group.units) for group in channels.groups))
        return NodeAmount(graph, channels, rankings, self._measure(context))

    def _measure(self, context: PassContext) -> Measure:
        if self.of != "latency":
            return count_macs if self.of == "macs" else count_parameters
        return partial(context.cost or modelled_latency, level=self._level(context))

    def _level(self, context: PassContext) -> IsaLevel:
        levels = context.target.levels if context.target else ()
        return levels[-1] if levels else IsaLevel("any", (), vector_bytes=32, channel_multiple=self.multiple)

    def _multiple(self, context: PassContext) -> int:
        """Greed looks one choice ahead, and less than a tile saves nothing."""
        if self.of == "latency" and self.scope == "greedy":
            return math.lcm(self.multiple, self._level(context).channel_multiple)
        return self.multiple

    def _is_kept(self, group: ChannelGroup) -> bool:
        origins = {node.origin for value, _ in group.axes for node in [value.producer] if node}
        return any(fnmatch.fnmatchcase(origin, pattern) for origin in origins for pattern in self.keep)


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
