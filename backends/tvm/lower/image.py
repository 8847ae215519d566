"""Images of a decoder: bytes that a network normalizes itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ....ir.graph import Node
from ....ir.ops.image import NormalizeImage
from ....ir.ops.integer import QImage
from ....ir.types import f32
from ...plan.builder import Constants, PlanBuilder, channels_last_order
from ...plan.views import View
from ..kernels.cast import CastSpec
from ..kernels.image import ImageSpec
from ..kernels.staircase import fit_lines, reciprocal, steps_divide
from ..kernels.unary import UnarySpec
from .chains import run_chain
from .registry import lowers
from .weighted import rounding_constants

TO_NCHW = (0, 3, 1, 2)
NHWC = channels_last_order(len(TO_NCHW))


@lowers(QImage)
def lower_qimage(site: PlanBuilder, node: Node) -> None:
    """Channels-last on both sides, into the border that the first layer wants."""
    op, pixels = node.op, site.contiguous(site.view(node.inputs[0]))
    assert isinstance(op, QImage)
    out = site.allocate(node.output, NHWC)
    # In a concat's buffer other channels lie between those of two pixels.
    target = out if _dense_rows(out) else site.scratch_view(out.shape, "act", NHWC)
    batch, height, width, channels = pixels.shape
    spec = ImageSpec(batch, height, width, channels, target.strides[0], target.strides[2])
    if (lines := fit_lines(op, channels)) is not None:
        site.call(spec, node.where, {"x": pixels, "out": target}, {**lines, "zero_point": site.stored(0)})
    elif steps_divide(op):
        steps = _steps(site, op)
        spec = replace(spec, by="steps" if np.any(steps["std_low"]) else "short-steps")
        site.call(spec, node.where, {"x": pixels, "out": target}, steps)
    else:
        _through_floats(site, node, target)
    if target is not out:
        site.copy(target, out, node.where)


def _dense_rows(view: View) -> bool:
    """Whether the pixels of a row follow each other."""
    _, channels, _, width = view.shape
    return (channels == 1 or view.strides[1] == 1) and (width == 1 or view.strides[3] == channels)


def _steps(site: PlanBuilder, op: QImage) -> Constants:
    high, low = reciprocal(op.std)
    common = np.concatenate([*reciprocal([op.scale]), *reciprocal(op.out.scale)])
    numbers = {"mean": np.asarray(op.mean, np.float32), "std_high": high, "std_low": low, "common": common}
    return {**numbers, "zero_point": site.stored(op.out.zero_point[0])}


def _through_floats(site: PlanBuilder, node: Node, target: View) -> None:
    """What numbers far from any image's need: divisions."""
    op = node.op
    assert isinstance(op, QImage)
    numbers = site.scratch_view(target.shape, "float32", NHWC)
    normalize(site, node, op, numbers)
    constants: Constants = {"scale": np.float32(op.out.scale[0]), **rounding_constants(site, op.out)}
    spec = UnarySpec("quantize", target.shape, numbers.strides, target.strides)
    site.call(spec, node.where, {"x": numbers, "out": target}, constants)


@lowers(NormalizeImage)
def lower_normalize_image(site: PlanBuilder, node: Node) -> None:
    """Float readers of an image get numbers."""
    assert isinstance(node.op, NormalizeImage)
    normalize(site, node, node.op, site.allocate(node.output, NHWC))


def normalize(site: PlanBuilder, node: Node, op: NormalizeImage | QImage, out: View) -> None:
    """Pixels as float32 in the order of operations that the op is defined by."""
    pixels = site.view(node.inputs[0]).permuted(TO_NCHW)
    numbers = site.scratch_view(pixels.shape, "float32", NHWC)
    spec = CastSpec(pixels.dtype, "float32", pixels.shape, pixels.strides, numbers.strides)
    site.call(spec, node.where, {"x": pixels, "out": numbers})
    views = [numbers, _of_channels(site, op.mean), _of_channels(site, op.std)]
    run_chain(
        site, node.where, views, out, lambda c, x, mean, std: c("div", c("sub", c("div", x, op.scale), mean), std)
    )


def _of_channels(site: PlanBuilder, values: Sequence[float]) -> View:
    """One number for each channel, or one for all, to broadcast along NCHW."""
    return site.constant(np.asarray(values, np.float32).reshape(-1, 1, 1), f32(len(values), 1, 1))
