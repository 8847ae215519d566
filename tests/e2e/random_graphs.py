"""Random float graphs: ``random_graph(seed)`` is a network over the ops that have an integer form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from e2e import moves, recipes
from e2e.growing import CHANNELS, Grower
from e2e.recipes import Recipe
from octavo.ir import Graph

RECIPES: Mapping[str, Recipe] = {
    "dense": recipes.dense,
    "strange": recipes.strange,
    "grouped": recipes.grouped,
    "depthwise": recipes.depthwise,
    "line": recipes.line,
    "transposed": recipes.transposed,
    "residual": recipes.residual,
    "linear": recipes.linear,
    "product": recipes.product,
    "attention": recipes.attention,
    "binary": recipes.binary,
    "difference": recipes.difference,
    "table": recipes.table,
    "clamp": recipes.clamp,
    "squeeze": recipes.squeeze,
    "softmax": recipes.softmax,
    "layer_norm": recipes.layer_norm,
    "max_pool": moves.max_pool,
    "avg_pool": moves.avg_pool,
    "mean": moves.mean,
    "resize": moves.resize,
    "concat": moves.concat,
    "fork": moves.fork,
    "reshape": moves.reshape,
    "transpose": moves.transpose,
    "part": moves.part,
    "pad": moves.pad,
    "gather": moves.gather,
    "expand": moves.expand,
}
"""Layers by name; a graph has at least one of each of the three kinds that its seed names."""

CALIBRATION_BATCHES = 3
SHIFTS = (0, 11, 20)
"""Distances between the recipes that a seed names, so that the batches of each level name every recipe."""
TRIES = 8
"""How often a recipe that the seed names may fail: its choices can fit no value."""
IMAGES_OF_FIVE = 4


def random_graph(seed: int) -> Graph:
    """A float graph of some five to twenty nodes with one to three inputs; the same for the same seed."""
    g = Grower(seed)
    names = list(RECIPES)
    if seed % 5 < IMAGES_OF_FIVE:
        g.input((g.choose([1, 1, 1, 2, 3]), g.choose(CHANNELS[:12]), g.upto(1, 13), g.upto(1, 13)))
        first = g.choose(["dense", "strange", "residual"])
    else:
        g.input((g.choose([1, 1, 2]), g.upto(1, 12), g.choose(CHANNELS[4:18])))
        first = "linear"
    while not _grow(g, first, TRIES):
        # Two convolutions in a row may be too much work for the input, whatever is drawn.
        first = first if first == "linear" else "dense"
    plan = [g.choose(names) for _ in range(g.upto(1, 7))]
    named = [names[(seed + shift) % len(names)] for shift in SHIFTS]
    for name in named:
        plan.insert(g.upto(0, len(plan)), name)
    grown = {name for name in plan if _grow(g, name, TRIES if name in named else 1)}
    for name in sorted(set(named) - grown):
        _grow(g, name, TRIES)
    return g.finish()


def _grow(g: Grower, name: str, tries: int) -> bool:
    """Whether a recipe found values that fit it."""
    for _ in range(tries):
        g.start(name)
        if RECIPES[name](g) is not None:
            return True
    return False


def random_feeds(graph: Graph, seed: int) -> dict[str, npt.NDArray[np.float32]]:
    """Inputs by name, mostly within what calibration has seen."""
    rng = np.random.default_rng(seed)
    return {v.name: rng.normal(size=v.type.static_shape).astype(np.float32) for v in graph.inputs}


def calibration(graph: Graph, seed: int) -> list[dict[str, npt.NDArray[np.float32]]]:
    return [random_feeds(graph, seed * 1000 + batch) for batch in range(CALIBRATION_BATCHES)]
