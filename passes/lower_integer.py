"""The freeze: fake-quantized float graphs become integer graphs with exact semantics, for every target alike.

Everything that rounds is decided here and nowhere else: which nodes are integer, every requantization, fused
residuals, the common grid of a concat. Afterwards every pass is exact.

The pass walks the graph once. A float value that lies on a grid (behind ``fake_quantize``, or moved from such a value)
has an int8 twin; a node whose activations all have twins is rewritten by the rule of its op, and its result takes the
grid of the ``fake_quantize`` that alone reads it, or stays float32. Where a float node reads a twin it is dequantized.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ..ir.constants import Tensor
from ..ir.errors import PassError
from ..ir.graph import Decision, Graph, Node, Precision, Value
from ..ir.op import Op
from ..ir.ops.constant import Constant
from ..ir.ops.image import NormalizeImage
from ..ir.ops.integer import QImage
from ..ir.ops.quantize import Dequantize, FakeQuantize, Observer, Quantize, broadcast_params, dequantize_array
from ..ir.types import DType, QuantParams, per_channel, per_tensor
from .base import Exactness, Pass, PassContext
from .decide import activation_operands
from .lowering import rules
from .registry import register_pass


@register_pass
@dataclass(frozen=True)
class LowerInteger(Pass):
    """Freeze fake quantization into integer ops with exact semantics."""

    name: ClassVar[str] = "lower-integer"
    exactness: ClassVar[Exactness] = Exactness.LOSSY

    def apply(self, graph: Graph, context: PassContext) -> bool:
        if any(isinstance(n.op, Observer) for n in graph.nodes):
            raise PassError("the graph still has observers", hint="run calibrate and quantize before lower-integer")
        if not any(isinstance(n.op, FakeQuantize) for n in graph.nodes):
            return False
        lowering = _Lowering(graph)
        for node in list(graph.nodes):
            lowering.visit(node)
        lowering.finish()
        return True


class _Lowering:
    """One walk over a graph; implements :class:`~.lowering.rules.Site` for the rules."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._twins: dict[Value, Value] = {}
        self._floats: dict[Value, Value] = {}

    def visit(self, node: Node) -> None:
        """Rewrite one node, or give it the float operands it needs."""
        match node.op:
            case FakeQuantize():
                self._fake_quantize(node)
            case Constant():
                pass
            case _ if self._lower(node):
                pass
            case _:
                self._keep_float(node)

    def finish(self) -> None:
        """Dequantize what the user reads, and drop what nobody does."""
        outputs = [self._float_of(v, None) for v in self.graph.outputs]
        self.graph.set_outputs(outputs)
        for node in reversed(list(self.graph.nodes)):
            if not any(v.uses or self.graph.is_output(v) for v in node.outputs):
                self.graph.erase(node)

    # What rules see ---------------------------------------------------------------------------------------------------

    def twin(self, value: Value) -> Value | None:
        """The int8 value behind a float one, if it lies on a grid."""
        return self._twins.get(value)

    def insert(self, node: Node, op: Op, inputs: list[Value]) -> Value:
        """A node in the place of ``node``, with its origin, decision and name."""
        new = self.graph.insert(op, inputs, before=node, origin=node.origin, names=[f"{node.outputs[0].name}.q"])
        if not isinstance(op, Constant):
            new.decision = node.decision or _decision(op)
        return new.output

    def constant(self, node: Node, array: np.ndarray, name: str) -> Value:
        """A constant just before ``node``."""
        return self.graph.constant(Tensor.of(array), before=node, origin=node.origin, name=name)

    def out_grid(self, node: Node) -> QuantParams | None:
        """The grid of the ``fake_quantize`` that alone reads the node's output; None when the output stays float."""
        output = node.output
        if self.graph.is_output(output) or len(output.uses) != 1:
            return None
        reader = output.users[0]
        return activation_params(reader) if isinstance(reader.op, FakeQuantize) and output.uses[0][1] == 0 else None

    # How values change ------------------------------------------------------------------------------------------------

    def _lower(self, node: Node) -> bool:
        rule: Callable[[rules.Site, Node], Value | None] | None = rules.RULES.get(type(node.op))
        if rule is None or len(node.outputs) != 1 or _stays_float(node):
            return False
        if any(node.inputs[i] not in self._twins for i in activation_operands(node) if i < len(node.inputs)):
            return False
        result = rule(self, node)
        if result is None:
            return False
        self._settle(node, result)
        return True

    def _settle(self, node: Node, result: Value) -> None:
        """Let what read ``node`` read ``result``: as int8 through the twin, or as float in its place."""
        if result.type.quant is None:
            self.graph.replace(node.output, result)
            return
        grid = self.out_grid(node)
        if grid is not None and grid == result.type.quant:
            self._twins[node.output.users[0].output] = result
        else:
            self._twins[node.output] = result

    def _fake_quantize(self, node: Node) -> None:
        output, source = node.output, node.inputs[0]
        if output in self._twins:
            return
        params = activation_params(node)
        if isinstance(source.op, Constant):
            self._twins[output] = self._frozen_constant(node, source.op.data)
        elif params is None:
            what = "per-channel or coarse fake quantization of an activation"
            raise PassError(what, where=node.where, expected="one scale, and every integer of the range")
        elif source in self._twins:
            twin = self._twins[source]
            same = twin.type.quant == params
            self._twins[output] = twin if same else self.insert(node, rules.Requantize(params), [twin])
        else:
            self._twins[output] = self._quantized(node, source, params)

    def _quantized(self, node: Node, source: Value, params: QuantParams) -> Value:
        """A float value on a grid; of an image, straight from its pixels."""
        if isinstance(source.op, NormalizeImage) and source.producer is not None:
            (pixels,) = source.producer.inputs
            return self.insert(node, QImage(source.op.mean, source.op.std, source.op.scale, params), [pixels])
        return self.insert(node, Quantize(DType.I8, params), [source])

    def _frozen_constant(self, node: Node, data: Tensor) -> Value:
        """A fake-quantized constant as stored integers."""
        op = node.op
        assert isinstance(op, FakeQuantize)
        params = fake_quantize_params(node)
        scale, zero = broadcast_params(params, len(data.shape))
        constant = Constant(Tensor.of(op.stored(data.numpy().astype(np.float32), scale, zero)), params)
        return self.insert(node, constant, [])

    def _keep_float(self, node: Node) -> None:
        if node.decision is not None and node.decision.precision is Precision.QUANTIZED:
            node.decision = Decision(Precision.FLOAT, node.decision.rule, "an operand lies on no quantization grid")
        for position, value in enumerate(node.inputs):
            if value in self._twins:
                node.set_input(position, self._float_of(value, node))

    def _float_of(self, value: Value, reader: Node | None) -> Value:
        """The float form of a value that has a twin, made once."""
        twin = self._twins.get(value)
        if twin is None:
            return value
        if twin not in self._floats:
            producer = twin.producer
            assert producer is not None
            if isinstance(producer.op, Constant) and reader is not None and twin.type.quant is not None:
                # A float kernel wants its weight as numbers, not computed from bytes while the network runs.
                real = dequantize_array(producer.op.data.numpy(), twin.type.quant)
                self._floats[twin] = self.constant(producer, real, value.name)
                return self._floats[twin]
            node = self.graph.insert(Dequantize(), [twin], after=producer, origin=producer.origin)
            node.decision = Decision(Precision.FLOAT, "dequantize", "read by a float node or the user")
            self._floats[twin] = node.output
        return self._floats[twin]


def _decision(op: Op) -> Decision:
    """Why a node without a decision of its own is integer."""
    if isinstance(op, Quantize):
        return Decision(Precision.QUANTIZED, "quantize", "a float value enters the integer network")
    if isinstance(op, QImage):
        return Decision(Precision.QUANTIZED, op.rule.value, "an image enters the integer network")
    return Decision(Precision.QUANTIZED, op.rule.value, "on quantized values")


def fake_quantize_params(node: Node) -> QuantParams:
    """The parameters that the constant operands of a ``fake_quantize`` hold, on the grid of i8."""
    op = node.op
    assert isinstance(op, FakeQuantize)
    scale, zero = (v.op.data.numpy() if isinstance(v.op, Constant) else None for v in node.inputs[1:3])
    if scale is None or zero is None:
        raise PassError("scale or zero point of a fake_quantize is not constant", where=node.where)
    if op.low < -128 or op.high > 127:
        raise PassError(f"fake_quantize to {op.low}..{op.high}", where=node.where, expected="a range inside -128..127")
    if op.axis is None:
        return per_tensor(float(scale), int(zero))
    return per_channel(scale.tolist(), zero.astype(np.int64).tolist(), op.axis)


def activation_params(node: Node) -> QuantParams | None:
    """Per-tensor parameters of a ``fake_quantize``; None when they are per channel, or integers are left out."""
    params = fake_quantize_params(node)
    assert isinstance(node.op, FakeQuantize)
    return params if params.axis is None and node.op.step == 1 else None


def _stays_float(node: Node) -> bool:
    return node.decision is not None and node.decision.precision is Precision.FLOAT
