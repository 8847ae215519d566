"""What trains is what ships: the integer network of a module under quantization-aware training.

A fake-quantized forward is a model of the integer network: its sums are float, so now and then an element falls on the
other side of a step. Numbers that choose between checkpoints should not depend on that. So a module is judged by the
network it becomes: frozen by the passes that compile it, run by the interpreter, which every kernel equals to the bit.
There is no second integer arithmetic, in torch, that would have to be proven equal to the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from ...ir.graph import Graph
from ...ir.interpreter import run_torch
from ..pipeline import Pipeline

if TYPE_CHECKING:
    from .module import TrainableGraph

Answer = Callable[[Sequence[torch.Tensor]], list[torch.Tensor]]
"""The outputs for inputs, both in the order of the graph's."""


def freeze(graph: Graph) -> Graph:
    """The integer network that a fake-quantized graph compiles into; the graph itself is left as it is.

    Raises:
        PassError: the graph holds observers, or grids that int8 has no room for.
    """
    frozen = graph.clone()
    # Grids are there already, so of this pipeline only the clean-up, the freeze, and what follows it have an effect.
    Pipeline.parse("int8").run(frozen)
    return frozen


def shipped(module: TrainableGraph) -> Answer:
    """The network as it would ship with the weights of the moment, without gradients.

    Of a fake-quantized module this is the frozen integer network: outputs equal those of its bundle to the bit, save
    float islands (docs/numerics.md). Of a float module it is the module in evaluation mode.
    """
    frozen = module.eval().integer_graph()

    def answer(inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        with torch.no_grad():
            results: list[torch.Tensor] = run_torch(frozen, inputs) if frozen else module(*inputs, names=())[0]
        return results

    return answer
