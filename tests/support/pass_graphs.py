"""Graphs and passes that several tests use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from octavo.ir import Graph
from octavo.ir.constants import Tensor
from octavo.ir.ops.elementwise import Mul, Relu
from octavo.ir.types import f32
from octavo.passes import Exactness, Pass, PassContext
from octavo.passes.analysis import scalar_of


def relu_chain(length: int) -> Graph:
    """X -> relu -> relu -> ... -> y."""
    graph = Graph()
    value = graph.add_input("x", f32(2))
    for _ in range(length):
        value = graph.insert(Relu(), [value]).output
    graph.set_outputs([value], ["y"])
    return graph


def scaled(factor: float) -> Graph:
    """Y = x * factor."""
    graph = Graph()
    x = graph.add_input("x", f32(2))
    constant = graph.constant(Tensor.of(np.float32(factor)), name="factor")
    product = graph.insert(Mul(), [x, constant], origin="scale", names=["product"]).output
    graph.set_outputs([graph.insert(Relu(), [product], origin="end").output], ["y"])
    return graph


@dataclass(frozen=True)
class ChangeFactor(Pass):
    """Multiply every constant factor."""

    by: float
    says: Exactness = Exactness.EXACT

    name: ClassVar[str] = "change-factor"
    exactness: ClassVar[Exactness] = Exactness.EXACT

    def apply(self, graph: Graph, context: PassContext) -> bool:
        for node in graph.nodes:
            factor = scalar_of(node.inputs[1]) if isinstance(node.op, Mul) else None
            if factor is not None:
                changed = graph.constant(Tensor.of(np.float32(factor * self.by)), before=node)
                node.set_input(1, changed)
        return True
