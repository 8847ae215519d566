"""What training minimizes: terms that compare a network with labels or with its teacher, and their weighted sum.

Every term is a function of a :class:`Step`; a new one is registered by name in :data:`TERMS`.
"""

from __future__ import annotations

import difflib
import math
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
from ...ir.types import DType, Shape, format_shape
from ..analysis import is_norm_scale
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
        """The term for two graphs; ``options`` are the constructor's arguments.

        Raises:
            UsageError: an option means nothing for these graphs, or the outputs of network and teacher differ in shape.
        """
        if cls.needs_teacher:
            _check_outputs(own, teacher)
        return cls(**options)

    @abstractmethod
    def forward(self, step: Step) -> torch.Tensor:
        """The loss of one batch, a scalar."""


class CrossEntropy(Term):
    """Cross-entropy with class labels, the mean over all of them; ``smoothing`` gives the other classes a share.

    :func:`class_axis` says which axis of the output counts classes. Labels may be floats as well: chances of classes,
    in the output's shape, with classes on axis 1.
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        if not (_is_number(smoothing) and 0 <= smoothing < 1):
            raise UsageError(f"smoothing is {smoothing!r}", expected="a number from 0, below 1")
        self.smoothing = smoothing

    def forward(self, step: Step) -> torch.Tensor:
        labels = _labels(step)
        axis = 1 if labels.is_floating_point() else class_axis(step.logits.shape, labels.shape)
        return F.cross_entropy(step.logits.movedim(axis, 1), labels, label_smoothing=self.smoothing)


class MeanSquaredError(Term):
    """Mean squared error with targets of the output's shape."""

    def forward(self, step: Step) -> torch.Tensor:
        return _mean_squared_error(step.logits, _labels(step))


class SoftLabels(Term):
    """Kullback-Leibler divergence from the teacher's softened classes, times temperature squared.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015. The mean over all places where the
    output tells classes apart: on the axis that the labels say (:func:`class_axis`). Without class labels it is axis 1
    of images and the last one of all else.
    """

    needs_teacher = True

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        if not (_is_number(temperature) and temperature > 0):
            raise UsageError(f"temperature is {temperature!r}", expected="a number above 0")
        self.temperature = temperature

    def forward(self, step: Step) -> torch.Tensor:
        labels, rank = step.labels, step.logits.ndim
        if labels is not None and not labels.is_floating_point():
            axis = class_axis(step.logits.shape, labels.shape)
        else:
            axis = 1 if rank > 3 else rank - 1
        own = F.log_softmax(step.logits / self.temperature, axis)
        wanted = F.log_softmax(_teacher(step) / self.temperature, axis)
        places = own.numel() // own.shape[axis]
        return F.kl_div(own, wanted, reduction="sum", log_target=True) / places * self.temperature**2


class Logits(Term):
    """Mean squared error with the teacher's first output."""

    needs_teacher = True

    def forward(self, step: Step) -> torch.Tensor:
        return _mean_squared_error(step.logits, _teacher(step))


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
        found = _find_pairs(options, own, teacher)
        return cls(tuple(found), [(_channels(one), _channels(other)) for one, other in found.values()])

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
        found = _find_pairs(options, own, teacher)
        for value in (value for pair in found.values() for value in pair):
            if value.type.rank < 3:
                raise UsageError(
                    f"value {value.name!r} has no places, channels alone", hint="compare it by loss features"
                )
        return cls(tuple(found))

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
        scales = options.get("scales", False)
        _check_options(options, ("scales",))
        if not isinstance(scales, bool):
            raise UsageError(f"scales is {scales!r}", expected="true or false")
        values = (value for group in find_channels(own).groups for value, _ in group.parameters)
        is_wanted = is_norm_scale if scales else _is_weight
        names = dict.fromkeys(f"%{value.name}" for value in values if is_wanted(value))
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
        _check_options(options, ())
        channels = find_channels(own)
        units = np.concatenate([np.zeros(0, np.int64), *(group.units for group in channels.groups)])
        number_of = {int(unit): number for number, unit in enumerate(units)}
        axes = dict.fromkeys(axis for group in channels.groups for axis in group.parameters if _is_weight(axis[0]))
        if not axes:
            raise UsageError("loss group-lasso finds no channels that could be pruned")
        places = []
        for value, axis in axes:
            numbers = [number_of.get(int(unit), len(units)) for unit in channels.unit_of[value, axis]]
            places.append((f"%{value.name}", axis, torch.tensor(numbers)))
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
        UsageError: no such term, it does not take these options or values of them, it names values that the network
            or its teacher does not have, or it wants a teacher and there is none.
    """
    if name not in TERMS:
        close = difflib.get_close_matches(name, TERMS, 1)
        hint = f"did you mean {close[0]}?" if close else None
        raise UsageError(f"no loss is named {name!r}", expected=f"one of {', '.join(TERMS)}", hint=hint)
    if TERMS[name].needs_teacher and teacher is None:
        raise UsageError(f"loss {name} compares with a teacher, and there is none")
    try:
        return TERMS[name].make(options, own, teacher)
    except UsageError as error:
        raise UsageError(f"loss {name}: {error.what}", expected=error.expected, hint=error.hint) from error
    except TypeError as error:
        raise UsageError(f"loss {name}: {error}") from error


class Loss(nn.Module):
    """The weighted sum of terms.

    Raises:
        UsageError: a weight is negative or no finite number.
    """

    def __init__(self, terms: Mapping[str, Term], weights: Mapping[str, float]) -> None:
        super().__init__()
        for name in terms:
            if not (_is_number(weights[name]) and weights[name] >= 0):
                raise UsageError(f"the weight of loss {name} is {weights[name]!r}", expected="a number from 0")
        self.terms = nn.ModuleDict({name.replace("-", "_"): term for name, term in terms.items()})
        self.weights = {name.replace("-", "_"): weights[name] for name in terms}

    def forward(self, step: Step) -> tuple[torch.Tensor, dict[str, float]]:
        """The sum, and what each term was before its weight."""
        values = {name: term(step) for name, term in self.terms.items()}
        total = torch.stack([self.weights[name] * value for name, value in values.items()]).sum()
        return total, {name.replace("_", "-"): float(value.detach()) for name, value in values.items()}


# Outputs and labels ------------------------------------------------------------------------------------------------


def class_axis(outputs: Shape, labels: Shape) -> int:
    """The axis of outputs that counts classes, for labels of one class each; it is axis 1 or the last one.

    The labels decide: without that axis, the shape of the outputs is theirs. ``[n, c]`` goes with labels ``[n]``, as
    ``[n, c, h, w]`` does with ``[n, h, w]`` and ``[n, t, c]`` with ``[n, t]``. Names of dimensions stand for any size.

    Raises:
        UsageError: the shapes do not fit, or both axes would do.
    """
    last = len(outputs) - 1
    fitting = {
        axis for axis in (1, last) if 0 < axis <= last and shapes_fit(outputs[:axis] + outputs[axis + 1 :], labels)
    }
    shown = f"class labels of shape {format_shape(labels)} and an output of shape {format_shape(outputs)}"
    if not fitting:
        raise UsageError(
            f"{shown} do not fit", expected="the output to have one axis more, for classes: axis 1 or the last one"
        )
    if len(fitting) > 1:
        raise UsageError(
            f"{shown} do not say whether axis 1 or axis {last} counts classes",
            hint="an output with one class more, which no label names, tells them apart",
        )
    return fitting.pop()


def shapes_fit(one: Shape, other: Shape) -> bool:
    """Whether shapes may be equal: names of dimensions stand for any size."""
    return len(one) == len(other) and all(
        a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in zip(one, other, strict=True)
    )


def right_classes(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Where the largest output is that of the labelled class, ``bool`` in the shape of the labels (integers).

    Raises:
        UsageError: the shapes do not fit.
    """
    return outputs.argmax(class_axis(outputs.shape, labels.shape)) == labels


def squared_errors(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Squared differences, element by element.

    Raises:
        UsageError: the shapes differ; nothing is broadcast.
    """
    _check_same(outputs, targets)
    return torch.square(outputs - targets)


def _mean_squared_error(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    _check_same(outputs, targets)
    return F.mse_loss(outputs, targets)


def _check_same(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    if outputs.shape != targets.shape:
        shown = f"targets of shape {format_shape(targets.shape)}"
        raise UsageError(f"{shown} for an output of shape {format_shape(outputs.shape)}", expected="the same shape")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_weight(value: Value) -> bool:
    return value.type.rank > 1 and value.type.dtype is DType.F32


def _labels(step: Step) -> torch.Tensor:
    if step.labels is None:
        raise UsageError("the loss needs labels, and the data has none")
    return step.labels


def _teacher(step: Step) -> torch.Tensor:
    if step.teacher is None:
        raise UsageError("the loss needs a teacher, and there is none")
    return step.teacher


def find_value(graph: Graph, name: str, owner: str = "network") -> Value:
    """The result of the node that the user calls ``name``, or else the value called so, for which ``%name`` is exact.

    Messages call the graph ``owner``.

    Raises:
        UsageError: there is none; close names are listed.
    """
    known = {value.name: value for value in graph.values()}
    known |= {f"%{name}": value for name, value in known.items()}
    known |= {node.origin: node.outputs[0] for node in graph.nodes if node.origin}
    if name not in known:
        close = difflib.get_close_matches(name, known, 3)
        layers = list(dict.fromkeys(node.origin for node in graph.nodes if node.origin))
        raise UsageError(
            f"no value is named {name!r} in the {owner}",
            expected=f"a layer such as {', '.join(layers[:5])}" if layers and not close else None,
            hint=f"did you mean {' or '.join(close)}?" if close else None,
        )
    return known[name]


# Options of terms --------------------------------------------------------------------------------------------------


def _check_options(options: Mapping[str, Any], known: Sequence[str]) -> None:
    if extra := set(options) - set(known):
        raise UsageError(f"unexpected options {', '.join(sorted(extra))}")


def _check_outputs(own: Graph, teacher: Graph | None) -> None:
    """What is compared has one shape, but for the batch."""
    assert teacher is not None
    mine, theirs = (graph.outputs[0].type for graph in (own, teacher))
    if not shapes_fit(mine.shape[1:], theirs.shape[1:]):
        raise UsageError(f"the teacher's output is {theirs}", expected=f"{mine}, as for the network")


def _find_pairs(
    options: Mapping[str, Any], own: Graph, teacher: Graph | None
) -> dict[tuple[str, str], tuple[Value, Value]]:
    """The values of both graphs that the option ``pairs`` names: such as differ in channels alone."""
    assert teacher is not None
    _check_options(options, ("pairs",))
    pairs: Any = options.get("pairs")
    if not are_pairs(pairs):
        raise UsageError(f"pairs is {pairs!r}", expected='names of values, for example [["layer1", "blocks.0"]]')
    found = {(a, b): (find_value(own, a), find_value(teacher, b, "teacher")) for a, b in pairs}
    for one, other in found.values():
        for value in (one, other):
            if value.type.rank < 2 or not value.type.dtype.is_float:
                raise UsageError(f"value {value.name!r} is {value.type}", expected="floats, channels of each sample")
        if one.type.rank != other.type.rank or not shapes_fit(_places(one.type.shape), _places(other.type.shape)):
            raise UsageError(
                f"values {one.name!r} and {other.name!r} have different places: {one.type} and {other.type}",
                expected="pairs that differ in channels alone",
            )
    return found


def are_pairs(value: object) -> bool:
    """Whether these are pairs of names, at least one."""
    return (
        isinstance(value, list | tuple)
        and len(value) > 0
        and all(isinstance(p, list | tuple) and len(p) == 2 and all(isinstance(n, str) for n in p) for p in value)
    )


def _places(shape: Shape) -> Shape:
    """The axes between batch and channels, as :func:`_last` sees them."""
    return shape[2:] if len(shape) == 4 else shape[1:-1]


def _channels(value: Value) -> int:
    shape = value.type.shape
    size = shape[1] if len(shape) == 4 else shape[-1]
    if not isinstance(size, int):
        raise UsageError(f"value {value.name!r} has an unknown number of channels")
    return size


def _last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1) if x.ndim == 4 else x


def _energy(x: torch.Tensor) -> torch.Tensor:
    """The mean square over channels, normalized over the places of each sample."""
    return F.normalize(_last(x).square().mean(-1).flatten(1), dim=1)
