"""Which constants of a graph train, and which a module holds beside them."""

from __future__ import annotations

from ...ir.graph import Value
from ...ir.ops.constant import Constant
from ...ir.ops.conv import Conv, ConvTranspose
from ...ir.ops.logic import PRelu
from ...ir.ops.matmul import Linear
from ...ir.ops.norm import BatchNorm
from ...ir.ops.quantize import FakeQuantize
from ...ir.types import DType
from ..analysis import Place, is_operand
from ..calibration.masks import MASK_MAGNITUDE

_SCALE: Place = (FakeQuantize, "scale")
_GRID: tuple[Place, ...] = (_SCALE, (FakeQuantize, "zero_point"))
_STATISTICS: tuple[Place, ...] = ((BatchNorm, "mean"), (BatchNorm, "variance"))

_LAYERS: tuple[Place, ...] = (
    *((op, name) for op in (Conv, ConvTranspose, Linear) for name in ("weight", "bias")),
    *((BatchNorm, name) for name in ("scale", "bias")),
    (PRelu, "slope"),
)
"""Operands that train even if they have one element."""


def is_parameter(value: Value) -> bool:
    """Whether a value is a constant that gradients change.

    :class:`~octavo.passes.training.module.TrainableGraph` says which are.
    """
    op = _float_constant(value)
    if op is None or is_operand(value, *_STATISTICS, *_GRID):
        return False
    if op.trains is not None:
        return op.trains
    if value.type.size == 1 and not _is_of_layer(value):
        return False
    array = op.data.numpy()
    return bool(array.min(initial=0.0) > -MASK_MAGNITUDE and array.max(initial=0.0) < MASK_MAGNITUDE)


def is_buffer(value: Value) -> bool:
    """Whether a value is a constant of a module's state that gradients do not change."""
    op = _float_constant(value)
    return op is not None and (op.trains is False or is_operand(value, *_STATISTICS, *_GRID))


def is_grid(value: Value) -> bool:
    """Whether a value is the scale or the zero point of fake quantization."""
    return is_operand(value, *_GRID)


def is_scale(value: Value) -> bool:
    """Whether a value is the scale of fake quantization: a buffer, unless it learns."""
    return is_operand(value, _SCALE)


def _is_of_layer(value: Value) -> bool:
    """Whether a layer reads a value, perhaps on a grid; other numbers on grids are fixed: the 2 of ``2 * x``."""
    on_grids = (user.output for user in value.users if isinstance(user.op, FakeQuantize))
    return any(is_operand(read, *_LAYERS) for read in (value, *on_grids))


def _float_constant(value: Value) -> Constant | None:
    return value.op if isinstance(value.op, Constant) and value.type.dtype is DType.F32 else None
