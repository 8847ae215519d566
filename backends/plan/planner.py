"""Plans a frozen graph on one ISA level: borders, then placements in concats, then every node in order."""

from __future__ import annotations

from dataclasses import replace

from ...ir.graph import Graph, Node, Value
from ...ir.ops.constant import Constant
from ...ir.ops.shape import Concat
from ...ir.types import DType
from ..bundle.program import Place, PlanProgram
from ..bundle.weights import WeightStore
from ..tvm.isa import Isa
from ..tvm.kernels.base import KernelSpec
from ..tvm.lower.refusals import REFUSALS
from ..tvm.lower.registry import find_lowering
from .builder import Choices, Notes, PlanBuilder, dtype_of
from .views import ITEM_BYTES, Storage, View, dense_strides


def plan_graph(
    graph: Graph,
    isa: Isa,
    weights: WeightStore,
    prefix: str,
    notes: Notes | None = None,
    choices: Choices | None = None,
) -> tuple[PlanProgram, dict[str, KernelSpec]]:
    """The program of a frozen graph with fixed shapes, and the kernels it calls by symbol.

    Packed constants go into ``weights``, what lowerings have to say about their choices into ``notes``;
    ``choices`` replace kernels.

    Raises:
        UnsupportedError: ops without kernels, all of them.
    """
    site = PlanBuilder(graph, isa, weights, prefix, {} if notes is None else notes, choices or {})
    for index, value in enumerate(graph.inputs):
        shape = value.type.static_shape
        storage = Storage(Place.INPUT, value.type.nbytes, index=index)
        view = View(storage, _user_dtype(value), shape, dense_strides(shape, range(len(shape))))
        site.bind(value, _received(site, view, value) if dtype_of(value.type) == "act" else view)
    for node in graph.nodes:
        _prepare(site, node)
    for node in graph.nodes:
        _lower(site, node)
    return site.finish(), site.kernels


def _received(site: PlanBuilder, view: View, value: Value) -> View:
    """A user's signed bytes as the level stores activations."""
    if not site.isa.act_offset:
        return replace(view, dtype="act")
    stored = site.scratch_view(view.shape, "act")
    site.copy(view, stored, value.name)
    return stored


def _user_dtype(value: Value) -> str:
    return value.type.dtype.numpy.name if value.type.dtype is not DType.BOOL else "bool"


def _prepare(site: PlanBuilder, node: Node) -> None:
    """Collect what readers want of values before any is allocated."""
    lowering = find_lowering(node.op)
    if lowering is not None and lowering.border is not None:
        border = lowering.border(site, node)
        if border is not None:
            site.request_border(node.inputs[0], border)
    if isinstance(node.op, Concat):
        _place_parts(site, node)


def _place_parts(site: PlanBuilder, node: Node) -> None:
    """Parts made by a kernel are written into the concat's buffer; the others are copied there."""
    assert isinstance(node.op, Concat)
    start = 0
    for part in node.inputs:
        rank = len(part.type.static_shape)
        if _is_computed(part) and not site.graph.is_output(part):
            site.place(part, node, start)
        start += part.type.static_shape[node.op.axis % rank]


def _is_computed(value: Value) -> bool:
    """Whether a kernel of its own writes the value, so that it can write elsewhere."""
    producer = value.producer
    if producer is None or isinstance(producer.op, Constant):
        return False
    lowering = find_lowering(producer.op)
    return lowering is not None and not lowering.view


def _lower(site: PlanBuilder, node: Node) -> None:
    if site.is_done(node) or isinstance(node.op, Constant):
        return
    lowering = find_lowering(node.op)
    if lowering is None:
        site.refuse(node, REFUSALS.get(node.op.name, "an op of another package, without a lowering"))
        return
    odd = [value.type.dtype for value in (*node.inputs, *node.outputs) if dtype_of(value.type) not in ITEM_BYTES]
    if odd:
        site.refuse(node, f"no kernel for elements of {odd[0].value}")
        return
    site.node = node
    lowering.lower(site, node)
