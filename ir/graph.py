"""Where ops sit: Graph, Node and Value, the only mutable things of the IR, and the few verbs that change them.

Use lists cannot drift: a link changes through :meth:`Node.set_input`, :meth:`Graph.replace` and
:meth:`Graph.set_outputs`, and nowhere else.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .constants import Tensor
from .errors import ModelError, VerifyError
from .op import Op, arity, with_dims
from .types import Dim, TensorType, bind_dims


class Precision(enum.Enum):
    """What was decided for a node."""

    QUANTIZED = "quantized"
    FLOAT = "float"


@dataclass(frozen=True)
class Decision:
    """Quantized or float, by which rule, and why: kept on every node and printable."""

    precision: Precision
    rule: str
    reason: str


class Value:
    """An edge: produced by one node (or a graph input), used at ordered places."""

    __slots__ = ("_uses", "index", "name", "producer", "type")

    def __init__(self, name: str, type: TensorType, producer: Node | None, index: int) -> None:
        self.name = name
        self.type = type
        self.producer = producer
        self.index = index
        self._uses: dict[tuple[Node, int], None] = {}

    @property
    def uses(self) -> tuple[tuple[Node, int], ...]:
        """(node, operand position) of each use, in the order they were made."""
        return tuple(self._uses)

    @property
    def users(self) -> tuple[Node, ...]:
        """The nodes that use this value, each once."""
        return tuple(dict.fromkeys(node for node, _ in self._uses))

    @property
    def op(self) -> Op | None:
        """The op that made this value; None for a graph input. Reads well in ``match``."""
        return self.producer.op if self.producer else None

    def __repr__(self) -> str:
        return f"%{self.name}: {self.type}"


class Node:
    """The place of an op in a graph."""

    __slots__ = ("_inputs", "_next", "_previous", "decision", "graph", "op", "origin", "outputs")

    def __init__(self, graph: Graph, op: Op, inputs: Sequence[Value], origin: str) -> None:
        self.graph: Graph | None = graph
        self.op = op
        self.origin = origin
        self.decision: Decision | None = None
        self._inputs = tuple(inputs)
        self._next: Node | None = None
        self._previous: Node | None = None
        self.outputs: tuple[Value, ...] = ()
        for position, value in enumerate(self._inputs):
            value._uses[(self, position)] = None

    @property
    def inputs(self) -> tuple[Value, ...]:
        return self._inputs

    @property
    def output(self) -> Value:
        """The only output."""
        if len(self.outputs) != 1:
            raise VerifyError(f"{self.op.name} has {len(self.outputs)} outputs", where=self.origin)
        return self.outputs[0]

    @property
    def where(self) -> str:
        """How messages name this node: the user's name, else the value it makes."""
        return self.origin or (f"%{self.outputs[0].name}" if self.outputs else self.op.name)

    def set_input(self, position: int, value: Value) -> None:
        """Make operand ``position`` read ``value``."""
        del self._inputs[position]._uses[(self, position)]
        self._inputs = (*self._inputs[:position], value, *self._inputs[position + 1 :])
        value._uses[(self, position)] = None

    def __repr__(self) -> str:
        return f"{self.op.name}({', '.join('%' + v.name for v in self.inputs)}) at {self.where}"


class Graph:
    """A network: inputs, nodes in an order in which they can run, outputs."""

    def __init__(self, name: str = "main") -> None:
        self.name = name
        self._inputs: list[Value] = []
        self._outputs: tuple[Value, ...] = ()
        self._output_names: tuple[str, ...] = ()
        self._first: Node | None = None
        self._last: Node | None = None
        self._names: dict[str, int] = {}

    @property
    def inputs(self) -> tuple[Value, ...]:
        return tuple(self._inputs)

    @property
    def outputs(self) -> tuple[Value, ...]:
        return self._outputs

    @property
    def output_names(self) -> tuple[str, ...]:
        """What the user calls the outputs; passes may rename values, never these."""
        return self._output_names

    @property
    def nodes(self) -> Iterator[Node]:
        """The nodes in order. The node at hand may be erased while iterating."""
        node = self._first
        while node is not None:
            following = node._next
            yield node
            node = following

    def __len__(self) -> int:
        return sum(1 for _ in self.nodes)

    def values(self) -> Iterator[Value]:
        yield from self._inputs
        for node in self.nodes:
            yield from node.outputs

    def add_input(self, name: str, type: TensorType) -> Value:
        value = Value(self.fresh_name(name), type, None, len(self._inputs))
        self._inputs.append(value)
        return value

    def set_outputs(self, outputs: Sequence[Value], names: Sequence[str] | None = None) -> None:
        """Say what the graph returns; ``names`` default to those before, else to the values' own."""
        if names is None:
            kept = len(self._output_names) == len(outputs)
            names = self._output_names if kept else [v.name for v in outputs]
        self._outputs = tuple(outputs)
        self._output_names = tuple(names)

    def insert(
        self,
        op: Op,
        inputs: Sequence[Value],
        *,
        before: Node | None = None,
        after: Node | None = None,
        origin: str = "",
        names: Sequence[str] = (),
        types: Sequence[TensorType] | None = None,
    ) -> Node:
        """Add a node at the end, or before / after another; output types are inferred unless given.

        Raises:
            ModelError: the operands do not fit the op; ``where`` names ``origin``.
        """
        if not arity(type(op)).admits(len(inputs)):
            raise ModelError(f"{op.name} takes {arity(type(op))} operands, not {len(inputs)}", where=origin)
        if types is None:
            types = _infer(op, inputs, origin)
        node = Node(self, op, inputs, origin)
        hints = [*names, *[op.name] * (len(types) - len(names))]
        node.outputs = tuple(
            Value(self.fresh_name(hint), t, node, i) for i, (hint, t) in enumerate(zip(hints, types, strict=True))
        )
        self._link(node, after._next if after else before)
        return node

    def constant(
        self,
        data: Tensor,
        *,
        before: Node | None = None,
        origin: str = "",
        name: str = "",
        trains: bool | None = None,
    ) -> Value:
        """A new constant value; without ``before`` it stands at the end."""
        from .ops.constant import Constant

        op = Constant(data, trains=trains)
        return self.insert(op, (), before=before, origin=origin, names=[name or "constant"]).output

    def replace(self, old: Value, new: Value) -> None:
        """Let every use of ``old``, the graph outputs included, read ``new``."""
        for node, position in old.uses:
            node.set_input(position, new)
        self._outputs = tuple(new if v is old else v for v in self._outputs)

    def erase(self, node: Node) -> None:
        """Remove a node nobody uses."""
        for value in node.outputs:
            if value._uses or value in self._outputs:
                raise VerifyError(f"%{value.name} is still used", where=node.where)
        for position, value in enumerate(node.inputs):
            del value._uses[(node, position)]
        self._unlink(node)
        node.graph = None

    def move_before(self, node: Node, anchor: Node) -> None:
        """Put ``node`` just before ``anchor`` in the order."""
        if node is not anchor:
            self._unlink(node)
            self._link(node, anchor)

    def is_output(self, value: Value) -> bool:
        return any(v is value for v in self._outputs)

    def fresh_name(self, hint: str) -> str:
        """A name that no value of this graph has had: the hint itself when it is free."""
        base = re.sub(r"[^A-Za-z0-9_.]", "_", hint) or "v"
        base = f"v{base}" if base[0].isdigit() else base
        if base not in self._names:
            self._names[base] = 0
            return base
        while True:
            self._names[base] += 1
            name = f"{base}_{self._names[base]}"
            if name not in self._names:
                self._names[name] = 0
                return name

    def clone(self, *, inputs: Mapping[str, TensorType] | None = None) -> Graph:
        """An independent copy; with new ``inputs`` types, every type downstream is inferred again.

        A symbolic dimension of an input that gets a size gets it everywhere, in the attributes of ops too.
        """
        copy = Graph(self.name)
        mapping: dict[Value, Value] = {}
        sizes = self._sizes(inputs) if inputs else {}
        for value in self._inputs:
            new_type = (inputs or {}).get(value.name, value.type)
            shape = tuple(d.bound(sizes) if isinstance(d, Dim) else d for d in new_type.shape)
            mapping[value] = copy.add_input(value.name, new_type.with_shape(shape))
        for node in self.nodes:
            types = None if inputs else [v.type for v in node.outputs]
            names = [v.name for v in node.outputs]
            operands = [mapping[v] for v in node.inputs]
            twin = copy.insert(with_dims(node.op, sizes), operands, origin=node.origin, names=names, types=types)
            twin.decision = node.decision
            mapping.update(zip(node.outputs, twin.outputs, strict=True))
        copy.set_outputs([mapping[v] for v in self._outputs], self._output_names)
        return copy

    def _sizes(self, types: Mapping[str, TensorType]) -> dict[Dim, int | Dim]:
        """What symbolic dimensions become when inputs get these types."""
        named = {v.name: v.type for v in self._inputs}
        pairs = [(named[name].shape, new.shape) for name, new in types.items() if name in named]
        return bind_dims((old, new) for old, new in pairs if len(old) == len(new))

    def constants(self) -> dict[str, Tensor]:
        """Every constant by digest: of constant nodes, and in the attributes of others (tables)."""
        attributes = (getattr(n.op, field.name) for n in self.nodes for field in dataclasses.fields(n.op))
        return {tensor.digest: tensor for tensor in attributes if isinstance(tensor, Tensor)}

    def find(self, predicate: Callable[[Node], bool]) -> Iterable[Node]:
        return (node for node in self.nodes if predicate(node))

    def __str__(self) -> str:
        from .text import print_graph

        return print_graph(self)

    def _link(self, node: Node, following: Node | None) -> None:
        previous = following._previous if following else self._last
        node._previous, node._next = previous, following
        if previous is None:
            self._first = node
        else:
            previous._next = node
        if following is None:
            self._last = node
        else:
            following._previous = node

    def _unlink(self, node: Node) -> None:
        if node._previous is None:
            self._first = node._next
        else:
            node._previous._next = node._next
        if node._next is None:
            self._last = node._previous
        else:
            node._next._previous = node._previous


def _infer(op: Op, inputs: Sequence[Value], origin: str) -> tuple[TensorType, ...]:
    try:
        return op.infer(*(v.type for v in inputs))
    except ModelError as error:
        if error.where is None:
            operands = ", ".join(repr(v) for v in inputs)
            error.where = f"{origin or op.name}: {op.name}({operands})"
        raise
