"""From frozen graphs to a bundle: plan every level, generate its kernels, link and write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..ir.graph import Graph, Value
from ..ir.op import ExactOp, Quantization
from ..ir.ops.constant import Constant
from ..ir.target import Target
from ..ir.types import DType
from .bundle.link import find_toolchain
from .bundle.manifest import Json, Manifest
from .bundle.program import LevelProgram, PlanProgram, Program, Signature, TensorSpec
from .bundle.weights import WeightStore
from .bundle.writer import BundleContents, write_bundle
from .objects import KernelObjects, Progress
from .plan.builder import Choices, Notes
from .plan.planner import plan_graph
from .tvm.isa import get_isa
from .tvm.kernels.base import KernelSpec

FLOAT_TOLERANCE = 1e-4
"""How far float ops may be from the interpreter, relative to the largest element of an output."""

WEIGHT_SLACK = 4096
"""Bytes after the last weight that a kernel's last tile may read."""


@dataclass(frozen=True)
class _Level:
    name: str
    plans: tuple[PlanProgram, ...]
    kernels: Mapping[str, KernelSpec]


def compile_graphs(
    graphs: Sequence[Graph],
    target: Target,
    output: Path,
    *,
    name: str,
    prefix: str,
    made: Mapping[str, Json],
    objects: KernelObjects,
    preprocessing: Json = None,
    labels: tuple[str, ...] | None = None,
    compress: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda label, done, total: None,
    choices: Mapping[str, Choices] | None = None,
) -> Manifest:
    """Write the bundle ``output`` for frozen graphs of fixed shapes, one plan each; returns its manifest.

    ``objects`` generates the kernels, of which ``choices`` replaces some, by level.

    Raises:
        UnsupportedError: ops without kernels, all at once.
        ToolchainError: no linker for the target's architecture, or code generation failed.
        BundleError: the folder cannot be written.
    """
    toolchain = find_toolchain(target.architecture)
    weights = WeightStore(WEIGHT_SLACK)
    notes: Notes = {}
    chosen = choices or {}
    levels = [
        _plan_level(graphs, level.name, weights, prefix, notes, chosen.get(level.name, {})) for level in target.levels
    ]
    features = {level.name: level.features for level in target.levels}
    program = Program(
        prefix,
        target.architecture,
        tuple(_signature(graph) for graph in graphs),
        tuple(LevelProgram(level.name, features[level.name], level.plans) for level in reversed(levels)),
    )
    contents = BundleContents(
        name=name,
        target=target.name,
        program=program,
        weights=weights,
        objects=objects.generate({level.name: level.kernels for level in levels}, progress),
        exactness=exactness(graphs[0]),
        preprocessing=preprocessing,
        made=made,
        decisions=decisions(graphs[0], notes),
        labels=labels,
        compress_weights=compress,
    )
    progress("link", 0, 1)
    manifest = write_bundle(output, contents, toolchain=toolchain, overwrite=overwrite)
    progress("link", 1, 1)
    return manifest


def _plan_level(
    graphs: Sequence[Graph], name: str, weights: WeightStore, prefix: str, notes: Notes, choices: Choices
) -> _Level:
    kernels: dict[str, KernelSpec] = {}
    plans: list[PlanProgram] = []
    for graph in graphs:
        plan, called = plan_graph(graph, get_isa(name), weights, prefix, notes, choices)
        plans.append(plan)
        kernels |= called
    return _Level(name, tuple(plans), kernels)


def _signature(graph: Graph) -> Signature:
    inputs = tuple(_tensor_spec(value.name, value) for value in graph.inputs)
    outputs = (_tensor_spec(name, value) for name, value in zip(graph.output_names, graph.outputs, strict=True))
    return Signature(inputs, tuple(outputs))


def _tensor_spec(name: str, value: Value) -> TensorSpec:
    quant = value.type.quant
    dtype = "bool" if value.type.dtype is DType.BOOL else value.type.dtype.numpy.name
    shape = value.type.static_shape
    if quant is None:
        return TensorSpec(name, dtype, shape, alignment=1)
    return TensorSpec(name, dtype, shape, quant.scale[0], quant.zero_point[0], alignment=1)


def exactness(graph: Graph) -> str:
    """``bit-exact``, or the float ops that the interpreter meets within :data:`FLOAT_TOLERANCE` only.

    Either way the bundle answers with the same bytes on every target.
    """
    exact_rules = (Quantization.PRESERVING, Quantization.JOINING)
    inexact = {
        node.op.name
        for node in graph.nodes
        if not isinstance(node.op, ExactOp | Constant) and node.op.rule not in exact_rules
    }
    return f"within {FLOAT_TOLERANCE:g} in {', '.join(sorted(inexact))}" if inexact else "bit-exact"


def decisions(graph: Graph, notes: Notes) -> Json:
    """Every node's decision, for reports: op, place, precision, rule, and the reason with what planning noted."""
    return [
        {
            "op": node.op.name,
            "where": node.where,
            "precision": node.decision.precision.value,
            "rule": node.decision.rule,
            "reason": "; ".join(part for part in (node.decision.reason, *_noted(notes.get(node, {}))) if part),
        }
        for node in graph.nodes
        if node.decision is not None and not isinstance(node.op, Constant)
    ]


def _noted(notes: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{text} ({', '.join(levels)})" for text, levels in notes.items()]
