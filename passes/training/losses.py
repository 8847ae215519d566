"""What training minimizes: terms that compare a network with labels or with its teacher, and their weighted sum.

Every term is a function of a :class:`Step`; a new one is registered by name in :data:`TERMS`.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ...ir.errors import UsageError
from ...ir.graph import Graph, Value


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


TERMS: dict[str, type[Term]] = {
    "cross-entropy": CrossEntropy,
    "mse": MeanSquaredError,
    "soft-labels": SoftLabels,
    "logits": Logits,
    "features": Features,
    "attention": Attention,
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
