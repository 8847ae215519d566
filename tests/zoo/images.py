"""Photographs, their labels, and each model's preprocessing with Pillow as torchvision does it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from support.missing import MissingError

from .packages import REQUIRED, package_file

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ImageRecipe:
    """Scale the shorter side to ``resize``, cut ``crop`` x ``crop`` from the middle, map 0..1 to (x - mean) / std."""

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    filter: Image.Resampling = Image.Resampling.BILINEAR

    def __call__(self, image: Image.Image) -> FloatArray:
        """An RGB picture as float32 [3, crop, crop]."""
        width, height = image.size
        short = min(width, height)
        # torchvision truncates the longer side and rounds the corner of the crop half to even.
        size = (int(self.resize * width / short), int(self.resize * height / short))
        scaled = image.convert("RGB").resize(size, self.filter)
        left, top = round((size[0] - self.crop) / 2.0), round((size[1] - self.crop) / 2.0)
        pixels = np.asarray(scaled.crop((left, top, left + self.crop, top + self.crop)), np.float32)
        unit = pixels / np.float32(255)
        normal = (unit - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1))


IMAGENET = ImageRecipe(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
EFFICIENTNET_LITE0 = ImageRecipe(256, 224, (0.498, 0.498, 0.498), (0.502, 0.502, 0.502), Image.Resampling.BICUBIC)
EFFICIENTNET_LITE1 = ImageRecipe(272, 240, (0.498, 0.498, 0.498), (0.502, 0.502, 0.502), Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class LabelledImage:
    """A picture's file and its ImageNet class, 0..999."""

    path: Path
    label: int

    def open(self) -> Image.Image:
        with Image.open(self.path) as image:
            return image.convert("RGB")


@cache
def photos() -> tuple[LabelledImage, ...]:
    """Twenty labelled ImageNet photographs that ship with foolbox, as ``imagenet_<number>_<class>.jpg``."""
    folder = package_file("foolbox", "foolbox/data/imagenet_00_243.jpg").parent
    files = sorted(folder.glob("imagenet_*_*.jpg"))
    return tuple(LabelledImage(path, int(path.stem.split("_")[2])) for path in files)


@cache
def cifar_photos() -> tuple[LabelledImage, ...]:
    """Twenty labelled CIFAR-10 pictures that ship with foolbox; labels are 0..9."""
    folder = package_file("foolbox", "foolbox/data/cifar10_00_3.png").parent
    files = sorted(folder.glob("cifar10_*_*.png"))
    return tuple(LabelledImage(path, int(path.stem.split("_")[2])) for path in files)


@cache
def evaluation_sample() -> tuple[LabelledImage, ...]:
    """The 500 pictures of ``OCTAVO_EVAL_DATA/imagenet-sample-500``, ``<class>_<wnid>.jpg``, ordered by class.

    Raises:
        MissingError: they are not there.
    """
    if "OCTAVO_EVAL_DATA" not in os.environ:
        raise MissingError("OCTAVO_EVAL_DATA does not name a folder with imagenet-sample-500", REQUIRED)
    folder = Path(os.environ["OCTAVO_EVAL_DATA"]) / "imagenet-sample-500"
    files = sorted(folder.glob("*_n*.jpg"))
    if not files:
        raise MissingError(f"{folder} holds no pictures", REQUIRED)
    return tuple(LabelledImage(path, int(path.stem.split("_")[0])) for path in files)


def calibration_images() -> tuple[LabelledImage, ...]:
    """Every fifth picture of the sample, from the third on: 100 pictures spread over all classes."""
    return evaluation_sample()[2::5]


def evaluation_images() -> tuple[LabelledImage, ...]:
    """The 400 pictures that are not for calibration."""
    return tuple(image for index, image in enumerate(evaluation_sample()) if index % 5 != 2)


def batch(images: tuple[LabelledImage, ...], recipe: ImageRecipe) -> FloatArray:
    """The pictures as one float32 array [N, 3, crop, crop]."""
    return np.stack([recipe(image.open()) for image in images])


def seeded_images(count: int, size: int, seed: int) -> FloatArray:
    """Smooth random pictures, float32 [count, 3, size, size], with zero mean and unit variance each."""
    draw = np.random.Generator(np.random.Philox(seed))
    total = np.zeros((count, 3, size, size), np.float32)
    for cells in (4, 16, 64):
        coarse = draw.standard_normal((count, 3, cells, cells), np.float32)
        where = np.arange(size) * cells // size
        total += coarse[:, :, where][:, :, :, where]
    mean, std = total.mean((1, 2, 3), keepdims=True), total.std((1, 2, 3), keepdims=True)
    scaled: FloatArray = (total - mean) / std
    return scaled
