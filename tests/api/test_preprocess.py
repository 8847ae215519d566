"""Preprocessing: its text and JSON forms, and its pixels beside torch's own operations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from octavo.backends.preprocess import PRESETS, Preprocess
from octavo.ir.errors import InputError, ParseError
from PIL import Image

TEXTS = [
    "none",
    "resize=256,crop=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225",
    "resize=256,crop=224,mean=0.498,std=0.502,interpolation=bicubic",
    "resize=48x192,mean=0.5,std=0.5,color=bgr",
    "crop=28,scale=1,layout=NHWC,color=gray",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_and_json_read_back(text: str) -> None:
    preprocess = Preprocess.parse(text)
    assert str(preprocess) == text
    assert Preprocess.from_json(preprocess.to_json()) == preprocess


sizes = st.lists(st.integers(1, 4096), max_size=2).map(tuple)
numbers = st.floats(-1e6, 1e6).filter(bool)


@given(
    st.builds(
        Preprocess,
        resize=sizes,
        crop=sizes,
        mean=st.tuples(numbers) | st.tuples(numbers, numbers, numbers),
        std=st.tuples(numbers),
        scale=numbers,
        interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
        layout=st.sampled_from(["NCHW", "NHWC"]),
        color=st.sampled_from(["rgb", "bgr"]),
    )
)
def test_every_value_reads_back(preprocess: Preprocess) -> None:
    assert Preprocess.parse(str(preprocess)) == preprocess
    assert Preprocess.from_json(preprocess.to_json()) == preprocess


def test_a_preset_can_be_changed() -> None:
    changed = Preprocess.parse("imagenet, interpolation=bicubic")
    assert changed.crop == PRESETS["imagenet"].crop
    assert changed.interpolation == "bicubic"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("resize=big", "resize=big is not a number"),
        ("resize=0", "is no size"),
        ("resize=1x2x3", "is no size"),
        ("crops=224", "did you mean crop"),
        ("imagnet", "did you mean imagenet"),
        ("crop=224,imagenet", "must come first"),
        ("mean=0.1/0.2", "1 or 3"),
        ("std=0", "other than 0"),
        ("scale=nan", "other than 0"),
        ("interpolation=cubic", "one of nearest, bilinear, bicubic, lanczos"),
        ("layout=HWC", "one of NCHW, NHWC"),
    ],
)
def test_a_mistake_says_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(ParseError, match=message):
        Preprocess.parse(text)


@pytest.mark.parametrize("document", [None, [], {"size": 3}, {"mean": "x"}, {"resize": 5}, {"scale": []}])
def test_other_json_is_refused(document: object) -> None:
    with pytest.raises(ParseError):
        Preprocess.from_json(document)


def picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (257, 256), (640, 171), (100, 300)])
def test_resize_and_crop_follow_torchvision(size: tuple[int, int]) -> None:
    """torchvision.transforms: Resize(256) truncates the longer side, CenterCrop rounds half to even and pads black."""
    image = picture(*size)
    ours = Preprocess((256,), (224,), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).apply(image)
    short, long = min(size), max(size)
    resized = (256, int(256 * long / short)) if size[0] <= size[1] else (int(256 * long / short), 256)
    scaled = image.resize(resized, Image.Resampling.BILINEAR)
    left, top = round((resized[0] - 224) / 2.0), round((resized[1] - 224) / 2.0)
    pixels = np.asarray(scaled, np.float32)[top : top + 224, left : left + 224] / np.float32(255)
    mean, std = (np.asarray(v, np.float32) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = (pixels - mean) / std
    np.testing.assert_array_equal(ours, expected.transpose(2, 0, 1)[None])
    assert ours.dtype == np.float32


def test_a_small_image_is_padded_black_in_the_center() -> None:
    image = Image.new("RGB", (3, 2), (255, 255, 255))
    cropped = Preprocess(crop=(5, 4), layout="NHWC").apply(image)[0, :, :, 0]
    assert cropped.shape == (5, 4)
    assert cropped.sum() == 6.0
    assert cropped[1:3, 0:3].all()


def test_color_order_and_layout() -> None:
    image = Image.new("RGBA", (2, 2), (10, 20, 30, 255))
    assert Preprocess(scale=1.0, color="bgr").apply(image)[0, :, 0, 0].tolist() == [30, 20, 10]
    assert Preprocess(scale=1.0, layout="NHWC").apply(image).shape == (1, 2, 2, 3)
    assert Preprocess(color="gray").apply(image).shape == (1, 1, 2, 2)


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "fake.png"
    path.write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"Pillow can read(.|\n)*fake.png"):
        Preprocess().load(path)
    picture(64, 64).save(path)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(InputError, match=r"cannot be read(.|\n)*fake.png"):
        Preprocess().load(path)
