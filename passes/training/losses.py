"""What training minimizes: terms that compare a network with labels or with its teacher, and their weighted sum.

Every term is a function of a :class:`Step`; a new one is registered by name in :data:`TERMS`.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...ir.errors import UsageError
from ...ir.graph import Graph, Value
from ...ir.op import operand_index
from ...ir.ops.norm import BatchNorm
from ...ir.types import DType
from ..pruning.groups import find_channels

_TINY = 1e-24


@dataclass(frozen=True)
class Step:
    """One batch as the network, and perhaps its teacher, saw it.

    ``logits`` and ``teacher`` are the first outputs; ``features`` and ``teacher_features`` hold values inside by name.
    """

    logits: torch.Tensor
    labels: torch.Tensor | None = None
    teacher: torch.Tensor | None = None
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)
    teacher_features: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Term(nn.Module, ABC):
    """A part of the loss; its own parameters, a projection for example, train along."""

    needs_teacher = False
    features: tuple[tuple[str, str], ...] = ()
    """Pairs of value names: in the network, and in the teacher."""
    inside: tuple[str, ...] = ()
    """Names of more values in the network: weights, for example. A step has them among its features."""

    @classmethod
    def make(cls, options: Mapping[str, Any], own: Graph, teacher: Graph | None) -> Term:
        """The term for two graphs; ``options`` are the constructor's arguments."""
        return cls(**options)

    @abstractmethod
    def forward(self, step: Step) -> torch.Tensor:
        """The loss of one batch, a scalar."""


class CrossEntropy(Term):
    """Cross-entropy with class labels; ``smoothing`` gives the other classes a share."""

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, step: Step) -> torch.Tensor:
        return F.cross_entropy(step.logits, _labels(step), label_smoothing=self.smoothing)


class MeanSquaredError(Term):
    """Mean squared error with targets of the output's shape."""

    def forward(self, step: Step) -> torch.Tensor:
        return F.mse_loss(step.logits, _labels(step))


class SoftLabels(Term):
    """Kullback-Leibler divergence from the teacher's softened classes, times temperature squared.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """

    needs_teacher = True

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, step: Step) -> torch.Tensor:
        own = F.log_softmax(step.logits / self.temperature, -1)
        wanted = F.log_softmax(_teacher(step) / self.temperature, -1)
        return F.kl_div(own, wanted, reduction="batchmean", log_target=True) * self.temperature**2


class Logits(Term):
    """Mean squared error with the teacher's first output."""

    needs_teacher = True

    def forward(self, step: Step) -> torch.Tensor:
        return F.mse_loss(step.logits, _teacher(step))


class Features(Term):
    """Mean squared error with values inside the teacher, through a learned projection where the channels differ.

    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015. Channels are on axis 1 of images and last of
    sequences; the projection is a linear map of them.
    """

    needs_teacher = True

    def __init__(self, pairs: Sequence[tuple[str, str]], channels: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.features = tuple(pairs)
        self.projections = nn.ModuleList(
            nn.Identity() if own == theirs else nn.Linear(own, theirs, bias=False) for own, theirs in channels
        )

    @classmethod
    def make(cls, options: Mapping[str, Any], own: Graph, teacher: Graph | None) -> Term:
        assert teacher is not None
        pairs = options["pairs"]
        return cls(pairs, [(_channels(own, a), _channels(teacher, b)) for a, b in pairs])

    def forward(self, step: Step) -> torch.Tensor:
        losses = [
            F.mse_loss(projection(_last(step.features[own])), _last(step.teacher_features[theirs]))
            for projection, (own, theirs) in zip(self.projections, self.features, strict=True)
        ]
        return torch.stack(losses).mean()


class Attention(Term):
    """Distance of normalized maps of activation energy (Zagoruyko, Komodakis, "Paying More Attention to Attention")."""

    needs_teacher = True

    def __init__(self, pairs: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.features = tuple(pairs)

    @classmethod
    def make(cls, options: Mapping[str, Any], own: Graph, teacher: Graph | None) -> Term:
        assert teacher is not None
        for graph, name in [(own, a) for a, _ in options["pairs"]] + [(teacher, b) for _, b in options["pairs"]]:
            if find_value(graph, name).type.rank < 3:
                raise UsageError(f"value {name!r} has no places, channels alone", hint="compare it by loss features")
        return cls(**options)

    def forward(self, step: Step) -> torch.Tensor:
        losses = [
            F.mse_loss(_energy(step.features[own]), _energy(step.teacher_features[theirs]), reduction="sum")
            / len(step.logits)
            for own, theirs in self.features
        ]
        return torch.stack(losses).mean()


class L1(Term):
    """Sum of magnitudes of the weights of all channels that could be pruned.

    With ``scales`` that of the factors of batch normalization instead: Liu et al., "Learning Efficient Convolutional
    Networks through Network Slimming" (ICCV 2017), for ``prune-channels{importance=batch-norm}``.
    """

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.inside = tuple(names)

    @classmethod
    def make(cls, options: Mapping[str, Any], own: Graph, teacher: Graph | None) -> Term:
        scales: bool = dict(options).pop("scales", False)
        if extra := set(options) - {"scales"}:
            raise TypeError(f"unexpected options {', '.join(sorted(extra))}")
        values = (value for group in find_channels(own).groups for value, _ in group.parameters)
        is_wanted = _is_scale if scales else _is_weight
        names = dict.fromkeys(value.name for value in values if is_wanted(value))
        if not names:
            raise UsageError(f"loss l1 finds no {'scales' if scales else 'weights'} of channels that could be pruned")
        return cls(tuple(names))

    def forward(self, step: Step) -> torch.Tensor:
        return torch.stack([step.features[name].abs().sum() for name in self.inside]).sum()


class GroupLasso(Term):
    """Sum, over all channels that could be pruned, of the Euclidean norm of the weights that would go with each.

    Wen et al., "Learning Structured Sparsity in Deep Neural Networks" (NeurIPS 2016), over the groups of Fang et al.,
    "DepGraph" (CVPR 2023): filters and what reads them fade together, until ``prune-channels`` loses nothing.
    """

    def __init__(self, places: Sequence[tuple[str, int, torch.Tensor]], units: int) -> None:
        """``places``: name of a weight, axis, and the number (int64) of each index: ``units`` for no unit."""
        super().__init__()
        self.inside = tuple(name for name, _, _ in places)
        self.axes = [axis for _, axis, _ in places]
        self.units = units
        for position, (_, _, numbers) in enumerate(places):
            self.register_buffer(f"numbers{position}", numbers, persistent=False)

    @classmethod
    def make(cls, options: Mapping[str, Any], own: Graph, teacher: Graph | None) -> Term:
        if options:
            raise TypeError(f"unexpected options {', '.join(sorted(options))}")
        channels = find_channels(own)
        units = np.concatenate([np.zeros(0, np.int64), *(group.units for group in channels.groups)])
        number_of = {int(unit): number for number, unit in enumerate(units)}
        axes = dict.fromkeys(axis for group in channels.groups for axis in group.parameters if _is_weight(axis[0]))
        if not axes:
            raise UsageError("loss group-lasso finds no channels that could be pruned")
        places = []
        for value, axis in axes:
            numbers = [number_of.get(int(unit), len(units)) for unit in channels.unit_of[value, axis]]
            places.append((value.name, axis, torch.tensor(numbers)))
        return cls(places, len(units))

    def forward(self, step: Step) -> torch.Tensor:
        squares = torch.zeros(self.units + 1)
        for position, (name, axis) in enumerate(zip(self.inside, self.axes, strict=True)):
            rows = step.features[name].movedim(axis, 0).flatten(1).square().sum(1)
            squares = squares.index_add(0, self.get_buffer(f"numbers{position}"), rows)
        # The norm has no gradient at zero, where it should stay: the bound lets none through.
        return squares[: self.units].clamp(min=_TINY).sqrt().sum()


TERMS: dict[str, type[Term]] = {
    "cross-entropy": CrossEntropy,
    "mse": MeanSquaredError,
    "soft-labels": SoftLabels,
    "logits": Logits,
    "features": Features,
    "attention": Attention,
    "l1": L1,
    "group-lasso": GroupLasso,
}


def make_term(name: str, options: Mapping[str, Any], own: Graph, teacher: Graph | None) -> Term:
    """The term called ``name`` for a network and its teacher.

    Raises:
        UsageError: no such term, it does not take these options, or it wants a teacher and there is none.
    """
    if name not in TERMS:
        close = difflib.get_close_matches(name, TERMS, 1)
        hint = f"did you mean {close[0]}?" if close else None
        raise UsageError(f"no loss is named {name!r}", expected=f"one of {', '.join(TERMS)}", hint=hint)
    if TERMS[name].needs_teacher and teacher is None:
        raise UsageError(f"loss {name} compares with a teacher, and there is none")
    try:
        return TERMS[name].make(options, own, teacher)
    except (TypeError, KeyError) as error:
        raise UsageError(f"loss {name}: {error}") from error


class Loss(nn.Module):
    """The weighted sum of terms."""

    def __init__(self, terms: Mapping[str, Term], weights: Mapping[str, float]) -> None:
        super().__init__()
        self.terms = nn.ModuleDict({name.replace("-", "_"): term for name, term in terms.items()})
        self.weights = {name.replace("-", "_"): weights[name] for name in terms}

    def forward(self, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The sum, and what each term was before its weight."""
        values = {name: term(step) for name, term in self.terms.items()}
        total = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return total, {name.replace("_", "-"): float(value.detach()) for name, value in values.items()}


def _is_weight(value: Value) -> bool:
    return value.type.rank > 1 and value.type.dtype is DType.F32


def _is_scale(value: Value) -> bool:
    position = operand_index(BatchNorm, "scale")
    return any(isinstance(node.op, BatchNorm) and place == position for node, place in value.uses)


def _labels(step: Step) -> torch.Tensor:
    if step.labels is None:
        raise UsageError("the loss needs labels, and the data has none")
    return step.labels


def _teacher(step: Step) -> torch.Tensor:
    if step.teacher is None:
        raise UsageError("the loss needs a teacher, and there is none")
    return step.teacher


def find_value(graph: Graph, name: str) -> Value:
    """The value called ``name``, or the result of the node that the user calls so.

    Raises:
        UsageError: there is none; close names are listed.
    """
    known = {value.name: value for value in graph.values()}
    known |= {node.origin: node.outputs[0] for node in graph.nodes if node.origin}
    if name not in known:
        close = difflib.get_close_matches(name, known, 3)
        raise UsageError(f"no value is named {name!r}", hint=f"did you mean {' or '.join(close)}?" if close else None)
    return known[name]


def _channels(graph: Graph, name: str) -> int:
    shape = find_value(graph, name).type.shape
    size = shape[1] if len(shape) == 4 else shape[-1]
    if not isinstance(size, int):
        raise UsageError(f"value {name!r} has an unknown number of channels")
    return size


def _last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1) if x.ndim == 4 else x


def _energy(x: torch.Tensor) -> torch.Tensor:
    """The mean square over channels, normalized over the places of each sample."""
    return F.normalize(_last(x).square().mean(-1).flatten(1), dim=1)
