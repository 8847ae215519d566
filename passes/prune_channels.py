"""Channel pruning: whole channels go, so that every kernel has less to do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal

import numpy as np

from ..ir.errors import PassError, UsageError
from ..ir.graph import Graph, Node, Value
from ..ir.op import Quantization, Stage
from ..ir.target import IsaLevel
from .base import Exactness, Pass, PassContext
from .eliminate_dead import EliminateDead
from .names import check_patterns, is_named
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
from .pruning.choices import below, greedy, in_one_order, same_share
from .pruning.groups import Axis, ChannelGroup, Channels, channel_axis, find_channels, stored_values
from .pruning.importance import Evidence, Importance, gather_evidence, score_units
from .pruning.latency import modelled_latency
from .pruning.removal import remove_units
from .registry import register_pass

Axes = tuple[Axis, ...]
"""What tells a group from the others, also when it has lost some of its units."""


@register_pass
@dataclass(frozen=True)
class PruneChannels(Pass):
    """Remove the least important channels until a share of the work, the parameters or the channels is gone.

    Either ``ratio``, the share of the amount that goes, or ``threshold``: every channel with a lower score goes, where
    1 is the average of its group. ``of`` is the amount: ``macs``, ``parameters``, ``channels`` or ``latency``. Latency
    is what the context's cost model says of the target's best level, or else a roofline in which output channels come
    in tiles of the target's size, or of ``multiple`` when there is no target: modelled, not measured.

    ``scope``: ``local`` takes the same share of every group of channels that belong together; ``global`` compares the
    channels of all groups, and takes equal ones from all groups alike; ``greedy`` takes those that lose the least
    importance for the amount they save. With ``steps`` (up to 1000) the share goes in so many rounds, and what is left
    is judged anew in each.

    ``importance``: ``l1``, ``l2``, ``geometric-median``, ``batch-norm`` or ``random`` (with ``seed``) ask the weights;
    ``taylor`` (gradients) and ``activation`` (mean magnitudes) ask the calibration data, too. Layers keep
    of every group a multiple of ``multiple`` output channels, which may take several heads, or none go from it; and
    groups keep at least the share ``least``. ``keep`` lists shell patterns over names of layers whose output channels
    stay. What no output depends on is removed and does not count.
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
        for option, (low, high) in {"multiple": (1, 65536), "steps": (1, 1000), "seed": (0, 2**63)}.items():
            if not low <= getattr(self, option) <= high:
                raise UsageError(f"prune-channels: {option}={getattr(self, option)}", expected=f"{low} to {high}")
        if self.threshold is not None and not self.threshold > 0:
            raise UsageError(f"prune-channels: threshold={self.threshold}", expected="above 0; 1 is the average")
        if self.threshold is not None and (self.steps > 1 or self.scope == "greedy"):
            option = "steps" if self.steps > 1 else "scope=greedy"
            raise UsageError(f"prune-channels: {option} has no meaning with a threshold", hint="give a ratio")

    def apply(self, graph: Graph, context: PassContext) -> bool:
        """Groups that cannot be shrunk are reported with the reason, and so is a share that cannot be reached.

        Raises:
            UsageError: there is neither a ratio nor a threshold, or ``keep`` names no layer.
            PassError: the graph is frozen, holds nothing that could be removed, or there is no calibration data to
                judge importance by.
        """
        if self.ratio is None and self.threshold is None:
            raise UsageError("prune-channels needs a ratio or a threshold", hint="prune-channels{ratio=0.3}")
        frozen = next((node for node in graph.nodes if node.op.stage is Stage.INTEGER), None)
        if frozen is not None:
            hint = "put prune-channels before lower-integer"
            raise PassError("channels are pruned before the freeze", where=frozen.where, hint=hint)
        check_patterns(graph, self.keep, "prune-channels: keep")
        EliminateDead().apply(graph, context)
        channels = find_channels(graph)
        kept = self._kept(graph, channels)
        for line in _describe_fixed(graph, channels, kept):
            context.report(line)
        if all(group.axes in kept for group in channels.groups):
            raise PassError("no channel can be removed", hint="the report above says why")
        return self._prune(graph, channels, kept, context)

    def _prune(self, graph: Graph, channels: Channels, kept: Mapping[Axes, str], context: PassContext) -> bool:
        sizes = {group.axes: len(group.units) for group in channels.groups}
        multiples = _multiples(graph, channels, self._multiple(context))
        random = np.random.default_rng(self.seed)
        before = left = self._amount(graph, channels, (), context).left(())
        removed = 0
        for step in range(1, self.steps + 1):
            evidence = gather_evidence(graph, channels, self.importance, context.calibration, random)
            rankings = [
                self._ranking(channels, group, sizes[group.axes], evidence, multiples[group.axes])
                for group in channels.groups
                if group.axes not in kept
            ]
            amount = self._amount(graph, channels, rankings, context)
            counts = self._counts(rankings, amount, self._goal(before, step))
            units, left = chosen(rankings, counts), amount.left(counts)
            remove_units(graph, channels, units)
            channels = channels.without(units)
            removed += len(units)
        if self.ratio is not None and left > self._goal(before, self.steps):
            share = 1 - left / before
            context.report(f"no more than {share:.1%} of the {self.of} can go: the other channels must stay")
        total = sum(sizes.values())
        context.report(f"{removed} of {total} channels removed; {self.of} {before:,.0f} -> {left:,.0f}")
        return removed > 0

    def _goal(self, before: float, step: int) -> float:
        """What may be left after a round; a little more, since 1 - 0.9 is less than 0.1."""
        return before * (1 - (self.ratio or 0) * (step / self.steps) + 1e-12)

    def _ranking(
        self, channels: Channels, group: ChannelGroup, size: int, evidence: Evidence, multiple: int
    ) -> Ranking:
        """The units of a group that had ``size`` of them in the beginning."""
        scores = score_units(channels, group, self.importance, evidence)
        order = np.argsort(scores, kind="stable")
        # 0.55 * 20 is a little more than 11.
        floor = math.ceil(self.least * size - 1e-9)
        return Ranking(group, group.units[order], scores[order], floor, multiple)

    def _counts(self, rankings: Sequence[Ranking], amount: Amount, goal: float) -> Counts:
        if self.threshold is not None:
            return below(rankings, self.threshold)
        if self.scope == "greedy":
            return greedy(rankings, amount, goal)
        return (same_share if self.scope == "local" else in_one_order)(rankings, amount.left, goal)

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

    def _kept(self, graph: Graph, channels: Channels) -> dict[Axes, str]:
        """The groups that ``keep`` holds, with the reason."""
        stored = stored_values(graph)
        kept: dict[Axes, str] = {}
        for group in channels.groups:
            asked = next((node for node in _makers(group, stored) if is_named(node, self.keep)), None)
            if asked is not None:
                kept[group.axes] = f"{asked.where} is kept by request"
        return kept


def _makers(group: ChannelGroup, stored: set[Value]) -> Iterator[Node]:
    """The nodes whose layers have the channels of a group as their result.

    Other axes of a result than that of its channels come from the layer before. A layer may also turn or pad for itself
    what that made: such a node has no weights with these channels, and nobody else reads it.
    """
    weights = {value for value, _ in group.axes if value in stored}
    for value, axis in group.axes:
        node = value.producer
        if node is None or value in stored:
            continue
        made = channel_axis(node, stored)
        read = any(user.where != node.where for user in value.users)
        if made == (value, axis) or (made is None and (read or not weights.isdisjoint(node.inputs))):
            yield node


def _multiples(graph: Graph, channels: Channels, multiple: int) -> dict[Axes, int]:
    """Of how many units each group keeps a multiple, so that layers make a multiple of ``multiple`` channels of it.

    A unit may be several channels of a layer: a head, or the same place in each group of a convolution.
    """
    stored = stored_values(graph)
    made = {channel_axis(node, stored) for node in graph.nodes}
    sizes = {group.axes: _channels_of_units(channels, group, made) for group in channels.groups}
    return {axes: math.lcm(*(multiple // math.gcd(multiple, size) for size in found)) for axes, found in sizes.items()}


def _channels_of_units(channels: Channels, group: ChannelGroup, made: set[Axis | None]) -> list[int]:
    """How many channels a unit of a group is, for every layer that makes some; 1 where none does."""
    counts = [np.unique(channels.unit_of[axis], return_counts=True) for axis in group.axes if axis in made]
    return [int(np.gcd.reduce(count[np.isin(units, group.units)])) for units, count in counts] or [1]


def _describe_fixed(graph: Graph, channels: Channels, kept: Mapping[Axes, str]) -> list[str]:
    """A line for each weighted node whose channels all stay, with the reason."""
    asked = {int(unit): kept[group.axes] for group in channels.groups if group.axes in kept for unit in group.units}
    lines = []
    for node in graph.nodes:
        if node.op.rule is Quantization.WEIGHTED:
            reason = _why_fixed(node, channels, asked)
            if reason:
                lines.append(f"{node.where} keeps its channels: {reason}")
    return lines


def _why_fixed(node: Node, channels: Channels, asked: Mapping[int, str]) -> str | None:
    axis = channel_axis(node, set())
    units = channels.unit_of.get(axis, np.zeros(0, np.int64)) if axis else ()
    reasons = [channels.reasons.get(int(unit)) or asked.get(int(unit)) for unit in units]
    return reasons[0] if reasons and None not in reasons else None
