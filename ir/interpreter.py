"""The interpreter: what a graph means, node by node.

Before the freeze ops run in torch (differentiable). After it every op with an exact definition runs in numpy, and the
result is the one all kernels must reproduce to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import ml_dtypes
import numpy as np
import torch

from .errors import InputError, ModelError
from .graph import Graph, Node, Value
from .op import ExactOp, Op, with_dims
from .types import Dim, DType, TensorType, bind_dims, format_shape

Observe = Callable[[Value, torch.Tensor], None]
Evaluate = Callable[[Node, Op, list[torch.Tensor]], tuple[torch.Tensor, ...]]
"""Computes one node, whose op has the sizes of this run, from its operands."""


def to_torch(array: np.ndarray) -> torch.Tensor:
    """A torch tensor that shares nothing with ``array``."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array, copy=True))


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A numpy array of the tensor's elements."""
    tensor = tensor.detach().cpu()
    if tensor.dtype is torch.bfloat16:
        bits: np.ndarray = tensor.contiguous().view(torch.int16).numpy()
        return bits.view(ml_dtypes.bfloat16)
    result: np.ndarray = tensor.numpy()
    return result


def run_graph(graph: Graph, feeds: Mapping[str, np.ndarray], observe: Observe | None = None) -> dict[str, np.ndarray]:
    """Run on named numpy inputs without gradients; returns outputs by the user's names.

    Raises:
        InputError: a name, shape or dtype does not fit the graph's inputs.
    """
    check_feeds(graph, feeds)
    with torch.no_grad():
        results = run_torch(graph, [to_torch(feeds[v.name]) for v in graph.inputs], observe)
    return {name: to_numpy(r) for name, r in zip(graph.output_names, results, strict=True)}


def _evaluate(node: Node, op: Op, operands: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    return run_op(op, [v.type for v in node.inputs], operands)


def run_torch(
    graph: Graph, inputs: Sequence[torch.Tensor], observe: Observe | None = None, evaluate: Evaluate = _evaluate
) -> list[torch.Tensor]:
    """Run on torch tensors in the order of the graph's inputs; gradients flow where torch lets them.

    ``observe`` is called with every value a node makes. Tensors are dropped after their last use. ``evaluate`` may
    compute nodes in another way than :func:`run_op`.
    """
    remaining = {v: len(v.uses) + sum(o is v for o in graph.outputs) for v in graph.values()}
    env: dict[Value, torch.Tensor] = dict(zip(graph.inputs, inputs, strict=True))
    sizes = bind_dims((v.type.shape, tensor.shape) for v, tensor in env.items() if not v.type.is_static)
    if observe:
        for value, tensor in env.items():
            observe(value, tensor)
    for node in graph.nodes:
        results = evaluate(node, with_dims(node.op, sizes), [env[v] for v in node.inputs])
        for value, tensor in zip(node.outputs, results, strict=True):
            if remaining[value]:
                env[value] = tensor
            if observe:
                observe(value, tensor)
        for value in node.inputs:
            remaining[value] -= 1
            if not remaining[value]:
                env.pop(value, None)
    return [env[v] for v in graph.outputs]


def run_node(node: Node, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """One node on torch tensors: by its exact definition where it has one, else in torch."""
    return run_op(node.op, [v.type for v in node.inputs], inputs)


def run_op(op: Op, types: Sequence[TensorType], inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """One op on torch tensors of the given types."""
    if isinstance(op, ExactOp):
        exact = op.exact(types, *map(to_numpy, inputs))
        return tuple(map(to_torch, exact if isinstance(exact, tuple) else (exact,)))
    if any(t.dtype in _STORAGE_ONLY for t in types):
        return _run_widened(op, types, inputs)
    result = op.run(*inputs)
    return result if isinstance(result, tuple) else (result,)


# torch computes little with these; 64 bits hold their values (u64 modulo 2**64).
_STORAGE_ONLY = (DType.U16, DType.U32, DType.U64)


def _run_widened(op: Op, types: Sequence[TensorType], inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """Compute unsigned integers above 8 bits as i64, and give results of such types back in them."""
    wide = [x.to(torch.int64) if t.dtype in _STORAGE_ONLY else x for x, t in zip(inputs, types, strict=True)]
    result = op.run(*wide)
    results = result if isinstance(result, tuple) else (result,)
    return tuple(r.to(t.dtype.torch) for r, t in zip(results, op.infer(*types), strict=True))


def check_feeds(graph: Graph, feeds: Mapping[str, np.ndarray]) -> None:
    """Raise :class:`InputError` unless ``feeds`` holds just the graph's inputs with fitting types."""
    names = [v.name for v in graph.inputs]
    unknown, missing = set(feeds) - set(names), set(names) - set(feeds)
    if unknown or missing:
        what = "; ".join(
            [
                *(f"no input is named {n}" for n in sorted(unknown)),
                *(f"{n} is missing" for n in sorted(missing)),
            ]
        )
        raise InputError(what, expected=f"inputs {', '.join(names)}")
    for value in graph.inputs:
        _check_feed(value.name, value.type, feeds[value.name])
    try:
        bind_dims((v.type.shape, feeds[v.name].shape) for v in graph.inputs)
    except ModelError as error:
        raise InputError(error.what, expected="one size for it in all inputs") from error


def _check_feed(name: str, type: TensorType, array: np.ndarray) -> None:
    if array.dtype != type.dtype.numpy:
        raise InputError(f"input {name} has dtype {array.dtype}", expected=type.dtype.value)
    fits = array.ndim == type.rank and all(
        isinstance(want, Dim) or want == have for want, have in zip(type.shape, array.shape, strict=True)
    )
    if not fits:
        raise InputError(f"input {name} has shape {format_shape(array.shape)}", expected=format_shape(type.shape))
