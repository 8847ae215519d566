"""Scaled dot-product attention, written out as products and a softmax so that each part can be quantized."""

from __future__ import annotations

import math

import numpy as np
import torch

from ....graph import Value
from ....ops.elementwise import Add, Mul
from ....ops.matmul import MatMul
from ....ops.norm import Softmax
from ....ops.shape import Concat
from ....types import DType
from ..context import Context, Refusal, translate

aten = torch.ops.aten


@translate(aten.scaled_dot_product_attention.default)
def attention(
    ctx: Context,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """softmax(query key^T * scale + mask) value, over the last two axes."""
    if dropout_p:
        raise Refusal("dropout in attention: export the module after model.eval()")
    if enable_gqa:
        key, value = _repeat_heads(ctx, query, key), _repeat_heads(ctx, query, value)
    width = query.type.shape[-1]
    if not isinstance(width, int):
        raise Refusal("a width that is not fixed")
    rank = key.type.rank
    turned = ctx.transpose(key, [*range(rank - 2), rank - 1, rank - 2])
    scores = ctx.emit(MatMul(), query, turned)
    dtype = scores.type.dtype
    scores = ctx.emit(Mul(), scores, ctx.scalar(1.0 / math.sqrt(width) if scale is None else scale, dtype))
    if is_causal:
        scores = ctx.emit(Add(), scores, _causal(ctx, scores))
    if attn_mask is not None:
        scores = ctx.emit(Add(), scores, _additive(ctx, attn_mask, dtype))
    return ctx.emit(MatMul(), ctx.emit(Softmax(scores.type.rank - 1), scores), value)


def _causal(ctx: Context, scores: Value) -> Value:
    rows, columns = scores.type.shape[-2:]
    if not isinstance(rows, int) or not isinstance(columns, int):
        raise Refusal("a causal mask of a length that is not fixed")
    return ctx.constant(np.where(np.tri(rows, columns, dtype=bool), 0.0, -np.inf).astype(scores.type.dtype.numpy))


def _additive(ctx: Context, mask: Value, dtype: DType) -> Value:
    """A boolean mask says where to look; as a term it is 0 there and -inf elsewhere."""
    if mask.type.dtype is not DType.BOOL:
        return ctx.cast(mask, dtype)
    return ctx.where(mask, ctx.scalar(0.0, dtype), ctx.scalar(float("-inf"), dtype))


def _repeat_heads(ctx: Context, query: Value, x: Value) -> Value:
    """Grouped queries: each head of keys and values serves several heads of queries that follow each other."""
    heads, own = query.type.shape[-3], x.type.shape[-3]
    if not isinstance(heads, int) or not isinstance(own, int) or heads % own:
        raise Refusal("numbers of heads that do not divide")
    if heads == own:
        return x
    axis = x.type.rank - 3
    single = ctx.reshape(x, (*x.type.shape[: axis + 1], 1, *x.type.shape[axis + 1 :]))
    repeated = ctx.emit(Concat(axis + 1), *[single] * (heads // own))
    return ctx.reshape(repeated, (*x.type.shape[:axis], heads, *x.type.shape[axis + 1 :]))
