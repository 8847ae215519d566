"""Ops without kernels on any target, each with the reason that a user is told."""

from __future__ import annotations

_BEFORE_THE_FREEZE = "stands before the freeze only: run lower-integer"
_DYNAMIC = "is dynamic quantization in a form that fold-dynamic leaves: compile the float model, with calibration data"
_RECURRENT = "has a kernel for constant weights only, after split-recurrent"
_EINSUM = "is left by canonicalize only for integers, diagonals and factors that broadcast: write it as products"
_RARE = "has no kernel yet"


def _all(reason: str, names: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), reason)


REFUSALS: dict[str, str] = {
    **_all(_BEFORE_THE_FREEZE, "fake_quantize observer function"),
    **_all(_DYNAMIC, "as_quantized conv_integer dequantize_by dynamic_quantize matmul_integer quantize_by"),
    **_all(_RECURRENT, "gru lstm rnn"),
    **_all(_EINSUM, "einsum"),
    **_all(_RARE, "col2im deform_conv determinant dft roi_align"),
}
"""Reason by op name. An op that gets a lowering leaves this table; a test holds both to that."""
