"""From ONNX nodes to a graph: walks them in order, and gathers everything that cannot be translated."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from ...constants import Tensor
from ...errors import ModelError, UnsupportedError, UnsupportedOp
from ...graph import Graph, Value
from . import families, functions
from .builder import Builder
from .context import Context
from .errors import NeedsConstantError, Refusal, Unknown
from .functions import Edge
from .operand import Operand, ShapeConstant
from .registry import find_refusal, find_translation
from .symbolic import on_shapes

MALFORMED = (
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    AssertionError,
    MemoryError,
)
_MAX_DEPTH = 32

families.load()


@dataclass
class Scope:
    """The names, opsets and attributes that nodes of one graph or function see."""

    values: dict[str, Operand | None]
    """None marks a value whose node could not be translated."""
    opsets: Mapping[str, int]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    """Inputs of a function that its caller leaves out."""
    prefix: str = ""
    depth: int = 0


class Importer:
    """One import."""

    def __init__(self, graph: Graph, local_functions: Mapping[tuple[str, str], onnx.FunctionProto]) -> None:
        self.graph = graph
        self.builder = Builder(graph)
        self._functions = local_functions
        self._named: set[Value] = set()
        self._unsupported: dict[tuple[str, str], list[str]] = {}
        self._unknown: dict[str, list[str]] = {}

    # Nodes

    def translate(self, nodes: Iterable[gs.Node], scope: Scope) -> None:
        """Translate nodes in order into ``scope.values``."""
        for node in nodes:
            results = self._translate_node(node, scope)
            for tensor, result in zip(node.outputs, results, strict=False):
                if tensor.name:
                    scope.values[tensor.name] = result
                    self._name(result, scope, tensor.name)
            for tensor in node.outputs[len(results) :]:
                if tensor.name:
                    raise ModelError(f"{node.op} has no output {tensor.name}", where=_origin(node, scope))

    def _name(self, result: Operand | None, scope: Scope, name: str) -> None:
        """Let what a node makes carry the name that the user's file gives it."""
        if isinstance(result, Value):
            if result.producer is not None and result not in self._named:
                result.name = self.graph.fresh_name(scope.prefix + name)
                self._named.add(result)
        elif result is not None:
            self.builder.name_constant(result, scope.prefix + name)

    def _translate_node(self, node: gs.Node, scope: Scope) -> Sequence[Operand | None]:
        """What the node makes; None in every place when it cannot be translated, which is noted."""
        origin, domain = _origin(node, scope), _domain(node)
        version = scope.opsets.get(domain)
        label = _label(node, domain, version)
        try:
            operands = self._operands(node, scope, origin)
            if operands is not None:
                return self._dispatch(self._context(node, scope, operands), node, domain, version)
            self._probe(node, domain, version)
        except Refusal as refusal:
            self._unsupported.setdefault((label, str(refusal)), []).append(origin)
        except Unknown as unknown:
            for name in unknown.inputs:
                self._unknown.setdefault(name, []).append(f"{origin} ({unknown})")
        except ModelError as error:
            error.where = error.where or origin
            raise
        except MALFORMED as error:
            detail = [*str(error).strip().splitlines(), type(error).__name__][0]
            raise ModelError(f"{label} is malformed: {detail}", where=origin) from error
        return (None,) * len(node.outputs)

    def _context(self, node: gs.Node, scope: Scope, operands: Sequence[Operand | None]) -> Context:
        domain = _domain(node)
        version = scope.opsets.get(domain)
        return Context(
            self.builder,
            node.op,
            version or 1,
            _origin(node, scope),
            _attributes(node, scope),
            operands,
            [t.name for t in node.outputs],
            expand=lambda c, function: self._expand(c, function, scope),
            define=lambda c: self._expand(c, functions.body_of(c, domain, version), scope),
            inline=lambda subgraph: self._inline(subgraph, scope),
        )

    def _probe(self, node: gs.Node, domain: str, version: int | None) -> None:
        """A node behind an untranslatable one: say when it is unsupported as well."""
        reason = find_refusal(domain, node.op)
        if (domain, node.op) in self._functions:
            return
        if reason is None and not find_translation(domain, node.op, version or 1):
            functions.require_body(domain, node.op, version)
        elif reason is not None:
            raise Refusal(reason)

    def _dispatch(self, context: Context, node: gs.Node, domain: str, version: int | None) -> Sequence[Operand | None]:
        local = self._functions.get((domain, node.op))
        if local is not None:
            return context.expand(local)
        reason = find_refusal(domain, node.op)
        if reason is not None:
            raise Refusal(reason)
        if any(isinstance(o, ShapeConstant) for o in context.operands):
            shapes = on_shapes(context)
            if shapes is not None:
                return shapes
        translation = find_translation(domain, node.op, version or 1)
        if translation is not None:
            result = translation(context)
            return result if isinstance(result, tuple) else (result,)
        return context.by_definition()

    def _operands(self, node: gs.Node, scope: Scope, origin: str) -> list[Operand | None] | None:
        """What a node reads, None where it leaves an operand out; None when some operand could not be translated."""
        operands: list[Operand | None] = []
        for tensor in node.inputs:
            absent = not tensor.name or tensor.name in scope.absent
            if not absent and tensor.name not in scope.values:
                raise ModelError(f"{tensor.name} is read, but nothing makes it", where=origin)
            operand = None if absent else scope.values[tensor.name]
            if operand is None and not absent:
                return None
            operands.append(operand)
        return operands

    # Functions and subgraphs

    def _expand(self, context: Context, function: onnx.FunctionProto, scope: Scope) -> tuple[Operand | None, ...]:
        if scope.depth >= _MAX_DEPTH:
            raise ModelError(f"functions call each other {_MAX_DEPTH} deep", where=context.origin)
        body = functions.read(function)
        given = [*context.operands, *[None] * len(body.inputs)]
        inner = Scope(
            values={t.name: operand for t, operand in zip(body.inputs, given, strict=False) if operand is not None},
            opsets=functions.opsets(function, scope.opsets),
            attributes={**functions.default_attributes(function, context), **body.defaults, **context.attributes},
            prefix=f"{context.origin}/",
            depth=scope.depth + 1,
        )
        inner.absent = frozenset(t.name for t in body.inputs) - set(inner.values)
        self.translate(body.nodes, inner)
        return tuple(inner.values.get(t.name) for t in body.outputs)

    def _inline(self, subgraph: gs.Graph, scope: Scope) -> tuple[Operand | None, ...]:
        inner = dataclasses.replace(scope, values=dict(scope.values), depth=scope.depth + 1)
        self.add_constants(subgraph.tensors().values(), inner)
        self.translate(subgraph.nodes, inner)
        outputs: list[Edge] = subgraph.outputs
        return tuple(inner.values[t.name] for t in outputs)

    def add_constants(self, tensors: Iterable[Edge], scope: Scope) -> None:
        """Make the initializers among ``tensors`` known."""
        for tensor in tensors:
            name: str = tensor.name
            if isinstance(tensor, gs.Constant) and name not in scope.values:
                scope.values[name] = self._constant(tensor)

    def _constant(self, tensor: Edge) -> Tensor | None:
        try:
            constant = Tensor.of(np.asarray(tensor.values))
        except ModelError as error:
            self._unsupported.setdefault((f"initializer {tensor.name}", error.what), []).append(tensor.name)
            return None
        self.builder.name_constant(constant, tensor.name)
        return constant

    # The whole

    def finish(self, outputs: Sequence[Edge], scope: Scope) -> Graph:
        """Set the outputs; raise when anything could not be translated."""
        if self._unsupported:
            ops = tuple(UnsupportedOp(n, tuple(p), r) for (n, r), p in sorted(self._unsupported.items()))
            raise UnsupportedError(
                ops, hint="rewrite these operations in the model, or export it with operators that octavo knows"
            )
        if self._unknown:
            places = dict.fromkeys(place for listed in self._unknown.values() for place in listed)
            raise NeedsConstantError(tuple(sorted(self._unknown)), tuple(places))
        missing = [t.name for t in outputs if t.name not in scope.values]
        if missing:
            raise ModelError(f"output {missing[0]} is not made by any node")
        operands = [scope.values[t.name] for t in outputs]
        values = [self.builder.value(o, t.name) for o, t in zip(operands, outputs, strict=True) if o is not None]
        self.graph.set_outputs(values, [t.name for t in outputs])
        self._sweep()
        return self.graph

    def _sweep(self) -> None:
        """Remove nodes nobody reads: what the translation made and then did not need."""
        for node in reversed(list(self.graph.nodes)):
            if not any(v.uses or self.graph.is_output(v) for v in node.outputs):
                self.graph.erase(node)


def _domain(node: gs.Node) -> str:
    return "" if node.domain in (None, "", "ai.onnx") else str(node.domain)


def _label(node: gs.Node, domain: str, version: int | None) -> str:
    return f"{domain or 'ai.onnx'}.{node.op}-{version}" if version else f"{domain or 'ai.onnx'}.{node.op}"


def _origin(node: gs.Node, scope: Scope) -> str:
    """How messages name the node: its own name, else what it makes."""
    made = next((t.name for t in node.outputs if t.name), "nothing")
    return scope.prefix + (node.name or f"{node.op}_of_{made}")


def _attributes(node: gs.Node, scope: Scope) -> dict[str, Any]:
    """The attributes, those of an enclosing function resolved."""
    resolved: dict[str, Any] = {}
    for name, value in node.attrs.items():
        if isinstance(value, gs.Node.AttributeRef):
            if scope.attributes.get(value.name) is not None:
                resolved[name] = scope.attributes[value.name]
        else:
            resolved[name] = value
    return resolved
