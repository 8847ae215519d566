"""Every model of the zoo: how to make it, and inputs like those it was trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from . import bert, cifar, convnext, crepe, efficientnet_lite, light, mobilenet, onnx_models, resnet, samples
from .images import EFFICIENTNET_LITE0, EFFICIENTNET_LITE1, IMAGENET, ImageRecipe, cifar_photos, photos, seeded_images

Inputs = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class ZooModel:
    """A network and what it eats.

    ``make`` gives a torch module in eval mode or the path of an ONNX file; ``sample(index)`` gives the arrays of one
    call with batch size 1, in the order of ``input_names``; ``recipe`` is set where a photograph is the input.
    """

    name: str
    make: Callable[[], nn.Module | Path]
    sample: Callable[[int], Inputs]
    input_names: tuple[str, ...] = ("x",)
    recipe: ImageRecipe | None = None

    def module(self) -> nn.Module:
        """A fresh torch module, in eval mode."""
        made = self.make()
        assert isinstance(made, nn.Module), f"{self.name} is an ONNX file"
        return made

    def path(self) -> Path:
        """The ONNX file."""
        made = self.make()
        assert isinstance(made, Path), f"{self.name} is a torch module"
        return made

    def inputs(self, count: int = 1) -> list[Inputs]:
        """``count`` calls' worth of realistic inputs, the same on every machine."""
        return [self.sample(index) for index in range(count)]


def _photo(recipe: ImageRecipe, index: int) -> Inputs:
    return (recipe(photos()[index % len(photos())].open())[None],)


def _seeded_photo(index: int) -> Inputs:
    return (seeded_images(1, 224, 1000 + index),)


def _small_photo(index: int) -> Inputs:
    pixels = np.asarray(cifar_photos()[index % 20].open(), np.float32)
    return (np.ascontiguousarray(pixels.transpose(2, 0, 1))[None],)


def _pitch(index: int) -> Inputs:
    return (samples.pitch_frame(80.0 * 1.07 ** (index % 32), index)[None],)


def _sentence(index: int) -> Inputs:
    return bert.tokenize(samples.SENTENCES[index % len(samples.SENTENCES)], 32)


def _line(index: int) -> Inputs:
    return (samples.text_line(samples.LINES[index % len(samples.LINES)])[None],)


def _turned_line(index: int) -> Inputs:
    text = samples.LINES[index % len(samples.LINES)]
    return (samples.text_line(text, 192, upside_down=index % 2 == 1)[None],)


def _detection_page(index: int) -> Inputs:
    return (samples.page_for_detection(index)[None],)


def _turned_page(index: int) -> Inputs:
    return (IMAGENET(samples.text_page(index).rotate(-90 * (index % 4)))[None],)


def _sound(index: int) -> Inputs:
    state = np.zeros((1, 1, 128), np.float32)
    return samples.vad_frames(4, index), state, state.copy()


LIGHT_MODELS = ("densenet121", "inception_v2", "squeezenet", "vgg19")
_ALL = (
    ZooModel("cifar10_cnn", cifar.cifar10_cnn, _small_photo),
    ZooModel("convnext_tiny", convnext.convnext_tiny, _seeded_photo),
    ZooModel("crepe_tiny", crepe.crepe_tiny, _pitch),
    ZooModel(
        "efficientnet_lite0",
        efficientnet_lite.efficientnet_lite0,
        partial(_photo, EFFICIENTNET_LITE0),
        recipe=EFFICIENTNET_LITE0,
    ),
    ZooModel(
        "efficientnet_lite1",
        efficientnet_lite.efficientnet_lite1,
        partial(_photo, EFFICIENTNET_LITE1),
        recipe=EFFICIENTNET_LITE1,
    ),
    ZooModel("minilm_l6", bert.minilm_l6, _sentence, ("ids", "mask")),
    ZooModel("mobilenet_v2", mobilenet.mobilenet_v2, partial(_photo, IMAGENET), recipe=IMAGENET),
    ZooModel("page_orientation", onnx_models.page_orientation, _turned_page),
    ZooModel("ppocr_cls", onnx_models.ppocr_cls, _turned_line),
    ZooModel("ppocr_det", onnx_models.ppocr_det, _detection_page),
    ZooModel("ppocr_rec", onnx_models.ppocr_rec, _line),
    ZooModel("resnet18", resnet.resnet18, _seeded_photo),
    ZooModel("resnet50", resnet.resnet50, _seeded_photo),
    ZooModel("resnext50", resnet.resnext50, _seeded_photo),
    ZooModel("silero_vad", onnx_models.silero_vad, _sound, ("input", "h", "c")),
    *(ZooModel(name, partial(light.light_file, name), _seeded_photo) for name in LIGHT_MODELS),
)
MODELS = {model.name: model for model in _ALL}
ONNX_MODELS = ("page_orientation", "ppocr_cls", "ppocr_det", "ppocr_rec", "silero_vad")
TORCH_MODELS = tuple(name for name in MODELS if name not in (*ONNX_MODELS, *LIGHT_MODELS))


@cache
def zoo_model(name: str) -> ZooModel:
    """The model called ``name``; an unknown name lists the known ones."""
    if name not in MODELS:
        raise KeyError(f"no model {name!r} in the zoo; there are {', '.join(MODELS)}")
    return MODELS[name]
