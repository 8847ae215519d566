"""Constants: data that is part of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from ..constants import Tensor
from ..op import Cost, Op, Quantization, register_op
from ..types import QuantParams, TensorType


def as_torch(tensor: Tensor) -> torch.Tensor:
    """The elements as a torch tensor that owns its memory."""
    array = tensor.numpy()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(np.array(array, copy=True))


@register_op
@dataclass(frozen=True)
class Constant(Op):
    """A constant; ``quant`` makes stored integers mean real numbers (weights and biases after the freeze).

    ``trains`` says whether it is a parameter where its size does not tell: importers know that a tensor of several
    elements is a buffer, and that one of a single element is a parameter.
    """

    data: Tensor
    quant: QuantParams | None = None
    trains: bool | None = None

    name: ClassVar[str] = "constant"
    operands: ClassVar[tuple[str, ...]] = ()
    quantization: ClassVar[Quantization] = Quantization.PRESERVING

    def infer(self) -> tuple[TensorType, ...]:
        return (self.data.type.with_quant(self.quant),)

    def run(self) -> torch.Tensor:
        return as_torch(self.data)

    def cost(self, inputs: Sequence[TensorType], outputs: Sequence[TensorType]) -> Cost:
        return Cost()


def trains_as(ops: Iterable[Op | None]) -> bool | None:
    """What :attr:`Constant.trains` is of a constant that is computed from the constants among ``ops``.

    It trains if one of them does. What is made of buffers, single numbers and integers is a buffer.
    """
    given = [(op.trains, op.data.size > 1) for op in ops if isinstance(op, Constant) and op.data.dtype.is_float]
    if any(trains or (trains is None and several) for trains, several in given):
        return None
    return False if any(trains is False for trains, _ in given) else None
