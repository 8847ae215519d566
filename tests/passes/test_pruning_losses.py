"""Training that prepares pruning: channels that matter little fade together, and go without a loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import octavo
import pytest
import torch
from octavo.ir import Graph
from octavo.ir.errors import UsageError
from octavo.passes import PassContext, Pipeline
from octavo.passes.pruning.groups import find_channels
from octavo.passes.training.loop import Settings, Trainer, evaluate
from octavo.passes.training.losses import Loss, Step, make_term
from support.clouds import clouds, perceptron
from support.prunable import MODELS, constant, traced
from torch import nn

SETTINGS = Settings(epochs=30, batch_size=50, lr=0.1, weight_decay=0.0)


def trained(folder: Path, terms: Mapping[str, tuple[Mapping[str, Any], float]]) -> Graph:
    graph = perceptron(24)
    made = {name: make_term(name, options, graph, None) for name, (options, _) in terms.items()}
    loss = Loss(made, {name: weight for name, (_, weight) in terms.items()})
    module = octavo.to_torch(graph)
    Trainer(module, loss, clouds(1, apart=2.0), clouds(2, apart=2.0), SETTINGS, folder).run()
    # The last epoch rather than the best in validation: the loss is not about that.
    module.load_state_dict(torch.load(folder / "checkpoint.pt", weights_only=True)["module"])
    return octavo.from_torch(module)


def weights(graph: Graph) -> dict[str, torch.Tensor]:
    return {f"%{n.output.name}": torch.tensor(constant(n.output)) for n in graph.nodes if n.op.name == "constant"}


@pytest.mark.parametrize("name", MODELS)
def test_group_lasso_sums_the_norms_of_units(name: str) -> None:
    graph = traced(name)
    channels = find_channels(graph)
    expected = 0.0
    for group in channels.groups:
        for unit in group.units:
            touched = [
                np.moveaxis(constant(value), axis, 0)[channels.unit_of[value, axis] == unit].reshape(-1)
                for value, axis in group.parameters
                if value.type.rank > 1
            ]
            expected += float(np.linalg.norm(np.concatenate(touched)))
    term = make_term("group-lasso", {}, graph, None)
    assert float(term(Step(torch.zeros(1), features=weights(graph)))) == pytest.approx(expected, rel=1e-5)


def test_a_weight_with_the_name_of_a_node_is_the_weight() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matmul, self.head = nn.Parameter(torch.randn(6, 24)), nn.Linear(24, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.head(torch.relu(x @ self.matmul))
            return y

    graph = octavo.trace(Product().eval(), (torch.zeros(2, 6),))
    assert "matmul" in {node.origin for node in graph.nodes if node.op.name == "matmul"}
    term = make_term("l1", {}, graph, None)
    _, inside = octavo.to_torch(graph)(torch.zeros(2, 6), names=term.inside)
    held = weights(graph)
    assert float(term(Step(torch.zeros(1), features=inside)).detach()) == pytest.approx(
        float(held["%matmul"].abs().sum() + held["%head.weight"].abs().sum())
    )


def test_a_channel_at_zero_stays_there() -> None:
    graph = traced("squeeze-excite")
    features = {name: torch.zeros_like(tensor).requires_grad_() for name, tensor in weights(graph).items()}
    term = make_term("group-lasso", {}, graph, None)
    torch.autograd.backward(term(Step(torch.zeros(1), features=features)))
    for name in term.inside:
        gradient = features[name].grad
        assert gradient is not None
        assert not gradient.any()


def test_l1_sums_magnitudes_of_what_could_go() -> None:
    graph = perceptron(24)
    held = weights(graph)
    step = Step(torch.zeros(1), features=held)
    assert float(make_term("l1", {}, graph, None)(step)) == pytest.approx(
        float(held["%v0.weight"].abs().sum() + held["%v3.weight"].abs().sum())
    )
    assert float(make_term("l1", {"scales": True}, graph, None)(step)) == pytest.approx(
        float(held["%v1.weight"].abs().sum())
    )


@pytest.mark.parametrize(
    ("terms", "importance"),
    [({"group-lasso": ({}, 0.03)}, "l2"), ({"l1": ({"scales": True}, 0.02)}, "batch-norm")],
    ids=["group-lasso", "l1"],
)
def test_channels_fade_and_go_without_a_loss(tmp_path: Path, terms: dict[str, Any], importance: str) -> None:
    def score(graph: Graph) -> float:
        return evaluate(octavo.to_torch(graph), clouds(3, 400, apart=2.0), 50)

    plain = trained(tmp_path / "plain", {"cross-entropy": ({}, 1.0)})
    sparse = trained(tmp_path / "sparse", {"cross-entropy": ({}, 1.0), **terms})
    lost = []
    for graph in (plain, sparse):
        before = score(graph)
        lines: list[str] = []
        Pipeline.parse(f"prune-channels{{threshold=0.2,importance={importance},least=0}}").run(
            graph, PassContext(report=lines.append)
        )
        lost.append((before - score(graph), int(lines[-1].split()[0])))
    assert lost[1][1] > lost[0][1] + 3, "training made more channels small"
    assert lost[1][0] < 0.02


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        ("l1", {"scale": True}, "unexpected options scale"),
        ("group-lasso", {"of": 1}, "unexpected options of"),
        ("group-lasso", {}, "no channels that could be pruned"),
        ("l1", {}, "no weights of channels"),
        ("l1", {"scales": True}, "no scales of channels"),
    ],
)
def test_mistakes(name: str, options: dict[str, Any], part: str) -> None:
    graph = octavo.trace(nn.Linear(6, 24).eval(), (torch.zeros(2, 6),))
    with pytest.raises(UsageError, match=part):
        make_term(name, options, graph, None)
