"""From frozen graphs to a bundle: plan every level, generate its kernels, link and write."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from ..ir.errors import ToolchainError
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
from .plan.builder import Choices, Notes
from .plan.planner import plan_graph
from .tvm.isa import get_isa
from .tvm.kernels.base import KernelSpec
from .tvm.worker import CodegenError, CodegenPool

Progress = Callable[[str, int, int | None], None]

CHUNK = 6
"""Kernels compiled by one request: enough to amortize it, few enough to balance the workers."""

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
    preprocessing: Json = None,
    labels: tuple[str, ...] | None = None,
    compress: bool = False,
    overwrite: bool = False,
    jobs: int = 2,
    progress: Progress = lambda label, done, total: None,
    choices: Mapping[str, Choices] | None = None,
) -> Manifest:
    """Write the bundle ``output`` for frozen graphs of fixed shapes, one plan each; returns its manifest.

    ``choices`` replace kernels, by level.

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
    with tempfile.TemporaryDirectory(prefix="octavo-kernels-") as folder:
        objects = _generate(levels, Path(folder), jobs, progress)
        contents = BundleContents(
            name=name,
            target=target.name,
            program=program,
            weights=weights,
            objects=objects,
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


def _generate(levels: Sequence[_Level], folder: Path, jobs: int, progress: Progress) -> tuple[Path, ...]:
    """Compile every level's kernels into objects in ``folder``, ``jobs`` requests at a time."""
    requests = [(level.name, chunk) for level in levels for chunk in _chunks(level.kernels)]
    total = sum(len(level.kernels) for level in levels)
    progress("kernels", 0, total)
    done = 0
    with CodegenPool(jobs) as pool, ThreadPoolExecutor(jobs) as executor:
        futures = {executor.submit(pool.compile, chunk, level): index for index, (level, chunk) in enumerate(requests)}
        paths: list[Path] = []
        try:
            for future in as_completed(futures):
                index = futures[future]
                path = folder / f"kernels{index:04}.o"
                path.write_bytes(future.result())
                paths.append(path)
                done += len(requests[index][1])
                progress("kernels", done, total)
        except BaseException as error:
            # After Ctrl-C, too, nobody waits for what is under way or has not begun.
            for future in futures:
                future.cancel()
            pool.abort()
            if isinstance(error, CodegenError):
                hint = "report this model: it is a defect"
                raise ToolchainError(f"code generation failed: {error}", hint=hint) from error
            raise
    return tuple(sorted(paths))


def _chunks(kernels: Mapping[str, KernelSpec]) -> Iterator[list[tuple[str, KernelSpec]]]:
    items = list(kernels.items())
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]


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
