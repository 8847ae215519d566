"""From what a bundle of images takes back to what its model takes, as comparisons and other runtimes need it."""

from __future__ import annotations

import numpy as np
import pytest
from octavo.backends.entrance import entrance_of, model_feeds, model_shapes
from octavo.ir import DType, TensorType
from octavo.ir.types import f32

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3)).astype(np.uint8)
FEEDS: dict[str, np.ndarray] = {"size": np.ones((2, 2), np.float32), "image": PIXELS}
TYPES = {"size": f32(2, 2), "image": TensorType(DType.U8, (2, 4, 6, 3))}


@pytest.mark.parametrize("text", ["int8", "", "fuse,unknown-pass{x=1}"])
def test_other_pipelines_change_nothing(text: str) -> None:
    """Nor are passes looked up that nobody loaded."""
    entrance = entrance_of(text)
    assert entrance.passes == ()
    assert model_shapes(entrance, TYPES) == {"size": (2, 2), "image": (2, 4, 6, 3)}
    assert model_feeds(entrance, FEEDS) == FEEDS


@pytest.mark.parametrize(("layout", "shape"), [("NCHW", (2, 3, 4, 6)), ("NHWC", (2, 4, 6, 3))])
def test_images_become_the_models_numbers(layout: str, shape: tuple[int, ...]) -> None:
    entrance = entrance_of(f"image-input{{mean=[0.5],std=[0.25],layout={layout}}},unknown-pass,int8")
    assert model_shapes(entrance, TYPES) == {"size": (2, 2), "image": shape}
    feeds = model_feeds(entrance, FEEDS)
    assert list(feeds) == ["size", "image"]
    assert feeds["image"].shape == shape
    assert feeds["image"].dtype == np.float32
    assert feeds["image"].min() >= -2
    assert feeds["image"].max() <= 2
