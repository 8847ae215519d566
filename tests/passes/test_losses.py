"""Losses and validation: one rule for the axis of classes, nothing broadcast, and options that mean something."""

from __future__ import annotations

import math
from typing import Any

import octavo
import pytest
import torch
from octavo.ir import Graph
from octavo.ir.errors import UsageError
from octavo.passes.training.loop import Samples, evaluate
from octavo.passes.training.losses import Loss, Step, class_axis, make_term, right_classes, squared_errors
from torch import nn


def traced(module: nn.Module, *shape: int) -> Graph:
    return octavo.trace(module.eval(), (torch.zeros(2, *shape),))


def dense(channels: int = 3) -> Graph:
    """Images [2, 3, 4, 5] to classes of their places, [2, 3, 4, 5]."""
    torch.manual_seed(0)
    return traced(nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 3, 1)), 3, 4, 5)


@pytest.mark.parametrize(
    ("outputs", "labels", "axis"),
    [
        ((8, 3), (8,), 1),
        ((8, 3, 4, 5), (8, 4, 5), 1),
        ((8, 4, 5, 3), (8, 4, 5), 3),
        ((8, 7, 3), (8, 7), 2),
        ((8, 3, 7), (8, 7), 1),
        ((8, 3, 2, 4, 5), (8, 2, 4, 5), 1),
    ],
)
def test_labels_say_which_axis_counts_classes(outputs: tuple[int, ...], labels: tuple[int, ...], axis: int) -> None:
    assert class_axis(outputs, labels) == axis
    # The loss of certain, right answers is nothing, and validation calls them right.
    wanted = torch.randint(3, labels, generator=torch.Generator().manual_seed(0))
    logits = 50 * nn.functional.one_hot(wanted, 3).movedim(-1, axis).float()
    assert logits.shape == outputs
    term = make_term("cross-entropy", {}, dense(), None)
    assert float(term(Step(logits, wanted))) < 1e-6
    assert bool(right_classes(logits, wanted).all())
    teacher = Step(logits, wanted, teacher=logits.roll(1, axis))
    own, wrong = (torch.log_softmax(x, axis) for x in (logits, logits.roll(1, axis)))
    expected = (wrong.exp() * (wrong - own)).sum(axis).mean()
    found = make_term("soft-labels", {"temperature": 1}, dense(), dense())(teacher)
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("outputs", "labels", "part"),
    [
        ((8, 3), (8, 1), "do not fit"),
        ((8, 3), (8, 3), "do not fit"),
        ((8,), (8,), "do not fit"),
        ((8, 3, 4, 5), (8,), "do not fit"),
        ((8, 7, 7), (8, 7), "whether axis 1 or axis 2"),
        ((8, 3, 3, 3), (8, 3, 3), "whether axis 1 or axis 3"),
    ],
)
def test_labels_that_do_not_say_it(outputs: tuple[int, ...], labels: tuple[int, ...], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        class_axis(outputs, labels)


def test_validation_counts_places_as_the_loss_does() -> None:
    """It is a share, of all places, and never above one."""
    graph = dense()
    module = octavo.to_torch(graph)
    images = torch.randn(4, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        answers = torch.cat([module.eval()(images[i : i + 2]) for i in (0, 2)]).argmax(1)
    assert evaluate(module, Samples((images,), answers), 2) == 1.0
    half = torch.cat([answers[:2], (answers[2:] + 1) % 3])
    assert evaluate(module, Samples((images,), half), 2) == 0.5


def test_targets_are_not_broadcast() -> None:
    graph = traced(nn.Linear(3, 4), 3)
    step = Step(torch.zeros(2, 4), labels=torch.zeros(2, 1), teacher=torch.zeros(2, 1))
    for term in (make_term("mse", {}, graph, None), make_term("logits", {}, graph, graph)):
        with pytest.raises(UsageError, match="targets of shape"):
            term(step)
    with pytest.raises(UsageError, match="targets of shape"):
        squared_errors(torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(UsageError, match="targets of shape"):
        evaluate(octavo.to_torch(graph), Samples((torch.zeros(2, 3),), torch.zeros(2, 1)), 2)


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("cross-entropy", {"smoothing": 1.0}, "smoothing is 1.0"),
        ("cross-entropy", {"smoothing": -0.1}, "smoothing is -0.1"),
        ("cross-entropy", {"smoothing": "a"}, "smoothing is 'a'"),
        ("soft-labels", {"temperature": 0}, "temperature is 0"),
        ("soft-labels", {"temperature": math.nan}, "temperature is nan"),
        ("soft-labels", {"temperature": math.inf}, "temperature is inf"),
        ("features", {"pairs": [["0", "9"]]}, "no value is named '9' in the teacher"),
        ("features", {"pairs": [["9", "0"]]}, "no value is named '9' in the network"),
        ("features", {"pairs": []}, r"pairs is \[\]"),
        ("features", {}, "pairs is None"),
        ("features", {"pairs": [["0", "0"]], "scale": 1}, "unexpected options scale"),
        ("attention", {"pairs": [["0", "9"]]}, "no value is named '9' in the teacher"),
        ("l1", {"scales": "yes"}, "scales is 'yes'"),
    ],
)
def test_options_that_mean_nothing(name: str, options: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=f"loss {name}: {part}"):
        make_term(name, options, dense(), dense(4))


@pytest.mark.parametrize("name", ["logits", "soft-labels", "features", "attention"])
def test_a_teacher_whose_values_have_other_shapes(name: str) -> None:
    options = {"pairs": [("0", "0")]} if name in ("features", "attention") else {}
    teacher = traced(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()), 3, 4, 5)
    with pytest.raises(UsageError, match=r"different places|the teacher's output is"):
        make_term(name, options, dense(), teacher)


class Ranks(nn.Module):
    """Values that are no activations: a number, a list, and classes."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return x.flatten(1), x.sum(), x.sum((1, 2, 3)), x.argmax(1)


@pytest.mark.parametrize("name", ["features", "attention"])
def test_values_that_are_no_activations(name: str) -> None:
    graph = traced(Ranks(), 3, 4, 5)
    for value in graph.outputs[1:]:
        with pytest.raises(UsageError, match=f"loss {name}: value '{value.name}' is .*"):
            make_term(name, {"pairs": [(f"%{value.name}", f"%{value.name}")]}, graph, graph)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_that_mean_nothing(weight: float) -> None:
    terms = {"cross-entropy": make_term("cross-entropy", {}, dense(), None)}
    with pytest.raises(UsageError, match="the weight of loss cross-entropy is"):
        Loss(terms, {"cross-entropy": weight})
