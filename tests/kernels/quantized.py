"""Quantized values for kernel tests: between logical s8 bytes and bytes as an ISA level stores them."""

from __future__ import annotations

import numpy as np
from kernels.harness import Array
from octavo.backends.tvm.isa import Isa
from octavo.ir.types import QuantParams, per_tensor


def random_quant(rng: np.random.Generator) -> QuantParams:
    """Some scale, and any zero point."""
    return per_tensor(float(rng.uniform(0.005, 0.05)), int(rng.integers(-128, 128)))


def random_stored(rng: np.random.Generator, isa: Isa, count: int) -> Array:
    """Stored bytes over the whole range."""
    return rng.integers(isa.act_min, isa.act_max + 1, count).astype(isa.act_dtype)


def stored(values: Array, isa: Isa) -> Array:
    """Logical values as the level stores them."""
    return (values.astype("int64") + isa.act_offset).astype(isa.act_dtype)


def logical(values: Array, isa: Isa) -> Array:
    """Stored bytes as int8 values."""
    return (values.astype("int64") - isa.act_offset).astype("int8")


def zero_of(quant: QuantParams, isa: Isa) -> Array:
    """The zero point in the stored domain."""
    return np.array(quant.zero_point[0] + isa.act_offset)
