"""Constants and constant control flow."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from ...constants import Tensor
from ...errors import ModelError
from .context import Context
from .errors import Refusal
from .operand import Operand
from .registry import translate


@translate("Constant")
def constant(c: Context) -> Operand:
    """Any of the ways to spell a constant."""
    if len(c.attributes) != 1:
        raise ModelError(f"a constant with the attributes {sorted(c.attributes)}", where=c.origin, expected="one value")
    ((name, value),) = c.attributes.items()
    kinds: dict[str, Any] = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64,
                             "value_ints": np.int64}  # fmt: skip
    if isinstance(value, gs.Constant):
        return Tensor.of(np.asarray(value.values))
    if name not in kinds:
        raise Refusal(f"a constant given by {name}")
    return Tensor.of(np.asarray(value, kinds[name]))


@translate("If")
def branch(c: Context) -> tuple[Operand | None, ...]:
    """A constant condition chooses the branch that is translated in place."""
    condition = c.constant(0, "the condition (only a constant If is inlined)")
    return c.inline(c.attr("then_branch" if bool(condition.item()) else "else_branch"))
