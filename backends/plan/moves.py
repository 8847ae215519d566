"""The kernels a plan needs of its own: copies between views, and borders around images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..tvm.isa import Isa
from ..tvm.kernels.base import KernelSpec, StridedView
from ..tvm.kernels.border import BorderSpec
from ..tvm.kernels.copy import CopySpec
from ..tvm.kernels.unary import UnarySpec
from .views import ITEM_BYTES, View


@dataclass(frozen=True)
class Border:
    """Elements around the spatial axes of a value, and what they hold: a logical s8, or a float."""

    padding: tuple[tuple[int, int], ...]
    fill: float

    @property
    def is_empty(self) -> bool:
        return not any(map(any, self.padding))

    def covers(self, other: Border) -> bool:
        """Whether a buffer with this border serves a reader who wants the other."""
        pairs = zip(self.padding, other.padding, strict=True)
        return self.fill == other.fill and all(a[0] >= b[0] and a[1] >= b[1] for a, b in pairs)

    def joined(self, other: Border) -> Border:
        """The smallest border that covers both (of one fill)."""
        pairs = zip(self.padding, other.padding, strict=True)
        return Border(tuple((max(a[0], b[0]), max(a[1], b[1])) for a, b in pairs), self.fill)

    def around(self, spatial: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial sizes with the border."""
        return tuple(n + sum(pair) for n, pair in zip(spatial, self.padding, strict=True))


def copy_spec(isa: Isa, source: View, target: View) -> KernelSpec:
    """Moves elements between views of one shape; an activation that leaves for the user loses its flipped sign."""
    if {source.dtype, target.dtype} == {"act", "int8"} and isa.act_offset:
        return UnarySpec("flip", target.shape, source.strides, target.strides)
    return CopySpec(ITEM_BYTES[source.dtype], target.shape, source.strides, target.strides)


def border_spec(whole: View, border: Border) -> BorderSpec:
    """Fills the border of a channels-last buffer, given with its border."""
    pads = border.padding if len(border.padding) == 2 else ((0, 0), *border.padding)
    image = whole.inserted(2) if whole.rank == 3 else whole
    (top, bottom), (left, right) = pads
    batch, channels, rows, columns = image.shape
    view = StridedView(image.strides[0], image.strides[2], image.strides[3])
    inner = (rows - top - bottom, columns - left - right)
    kind: Literal["act", "float32"] = "act" if whole.dtype == "act" else "float32"
    return BorderSpec(batch, *inner, channels, top, left, bottom, right, view, kind)
