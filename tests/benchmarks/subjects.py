"""What is measured: networks of the zoo with inputs for calibration and, disjoint from these, for evaluation."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zoo import bert, images, samples, zoo_model
from zoo.onnx_models import decode_text
from zoo.registry import Inputs, ZooModel

Extra = Callable[[NDArray[Any], NDArray[Any]], float]
"""A figure of its own for one evaluation sample, from the first output in float and in int8."""

WORDS = tuple(sorted({word for line in (*samples.LINES, *samples.SENTENCES) for word in line.split()}))
CALIBRATION_SEED, EVALUATION_SEED = 0, 1 << 20


@dataclass(frozen=True)
class Subject:
    """A network, its two sets of inputs, and how to judge its answers beyond flips and SQNR."""

    name: str
    title: str
    calibration: Callable[[], list[Inputs]]
    evaluation: Callable[[], list[Inputs]]
    data: str
    labels: Callable[[], list[int]] | None = None
    extras: Mapping[str, Extra] | None = None
    flips: bool = True

    @property
    def model(self) -> ZooModel:
        return zoo_model(self.name)


def _photographs(name: str, kind: str) -> Callable[[], list[Inputs]]:
    def load() -> list[Inputs]:
        recipe = zoo_model(name).recipe
        assert recipe is not None
        chosen = images.calibration_images() if kind == "calibration" else images.evaluation_images()
        return [(recipe(image.open())[None],) for image in chosen]

    return load


def _labels() -> list[int]:
    return [image.label for image in images.evaluation_images()]


def _small_photographs(kind: str) -> Callable[[], list[Inputs]]:
    """Photographs scaled to 32 x 32, values 0..255; for evaluation the twenty CIFAR pictures come first."""

    def load() -> list[Inputs]:
        chosen = images.calibration_images() if kind == "calibration" else images.evaluation_images()
        pictures = [image.open().resize((32, 32)) for image in chosen]
        if kind == "evaluation":
            pictures = [image.open() for image in images.cifar_photos()] + pictures
        arrays = [np.asarray(picture, np.float32).transpose(2, 0, 1) for picture in pictures]
        return [(np.ascontiguousarray(array)[None],) for array in arrays]

    return load


def text(seed: int) -> str:
    """One to four words, or a number now and then."""
    draw = np.random.default_rng(seed)
    words = [str(word) for word in draw.choice(WORDS, draw.integers(1, 5))]
    return " ".join(words if draw.random() < 0.7 else [*words[:2], f"{draw.integers(0, 10**6)}"])


def _seeded(count: int, seed: int, make: Callable[[int], Inputs]) -> Callable[[], list[Inputs]]:
    return lambda: [make(seed + index) for index in range(count)]


def _line(seed: int) -> Inputs:
    return (samples.text_line(text(seed))[None],)


def _turned_line(seed: int) -> Inputs:
    return (samples.text_line(text(seed), 192, upside_down=bool(seed % 2))[None],)


def _pitch(seed: int) -> Inputs:
    frequency = float(np.random.default_rng(seed).uniform(70, 900))
    return (samples.pitch_frame(frequency, seed)[None],)


def _pages(start: int, count: int) -> Callable[[], list[Inputs]]:
    return lambda: [(samples.page_for_detection(index)[None],) for index in range(start, start + count)]


def _turned_pages(start: int, count: int) -> Callable[[], list[Inputs]]:
    """Every page in two of the four positions. There are 60 different pages: lines, paper and size repeat apart."""

    def load() -> list[Inputs]:
        turned = [(index, turn) for index in range(start, start + count) for turn in (index // 4 % 4, (index + 2) % 4)]
        return [(images.IMAGENET(samples.text_page(index).rotate(-90 * turn))[None],) for index, turn in turned]

    return load


def _sentences(sources: Sequence[str], also: Sequence[str] = ()) -> Callable[[], list[Inputs]]:
    """The first lines of the docstrings of standard modules, which are sentences that every Python has."""

    def load() -> list[Inputs]:
        found = list(also)
        for source in sources:
            module = importlib.import_module(source)
            members = [member for _, member in sorted(vars(module).items()) if inspect.isroutine(member)]
            lines = [(inspect.getdoc(member) or "").partition("\n")[0] for member in members]
            found += [line for line in dict.fromkeys(lines) if line.count(" ") > 3]
        return [bert.tokenize(sentence, 32) for sentence in dict.fromkeys(found)]

    return load


def same_text(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """1 when both read the same text."""
    return float(decode_text(reference[0]) == decode_text(other[0]))


def overlap(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """Intersection over union of what lies above 0.3, the detector's threshold."""
    left, right = reference > 0.3, other > 0.3
    union = np.count_nonzero(left | right)
    return float(np.count_nonzero(left & right) / union) if union else 1.0


def cosine(reference: NDArray[Any], other: NDArray[Any]) -> float:
    """The cosine of the angle between two embeddings."""
    x, y = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y)))


def _imagenet(name: str, title: str) -> Subject:
    sets = _photographs(name, "calibration"), _photographs(name, "evaluation")
    return Subject(name, title, *sets, "ImageNet photographs", labels=_labels)


SUBJECTS: Mapping[str, Subject] = {
    subject.name: subject
    for subject in (
        _imagenet("mobilenet_v2", "MobileNetV2"),
        _imagenet("efficientnet_lite0", "EfficientNet-Lite0"),
        _imagenet("efficientnet_lite1", "EfficientNet-Lite1"),
        Subject(
            "cifar10_cnn",
            "CIFAR-10 CNN",
            _small_photographs("calibration"),
            _small_photographs("evaluation"),
            "small photographs",
        ),
        Subject(
            "ppocr_cls",
            "PP-OCRv4 line direction",
            _seeded(60, CALIBRATION_SEED, _turned_line),
            _seeded(200, EVALUATION_SEED, _turned_line),
            "printed lines",
        ),
        Subject(
            "page_orientation",
            "page orientation",
            _turned_pages(0, 30),
            _turned_pages(30, 30),
            "printed pages",
        ),
        Subject(
            "crepe_tiny",
            "CREPE tiny",
            _seeded(60, CALIBRATION_SEED, _pitch),
            _seeded(200, EVALUATION_SEED, _pitch),
            "harmonic tones",
        ),
        Subject(
            "ppocr_rec",
            "PP-OCRv4 recognition",
            _seeded(60, CALIBRATION_SEED, _line),
            _seeded(100, EVALUATION_SEED, _line),
            "printed lines",
            extras={"same text": same_text},
        ),
        Subject(
            "ppocr_det",
            "PP-OCRv4 detection",
            _pages(0, 30),
            _pages(30, 30),
            "printed pages",
            extras={"overlap": overlap},
            flips=False,
        ),
        Subject(
            "minilm_l6",
            "MiniLM-L6",
            _sentences(("shutil", "statistics", "textwrap", "inspect", "random")),
            _sentences(("os.path", "string", "glob", "calendar", "colorsys", "pathlib"), samples.SENTENCES),
            "sentences",
            extras={"cosine": cosine},
            flips=False,
        ),
    )
}
