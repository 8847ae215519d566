"""The shared tail of accumulating kernels, as data: what happens between the int32 accumulator and the stored byte.

- ``t = f32(acc + bias[c]) * m[c]``
- with a residual: ``t = t + f32(r - zr) * mr``
- ``y = int(rint(clamp(t, lo, hi))) + zp``, then optionally ``y = table[y]``
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..isa import Isa
from .base import Arg, Array, StridedView, padded
from .lookup import pack_table

Output = Literal["byte", "f32", "i32"]

#: Words of the `params` constant: float32 lo, hi, residual multiplier; int32 zp, residual zp; lo + zp, hi + zp; float32
#: what rounds small results.
LO, HI, RESIDUAL_MULTIPLIER, ZERO_POINT, RESIDUAL_ZERO_POINT, BYTE_LO, BYTE_HI, ROUNDING = range(8)
PARAM_WORDS = 16
#: What `Epilogue.pack` takes of multipliers.
MULTIPLIERS = ("multiplier", "residual_multiplier")

#: What is known of results that fit words of 16 bits: whether their zero point is even or odd.
Small = Literal["even", "odd"]


@dataclass(frozen=True)
class Epilogue:
    """`out`: ``byte`` requantizes, ``f32`` stores f32(acc + bias) * m, ``i32`` the bare accumulator.

    `residual` is the view of the tensor added before the clamp; `table` maps the byte at the end. With `whole` the
    clamp is the range of a byte and no multiplier is large (`is_whole`), so that saturating instructions do it. On x86
    `unshifted` says that the zero point is stored as 0, so that nothing is added.

    `small` says that every t fits a word of 16 bits, proven from the weights (`small_of`). Then adding 1.5 * 2**23 + zp
    rounds t and leaves y in the low half of a float32. That rounds ties to even sums, which is to even t where zp is
    even. For an ``odd`` one it is ~y that is found so, from -t and -zp - 1: `pack` turns the signs of the multipliers.
    """

    out: Output = "byte"
    residual: StridedView | None = None
    table: bool = False
    whole: bool = False
    unshifted: bool = False
    small: Small | None = None

    def fitted(self, isa: Isa, arrays: Mapping[str, npt.ArrayLike]) -> Epilogue:
        """The epilogue that leaves out what the constants `arrays`, as a kernel's `pack` takes them, do not need."""
        if self.out != "byte":
            return self
        unshifted = isa.family == "x86" and int(np.asarray(arrays["zero_point"])) == 0
        return replace(self, whole=is_whole(isa, arrays), unshifted=unshifted, small=small_of(isa, arrays))

    @property
    def out_dtype(self) -> str:
        return {"byte": "act", "f32": "float32", "i32": "int32"}[self.out]

    @property
    def args(self) -> tuple[Arg, ...]:
        """The parameters of the epilogue, in order; `bias` is folded with zero-point corrections by the kernel."""
        found: list[Arg] = []
        if self.residual is not None:
            found.append(Arg("residual", "act", "in"))
        found.append(Arg("bias", "int32", "const"))
        if self.out != "i32":
            found.append(Arg("multiplier", "float32", "const"))
        if self.out == "byte":
            found.append(Arg("params", "int32", "const"))
        if self.table:
            found.append(Arg("table", "act", "const"))
        return tuple(found)

    def pack(self, isa: Isa, channels: int, bias: Array, arrays: dict[str, Array]) -> dict[str, Array]:
        """The epilogue's constants, padded to `channels`.

        `arrays` may hold: multiplier float32[c]; zero_point; lo, hi (the clamp of t, so relative to the zero point);
        residual_zero_point, residual_multiplier; table int8[256], the logical output of logical input i - 128.
        Zero points are in the stored domain of `isa`. Without lo and hi the clamp is the range of a byte.
        """
        if self.small == "odd":
            arrays = {name: -array if name in MULTIPLIERS else array for name, array in arrays.items()}
        packed: dict[str, Array] = {"bias": padded(bias, channels, "int32")}
        if self.out != "i32":
            packed["multiplier"] = padded(arrays["multiplier"], channels, "float32")
        if self.out == "byte":
            packed["params"] = pack_params(isa, arrays)
        if self.table:
            packed["table"] = pack_table(isa, arrays["table"])
        return packed


#: Multipliers up to here keep |t| below 2**30: that of an int32 accumulator, and that of a byte's difference.
MOST_MULTIPLIER, MOST_RESIDUAL_MULTIPLIER = 0.25, 2.0**20


def is_whole(isa: Isa, arrays: Mapping[str, npt.ArrayLike]) -> bool:
    """Whether the epilogue with the constants `arrays`, as `Epilogue.pack` takes them, may be `Epilogue.whole`."""
    bounds = {"lo": isa.act_min, "hi": isa.act_max}
    zero_point = int(np.asarray(arrays["zero_point"]))
    return (
        all(int(np.asarray(arrays.get(name, at - zero_point))) + zero_point == at for name, at in bounds.items())
        and float(np.abs(arrays["multiplier"]).max()) <= MOST_MULTIPLIER
        and abs(float(np.asarray(arrays.get("residual_multiplier", 0.0)))) <= MOST_RESIDUAL_MULTIPLIER
    )


#: Below this |t|, y fits a word of 16 bits.
MOST_SMALL = 32_000
#: 1.5 * 2**23: the distance of the floats around it is 1.
ROUND = 12_582_912


def small_of(isa: Isa, arrays: Mapping[str, npt.ArrayLike]) -> Small | None:
    """What the epilogue with the constants `arrays` may know of its results; only ARM makes use of it.

    An accumulator is furthest from 0 where each product has the sign of its weight, or each the other one.
    """
    if isa.family != "arm" or "weight" not in arrays:
        return None
    weight = np.asarray(arrays["weight"]).astype("int64")
    rows = weight.reshape(len(weight), -1)
    above, below = np.maximum(rows, 0).sum(axis=1), np.maximum(-rows, 0).sum(axis=1)
    zero_point = int(np.asarray(arrays["x_zero_point"]))
    low, high = isa.act_min - zero_point, isa.act_max - zero_point
    bias = np.asarray(arrays["bias"]).astype("int64")
    most = np.maximum(abs(high * above - low * below + bias), abs(low * above - high * below + bias))
    largest = float((most * np.abs(arrays["multiplier"])).max())
    largest += (isa.act_max - isa.act_min) * abs(float(np.asarray(arrays.get("residual_multiplier", 0.0))))
    if not largest <= MOST_SMALL:
        return None
    return "odd" if int(np.asarray(arrays["zero_point"])) % 2 else "even"


def pack_params(isa: Isa, arrays: dict[str, Array]) -> Array:
    """The `params` constant (int32 words, see the indices above) from 0-d arrays; zero points in the stored domain."""
    zero_point = int(arrays["zero_point"])
    low = int(arrays["lo"]) if "lo" in arrays else isa.act_min - zero_point
    high = int(arrays["hi"]) if "hi" in arrays else isa.act_max - zero_point
    words = np.zeros(PARAM_WORDS, "int32")
    words[[ZERO_POINT, BYTE_LO, BYTE_HI]] = zero_point, low + zero_point, high + zero_point
    words[RESIDUAL_ZERO_POINT] = int(arrays.get("residual_zero_point", np.int32(0)))
    floats = words.view("float32")
    floats[[LO, HI]] = low, high
    floats[RESIDUAL_MULTIPLIER] = arrays.get("residual_multiplier", np.float32(0))
    floats[ROUNDING] = ROUND + (-zero_point - 1 if zero_point % 2 else zero_point)
    return words
