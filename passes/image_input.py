"""Networks that take pixels as a decoder gives them, and normalize them on their own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np

from ..ir.errors import ParseError, PassError
from ..ir.graph import Graph, Value
from ..ir.op import Stage
from ..ir.ops.cast import Cast
from ..ir.ops.image import PIXEL_RANK, NormalizeImage
from ..ir.ops.shape import Transpose
from ..ir.pixels import normalize
from ..ir.types import DType, TensorType
from .base import Exactness, Pass, PassContext
from .registry import register_pass

CHANNELS = (1, 3)
"""Gray, and three colors."""


@register_pass
@dataclass(frozen=True)
class ImageInput(Pass):
    """Let the network take images u8[N,H,W,C], and compute (pixels / scale - mean) / std of them itself.

    ``mean`` and ``std`` hold one number for each channel, or one for all. ``layout`` is how the model has its input,
    NCHW or NHWC. Of several inputs ``input`` names the image; the only one that can be an image needs no name.
    """

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    input: str | None = None

    name: ClassVar[str] = "image-input"
    exactness: ClassVar[Exactness] = Exactness.EXACT
    interface: ClassVar[bool] = True

    def __post_init__(self) -> None:
        numbers = (*self.mean, *self.std, self.scale)
        if not (self.mean and all(self.std) and self.std and self.scale and np.isfinite(numbers).all()):
            raise ParseError("image-input: mean, std and scale are finite numbers, and the last two are not 0")
        if len(self._counts()) > 1 and max(map(len, (self.mean, self.std))) > 1:
            what = f"image-input: mean is of {len(self.mean)} channels, std of {len(self.std)}"
            raise ParseError(what, expected="the same number, or one for all channels")

    def apply(self, graph: Graph, context: PassContext) -> bool:
        op = NormalizeImage(self.mean, self.std, self.scale)
        if any(node.op == op for node in graph.nodes):
            return False
        if any(node.op.stage is Stage.INTEGER for node in graph.nodes):
            hint = "begin with the float model: image-input comes before the freeze"
            raise PassError("the graph is frozen, and its input is on a grid already", where=graph.name, hint=hint)
        value = self._image(graph)
        self._feed(graph, value, op)
        context.report(f"input {value.name} takes pixels: {value.type}")
        return True

    def model_shape(self, image: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of the model's input, from that of the images."""
        n, h, w, c = image
        return (n, c, h, w) if self.layout == "NCHW" else image

    def numbers(self, images: np.ndarray) -> np.ndarray:
        """What the model takes, float32, for images u8[N, H, W, C]."""
        numbers = normalize(images, self.scale, self.mean, self.std)
        return numbers.transpose(0, 3, 1, 2) if self.layout == "NCHW" else numbers

    def takes(self, name: str, type: TensorType) -> bool:
        """Whether an input of this name and type may be the one that became an image."""
        pixels = type.dtype is DType.U8 and type.rank == PIXEL_RANK and self._fits(type.shape[3])
        return pixels and self.input in (None, name)

    def _image(self, graph: Graph) -> Value:
        """The input that becomes an image.

        Raises:
            PassError: none can, or several can and ``input`` names none of them.
        """
        inputs = [value for value in graph.inputs if self.input in (None, value.name)]
        if not inputs:
            names = ", ".join(value.name for value in graph.inputs)
            raise PassError(f"no input is named {self.input}", where=graph.name, expected=f"one of {names}")
        obstacles = {value: self._obstacle(value.type) for value in inputs}
        images = [value for value, obstacle in obstacles.items() if obstacle is None]
        if len(images) == 1:
            return images[0]
        if images:
            names = ", ".join(value.name for value in images)
            hint = f"name it at the beginning of the pipeline: image-input{{input={images[0].name},...}}"
            raise PassError(f"several inputs can be the image: {names}", where=graph.name, hint=hint)
        raise self._refusal(graph, obstacles)

    def _refusal(self, graph: Graph, obstacles: Mapping[Value, str | None]) -> PassError:
        """Says of every input why it is no image, and which layout would make one of them one."""
        shown = "; ".join(f"{value.name} is {value.type}, {obstacle}" for value, obstacle in obstacles.items())
        channels = " or ".join(map(str, self._counts()))
        shape = f"[N,{channels},H,W]" if self.layout == "NCHW" else f"[N,H,W,{channels}]"
        other = replace(self, layout="NHWC" if self.layout == "NCHW" else "NCHW")
        turned = any(other._obstacle(value.type) is None for value in obstacles)
        hint = f"layout={other.layout}" if turned else None
        return PassError(f"no input can be an image: {shown}", where=graph.name, expected=f"float {shape}", hint=hint)

    def _obstacle(self, type: TensorType) -> str | None:
        """Why an input of this type cannot become an image, or None."""
        if not type.dtype.is_float:
            return "which is not float: it takes what it is given"
        if type.rank != PIXEL_RANK:
            return f"which has {type.rank} dimensions"
        channels = type.shape[1 if self.layout == "NCHW" else 3]
        return None if self._fits(channels) else f"which has {channels} channel(s) in {self.layout} order"

    def _fits(self, channels: object) -> bool:
        return channels in self._counts()

    def _counts(self) -> tuple[int, ...]:
        """How many channels images may have."""
        given = {len(numbers) for numbers in (self.mean, self.std) if len(numbers) > 1}
        return tuple(sorted(given)) if given else CHANNELS

    def _feed(self, graph: Graph, value: Value, op: NormalizeImage) -> None:
        """Everything that read the input reads what ``op`` makes of it, in the layout and type that it had."""
        given, first = value.type, next(iter(graph.nodes), None)
        n, h, w, c = given.shape if self.layout == "NHWC" else (given.shape[i] for i in (0, 2, 3, 1))
        value.type = TensorType(DType.U8, (n, h, w, c))
        node = graph.insert(op, [value], before=first, origin=value.name, names=[f"{value.name}.normalized"])
        made = node.output
        if self.layout == "NHWC":
            made = graph.insert(Transpose((0, 2, 3, 1)), [made], after=node, origin=value.name).output
        if given.dtype is not DType.F32:
            made = graph.insert(Cast(given.dtype), [made], after=made.producer, origin=value.name).output
        graph.replace(value, made)
        node.set_input(0, value)
