"""A graph as a torch module: parameters under the user's names, and the way back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...ir.constants import Tensor, from_tensors
from ...ir.errors import PassError, UsageError
from ...ir.graph import Graph, Node, Value
from ...ir.interpreter import run_op, run_torch, to_numpy
from ...ir.op import Op, Quantization, Stage
from ...ir.ops.constant import Constant, as_torch
from ...ir.ops.norm import BatchNorm
from ...ir.ops.quantize import FakeQuantize
from ...ir.ops.shape import Pad
from ...ir.text import parse_graph
from ..base import PassContext
from ..eliminate_dead import EliminateDead
from ..pruning.sparsity import Pattern, Scope, choose_zeros, find_layers
from ..quantize import grid_node
from .integer import freeze
from .losses import find_value
from .parameters import is_buffer, is_parameter, is_scale

_LEAST_SHARE = 1 / 16
"""Of what calibration found, a learned scale keeps at least this: a step of the optimizer may go through zero."""


def to_torch(
    graph: Graph, *, momentum: float = 0.1, learn_scales: bool = False, keep_zeros: bool = False
) -> TrainableGraph:
    """A graph as a torch module that trains; see :class:`TrainableGraph`."""
    return TrainableGraph(graph, momentum, learn_scales=learn_scales, keep_zeros=keep_zeros)


def from_torch(module: TrainableGraph) -> Graph:
    """The graph of a module that :func:`to_torch` made, with the weights it has now."""
    return module.to_graph()


class _Frozen(NamedTuple):
    """An integer network, and the parameters and buffers that it was made of."""

    graph: Graph
    state: tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class _LearnedScale:
    """How the scale of a grid trains.

    Args:
        high: the largest integer of the grid.
        factor: of gradients. 1 / sqrt(elements of one scale * high) makes them proportional to the scale.
        least: what it keeps.
    """

    high: int
    factor: float
    least: torch.Tensor

    @classmethod
    def of(cls, value: Value, scale: torch.Tensor) -> _LearnedScale:
        node = value.users[0]
        assert isinstance(node.op, FakeQuantize)
        shape = node.inputs[0].type.shape
        elements = math.prod(size for size in shape if isinstance(size, int)) / max(value.type.size, 1)
        return cls(node.op.high, 1.0 / math.sqrt(elements * node.op.high), scale * _LEAST_SHARE)

    def __call__(self, scale: torch.Tensor) -> torch.Tensor:
        """The scale, after a step of the optimizer that went too far was taken back."""
        now = scale.detach()
        if bool((now < self.least).any()):
            now.clamp_(min=self.least)
        # A number plus nothing, with a gradient. A hook on the parameter would not be in its copies.
        return now + self.factor * (scale - now)


class TrainableGraph(nn.Module):
    """Runs a float graph in torch, with its constants as parameters and buffers.

    Parameters have the names of their values: for a graph from torch those of the module's own state dict. They are

    - of a graph from torch the parameters that require gradients (all, if none does), and not its buffers;
    - of any other float32 constants of several elements, and weights, biases and slopes of layers of one. Masks, with
      elements of 1e30 or more, are none;
    - what passes compute from one of these.

    Statistics of batch normalization, the grids of fake quantization, and what else a module from torch holds without
    training it, are buffers. In training mode batch normalization uses and updates the statistics of the batch, as in
    torch.

    What trains is what ships: in eval mode without gradients (``torch.no_grad``, ``torch.inference_mode``) a quantized
    module answers as the integer network that it compiles into, to the bit (:mod:`octavo.passes.training.integer`). It
    is frozen again when a weight, scale or statistic has changed. Training mode, and eval mode with gradients, compute
    the differentiable imitation of it, which now and then differs by a step.

    Args:
        graph: before the freeze; it is copied. Give its batch dimension a name when it was traced, so that
            batches may have any size.
        momentum: of the running statistics of batch normalization.
        learn_scales: the scales of fake quantization are parameters too, with the gradient of Esser et al., "Learned
            Step Size Quantization" (ICLR 2020).
        keep_zeros: weights of layers that are zero now stay zero. Each such weight has a mask, a buffer of its name
            and ``_mask``, that is applied whenever the weight is read: neither gradients nor momentum revive it.

    Raises:
        PassError: the graph is frozen: integers have no gradients.
    """

    def __init__(
        self, graph: Graph, momentum: float = 0.1, *, learn_scales: bool = False, keep_zeros: bool = False
    ) -> None:
        super().__init__()
        frozen = next((node for node in graph.nodes if node.op.stage is Stage.INTEGER), None)
        if frozen is not None:
            raise PassError("a frozen graph does not train", where=frozen.where, hint="train it before lower-integer")
        self._graph = graph.clone()
        # What no output depends on gets no gradients, which processes that train together would wait for.
        EliminateDead().apply(self._graph, PassContext())
        self._momentum = momentum
        self._is_quantized = any(isinstance(node.op, FakeQuantize) for node in self._graph.nodes)
        self._frozen: _Frozen | None = None
        # By names of values, which a copy of the module shares.
        self._paths: dict[str, str] = {}
        self._masks: dict[str, str] = {}
        self._scales: dict[str, _LearnedScale] = {}
        for node in self._graph.nodes:
            if isinstance(node.op, Constant) and (is_parameter(node.output) or is_buffer(node.output)):
                learns = is_parameter(node.output) or (learn_scales and is_scale(node.output))
                self._register(node.output, is_buffer=not learns)
        if keep_zeros:
            for layer in find_layers(self._graph).found:
                if layer.weight.name in self._paths:
                    self._register_mask(layer.weight)

    def forward(self, *inputs: torch.Tensor, names: Sequence[str] | None = None) -> Any:
        """The outputs for tensors in the order of the graph's inputs.

        Returns:
            a single output by itself, several as a tuple. With ``names``: the list of outputs, and the values inside
            that are called so, by name. These are always those of training: the integer network has no float values
            inside, so features do not fit its outputs.

        Raises:
            UsageError: a name is unknown.
            PassError: the network cannot be frozen; see :func:`octavo.passes.training.integer.freeze`.
        """
        if names is None and not self.training and not torch.is_grad_enabled() and (frozen := self.integer_graph()):
            with torch.autocast("cpu", enabled=False):
                return _bare(run_torch(frozen, inputs))
        wanted = {name: find_value(self._graph, name) for name in names or ()}
        values, seen = set(wanted.values()), dict[Value, torch.Tensor]()

        def look(value: Value, tensor: torch.Tensor) -> None:
            if value in values:
                seen[value] = tensor

        results = run_torch(self._graph, inputs, look if wanted else None, self._evaluate)
        if names is not None:
            return results, {name: seen[value] for name, value in wanted.items()}
        return _bare(results)

    def integer_graph(self) -> Graph | None:
        """The integer network of a quantized module with the weights it has now; None of a float module.

        Raises:
            PassError: as of :func:`octavo.passes.training.integer.freeze`.
        """
        if not self._is_quantized:
            return None
        # Contents, not version counters: those miss what is written through ``parameter.data``.
        known = self._frozen.state if self._frozen else ()
        state = tuple(chain(self.parameters(), self.buffers()))
        if self._frozen is None or not all(map(torch.equal, state, known)):
            graph = freeze(self.to_graph())
            self._frozen = _Frozen(graph, tuple(tensor.detach().clone() for tensor in state))
        return self._frozen.graph

    def to_graph(self) -> Graph:
        """The graph with the values that parameters and buffers have now."""
        for node in self._graph.nodes:
            if isinstance(node.op, Constant) and node.output.name in self._paths:
                node.op = replace(node.op, data=Tensor.of(to_numpy(self._tensor(node.output.name))))
        return self._graph.clone()

    def learned_scales(self) -> dict[nn.Parameter, int]:
        """The scales that train, each with the largest integer of its grid: times the scale the end of its range."""
        return {self.get_parameter(self._paths[name]): scale.high for name, scale in self._scales.items()}

    def sparsify(self, ratio: float, pattern: Pattern, scope: Scope = "local", keep: Sequence[str] = ()) -> None:
        """Make the smallest weights zero for good, until the share ``ratio`` is; what is zero already counts.

        Args:
            ratio, pattern, scope: as :func:`~octavo.passes.pruning.sparsity.choose_zeros` takes them.
            keep: shell patterns over names of layers that stay as they are.

        Raises:
            UsageError: the module was made without ``keep_zeros``, ``keep`` names no layer, or no layer has room for
                the pattern.
        """
        if not self._masks:
            raise UsageError("the module has no masks for zeros", hint="make it by to_torch(graph, keep_zeros=True)")
        known = find_layers(self._graph, keep)
        found = [layer for layer in known.found if layer.weight.name in self._masks]
        layers = [layer for layer in found if pattern.why_not(layer) is None]
        if not layers:
            hint = "; ".join([*known.remarks[:3], "keep fewer layers, or change the pattern"])
            raise UsageError("no layer has weights that can become zero", hint=hint)
        weights = [to_numpy(self._tensor(layer.weight.name)) for layer in layers]
        importances = [
            layer.layout.to_rows(np.abs(w.astype(np.float64))) for layer, w in zip(layers, weights, strict=True)
        ]
        zeros = choose_zeros(importances, pattern, ratio, scope)
        for layer, rows, weight in zip(layers, zeros, weights, strict=True):
            mask = self._held(self._masks[layer.weight.name])
            left = torch.from_numpy(np.ascontiguousarray(~layer.layout.from_rows(rows, weight.shape)))
            mask.logical_and_(left.to(mask.device))

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles; the graph in its text form, with constants beside it."""
        constants = {digest: tensor.numpy() for digest, tensor in self._graph.constants().items()}
        return self.__dict__ | {"_graph": (str(self._graph), constants), "_frozen": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        text, arrays = state["_graph"]
        constants = {digest: Tensor.of(array) for digest, array in arrays.items()}
        super().__setstate__(state | {"_graph": parse_graph(text, from_tensors(constants))})  # type: ignore[no-untyped-call]

    def _evaluate(self, node: Node, op: Op, operands: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        if isinstance(op, Constant) and node.output.name in self._paths:
            return (self._tensor(node.output.name),)
        if isinstance(op, BatchNorm) and self.training:
            x, scale, bias, mean, variance = operands
            if x.numel() <= mean.numel():
                raise UsageError(
                    "batch normalization takes statistics of a single value per channel",
                    where=node.where,
                    expected="batches of at least 2",
                    hint="or keep its statistics: eval mode, freeze-norms",
                )
            return (F.batch_norm(x, mean, variance, scale, bias, True, self._momentum, op.epsilon),)
        if op.rule is Quantization.WEIGHTED and len(operands) > 2:
            operands[2] = self._in_steps(operands[2], node)
        if isinstance(op, Pad) and op.value:
            op = replace(op, value=self._fill(op.value, node))
        return run_op(op, [value.type for value in node.inputs], operands)

    def _in_steps(self, bias: torch.Tensor, layer: Node) -> torch.Tensor:
        """A bias as the freeze rounds it, to steps of the input times steps of the weight; gradients pass through.

        It is the one number of a layer that fake quantization leaves between steps.
        """
        grids = [self._grid_of(factor) for factor in layer.inputs[:2]]
        if not all(grids) or not isinstance(layer.inputs[2].op, Constant):
            return bias
        x, weight = (scale.double() for _, (scale, _) in filter(None, grids))
        real = bias.detach().double()
        return bias + (torch.round(real / (x * weight)) * (x * weight) - real).to(bias.dtype)

    def _fill(self, value: float, pad: Node) -> float:
        """What a pad inserts: among elements on a grid, the nearest of it."""
        found = self._grid_of(pad.inputs[0])
        if found is None:
            return value
        grid, parameters = found
        return float(grid.run(torch.tensor(value), *parameters))

    def _grid_of(self, value: Value) -> tuple[FakeQuantize, tuple[torch.Tensor, torch.Tensor]] | None:
        """The grid that a value lies on, with its scale and zero point of now; None if it has none."""
        node = grid_node(value)
        if node is None or not all(operand.name in self._paths for operand in node.inputs[1:3]):
            return None
        assert isinstance(node.op, FakeQuantize)
        scale, zero_point = (self._tensor(operand.name).detach() for operand in node.inputs[1:3])
        return node.op, (scale, zero_point)

    def _tensor(self, name: str) -> torch.Tensor:
        """What the constant called ``name`` is now, with the zeros that it keeps."""
        tensor = self._held(self._paths[name])
        if name in self._masks:
            return torch.where(self._held(self._masks[name]), tensor, 0.0)
        return self._scales[name](tensor) if name in self._scales else tensor

    def _held(self, path: str) -> torch.Tensor:
        holder, _, leaf = path.rpartition(".")
        tensor: torch.Tensor = getattr(self.get_submodule(holder), leaf)
        return tensor

    def _register(self, value: Value, *, is_buffer: bool) -> None:
        """Hold a constant under its dotted name; where a part of it is taken by a tensor, dots become lines."""
        assert isinstance(value.op, Constant)
        tensor = as_torch(value.op.data)
        path = value.name if self._is_free(value.name) else value.name.replace(".", "_")
        *parts, leaf = path.split(".")
        holder: nn.Module = self
        for part in parts:
            if not isinstance(getattr(holder, part, None), nn.Module):
                holder.add_module(part, nn.Module())
            holder = holder.get_submodule(part)
        if is_buffer:
            holder.register_buffer(leaf, tensor)
        else:
            holder.register_parameter(leaf, nn.Parameter(tensor))
            if is_scale(value):
                self._scales[value.name] = _LearnedScale.of(value, tensor)
        self._paths[value.name] = path

    def _register_mask(self, value: Value) -> None:
        path = f"{self._paths[value.name]}_mask"
        while not self._is_free(path):
            path += "_"
        holder, _, leaf = path.rpartition(".")
        self.get_submodule(holder).register_buffer(leaf, self._tensor(value.name) != 0)
        self._masks[value.name] = path

    def _is_free(self, path: str) -> bool:
        holder: nn.Module = self
        *parts, leaf = path.split(".")
        for part in parts:
            if not hasattr(holder, part):
                return True
            found = getattr(holder, part)
            if not isinstance(found, nn.Module):
                return False
            holder = found
        return not hasattr(holder, leaf)


def _bare(results: list[torch.Tensor]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)
