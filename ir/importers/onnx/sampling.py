"""Reading images at computed coordinates, and windows back into images."""

from __future__ import annotations

import numpy as np

from ...ops.elementwise import Mul
from ...ops.sampling import Col2Im, DeformConv, GridSample, RoiAlign
from ...ops.shape import Gather
from ...ops.spectral import Determinant, Dft
from ...types import normalize_axis
from .attributes import element_type, pairs
from .context import Context
from .errors import Refusal
from .moves import reshape
from .operand import Operand
from .registry import translate


@translate("GridSample")
def grid_sample(c: Context) -> Operand:
    """The names of modes changed with opset 20."""
    mode = c.text("mode", "linear")
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    if mode == "cubic" and c.type(0).rank != 4:
        raise Refusal("cubic interpolation of a volume")
    op = GridSample(mode, c.text("padding_mode", "zeros"), bool(c.integer("align_corners", 0)))
    return c.emit(op, c.value(0), c.value(1))


@translate("RoiAlign")
def roi_align(c: Context) -> Operand:
    """Before opset 16 coordinates were not shifted by half a pixel."""
    size = (c.integer("output_height", 1), c.integer("output_width", 1))
    default = "half_pixel" if c.version >= 16 else "output_half_pixel"
    shift = 0.5 if c.text("coordinate_transformation_mode", default) == "half_pixel" else 0.0
    maximum = c.text("mode", "avg") == "max"
    op = RoiAlign(size, c.real("spatial_scale", 1.0), c.integer("sampling_ratio", 0), maximum, shift)
    return c.emit(op, *c.values())


@translate("Col2Im")
def col2im(c: Context) -> Operand:
    """Image and block shapes must be known."""
    size, kernel = c.integers(1), c.integers(2)
    ones = (1,) * len(size)
    padding = pairs(c.ints("pads", (0,) * 2 * len(size)))
    op = Col2Im(size, kernel, c.ints("strides", ones), padding, c.ints("dilations", ones))
    return c.emit(op, c.value(0))


@translate("DeformConv")
def deform_conv(c: Context) -> Operand:
    """Two spatial dimensions."""
    if c.type(0).rank != 4:
        raise Refusal("deformable convolution of anything but images")
    stride, dilation = c.ints("strides", (1, 1)), c.ints("dilations", (1, 1))
    op = DeformConv(
        (stride[0], stride[1]),
        pairs(c.ints("pads", (0, 0, 0, 0))),
        (dilation[0], dilation[1]),
        c.integer("group", 1),
        c.integer("offset_group", 1),
    )
    weight = c.value(1)
    bias = c.value(3) if c.has(3) else c.const(np.zeros(c.fixed(weight.type.shape[:1]), weight.type.dtype.numpy))
    return c.emit(op, c.value(0), weight, c.value(2), bias, *([c.value(4)] if c.has(4) else []))


@translate("Det")
def determinant(c: Context) -> Operand:
    """Of each matrix."""
    return c.emit(Determinant(), c.value(0))


@translate("DFT")
def dft(c: Context) -> Operand:
    """The axis became an operand with opset 20."""
    x = c.value(0)
    if c.version >= 20:
        axis = int(c.constant(2, "the axis").reshape(-1)[0]) if c.has(2) else -2
    else:
        axis = c.integer("axis", 1)
    axis = normalize_axis(axis, x.type.rank)
    inverse, onesided = bool(c.integer("inverse", 0)), bool(c.integer("onesided", 0))
    if c.has(1):
        length = int(c.constant(1, "the length").reshape(-1)[0])
    else:
        (length,) = c.fixed((x.type.shape[axis],))
        length = 2 * (length - 1) if inverse and onesided else length
    return c.emit(Dft(axis, length, inverse, onesided), x)


@translate("STFT")
def stft(c: Context) -> Operand:
    """Frames of the signal, weighed by the window, each transformed."""
    signal = c.value(0)
    batch, length = c.fixed(signal.type.shape[:2])
    step = int(c.constant(1, "the frame step").reshape(-1)[0])
    window = c.optional(2)
    if c.has(3):
        frame = int(c.constant(3, "the frame length").reshape(-1)[0])
    else:
        (frame,) = c.fixed((window.type.shape[0],)) if window is not None else (length,)
    starts = np.arange((length - frame) // step + 1) * step
    frames = c.emit(Gather(1), signal, c.const((starts[:, None] + np.arange(frame)).astype(np.int64)))
    parts = 1 if signal.type.rank == 2 else signal.type.shape[-1]
    frames = reshape(c, frames, (batch, len(starts), frame, parts))
    if window is not None:
        frames = c.emit(Mul(), frames, reshape(c, window, (frame, 1)))
    return c.emit(Dft(2, frame, inverse=False, onesided=bool(c.integer("onesided", 1))), frames)


@translate("MelWeightMatrix")
def mel_weight_matrix(c: Context) -> Operand:
    """A constant: triangles, evenly spaced in mel, over the bins of a spectrum."""
    bands, length, rate = (int(c.constant(i).reshape(-1)[0]) for i in range(3))
    low, high = (float(c.constant(i).reshape(-1)[0]) for i in (3, 4))
    mel = np.linspace(0, bands + 1, bands + 2) * (_mel(high) - _mel(low)) / (bands + 2) + _mel(low)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    bins = np.floor((length + 1) * hertz / rate).astype(np.int64)
    weights = np.zeros((length // 2 + 1, bands))
    for band in range(bands):
        first, center, last = bins[band : band + 3]
        if center == first:
            weights[center, band] = 1
        else:
            rising = np.arange(first, center + 1)
            weights[rising, band] = (rising - first) / (center - first)
        falling = np.arange(center, last)
        weights[falling, band] = (last - falling) / (last - center) if last > center else 0
    dtype = element_type(c.integer("output_datatype", 1), c.origin)
    return c.const(weights.astype(dtype.numpy))


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))
