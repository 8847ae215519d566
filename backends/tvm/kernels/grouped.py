"""Grouped convolutions of few channels: groups become one by zeros, or lie side by side in vectors. No tvm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..isa import Isa
from .conv import ConvSpec
from .tiling import direct_dots

#: Bytes of a pixel that one load reads for the groups of a vector.
MOST_READ = 64


def choose(spec: ConvSpec, isa: Isa) -> ConvSpec:
    """The same convolution with vectors as full as its groups allow; itself where they are.

    What a run of K would be padded by holds the channels of further groups instead, with weights of zero in between.
    On x86 each lane of a vector may then read another group.
    """
    if spec.groups == 1:
        return spec
    dot = direct_dots(isa)[-1]
    joined = _most(spec.groups, lambda count: count * spec.in_channels <= dot.unit)
    depth, channels, groups = joined * spec.in_channels, joined * spec.out_channels, spec.groups // joined
    shared = 1
    if isa.family == "x86" and depth % dot.step == 0:
        shared = _most(groups, lambda count: count * channels <= isa.lanes and count * depth <= MOST_READ)
    return replace(
        spec,
        in_channels=depth,
        out_channels=shared * channels,
        groups=groups // shared,
        joined=joined,
        shared=shared,
    )


def _most(groups: int, fits: Callable[[int], bool]) -> int:
    """The largest divisor of the number of groups that fits, or 1."""
    return max(count for count in range(1, groups + 1) if groups % count == 0 and (count == 1 or fits(count)))
