"""What a model takes, where the first passes of its bundle's pipeline made it take something else."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from ..ir.types import DType, TensorType
from ..passes.image_input import ImageInput
from ..passes.options import split_outside
from ..passes.pipeline import Pipeline
from .batches import Feeds, Inputs


def entrance_of(pipeline: str) -> Pipeline:
    """The first passes of a bundle's pipeline that change what the network takes.

    The others are not parsed: they may be a user's own, which nobody loaded.
    """
    pieces = (piece.strip() for piece in split_outside(pipeline, ","))
    return Pipeline.parse(",".join(itertools.takewhile(lambda p: p.partition("{")[0] == ImageInput.name, pieces)))


def model_shapes(entrance: Pipeline, inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """The shapes of the model's inputs, from what a bundle takes that was made with those first passes."""
    shapes = {name: type.static_shape for name, type in inputs.items()}
    return shapes | {name: pass_.model_shape(shapes[name]) for pass_, name in _images(entrance, inputs)}


def model_feeds(entrance: Pipeline, feeds: Feeds) -> Feeds:
    """The model's inputs, from a batch for such a bundle."""
    inputs = {name: TensorType(DType.from_numpy(array.dtype), array.shape) for name, array in feeds.items()}
    numbers = {name: np.ascontiguousarray(pass_.numbers(feeds[name])) for pass_, name in _images(entrance, inputs)}
    return feeds | numbers


def _images(entrance: Pipeline, inputs: Inputs) -> Iterator[tuple[ImageInput, str]]:
    for pass_ in entrance.passes:
        assert isinstance(pass_, ImageInput)
        yield pass_, next(name for name, type in inputs.items() if pass_.takes(name, type))
