"""From an image to the array a network expects: what torchvision's resize, center crop and normalization do, exactly.

::

    resize=256,crop=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225,interpolation=bicubic
    imagenet,interpolation=bicubic
    resize=48x192,mean=0.5,std=0.5,color=bgr
    resize=256,crop=224,layout=NHWC,dtype=uint8
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from ..ir.errors import InputError, ParseError
from ..ir.pixels import normalize

if TYPE_CHECKING:
    from PIL.Image import Image

    from .bundle.manifest import Json

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Layout = Literal["NCHW", "NHWC"]
Color = Literal["rgb", "bgr", "gray"]
Element = Literal["float32", "uint8"]
Size = tuple[int, ...]

_CHOICES: dict[str, tuple[str, ...]] = {
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
    "layout": ("NCHW", "NHWC"),
    "color": ("rgb", "bgr", "gray"),
    "dtype": ("float32", "uint8"),
}
_EXAMPLE = "for example resize=256,crop=224,mean=0.485/0.456/0.406,std=0.229/0.224/0.225,interpolation=bicubic"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif"})


@dataclass(frozen=True)
class Preprocess:
    """Steps from an image file to a batch of one: ``(pixels / scale - mean) / std`` in float32, or the bare pixels.

    Args:
        resize: ``(256,)`` the length of the shorter side, ``(48, 192)`` height and width, ``()`` as it is.
        crop: height and width cut from the center (one number: a square), black where the image is smaller.
        mean: subtracted, one per channel or one for all; in the order of ``color``.
        std: divided by, likewise.
        scale: what pixel values 0..255 are divided by first.
        dtype: ``uint8`` leaves pixels as they are, for networks that take bytes; then nothing is normalized.
    """

    resize: Size = ()
    crop: Size = ()
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    scale: float = 255.0
    interpolation: Interpolation = "bilinear"
    layout: Layout = "NCHW"
    color: Color = "rgb"
    dtype: Element = "float32"

    def __post_init__(self) -> None:
        for name in ("resize", "crop"):
            size: Size = getattr(self, name)
            if len(size) > 2 or any(n < 1 for n in size):
                raise ParseError(f"{name}={_print_size(size)} is no size", expected="for example 224 or 48x192")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ParseError(f"{name}={getattr(self, name)}", expected=f"one of {', '.join(choices)}")
        for name in ("mean", "std"):
            numbers: tuple[float, ...] = getattr(self, name)
            if len(numbers) not in (1, self.channels) or not np.isfinite(numbers).all():
                what = f"{name} holds {len(numbers)} number(s)"
                raise ParseError(what, expected=f"1 or {self.channels}, for {self.color}")
        if not all(self.std) or not (np.isfinite(self.scale) and self.scale):
            raise ParseError("std and scale divide, so they must be numbers other than 0")
        plain = PRESETS["none"] if self.dtype == "uint8" else self
        if (self.mean, self.std, self.scale) != (plain.mean, plain.std, plain.scale):
            raise ParseError("dtype=uint8 with mean, std or scale", expected="pixels as they are, or dtype=float32")

    @property
    def channels(self) -> int:
        return 1 if self.color == "gray" else 3

    def pixels(self) -> Preprocess:
        """What remains for images whose normalization is part of the network: resize, crop and color."""
        plain = PRESETS["none"]
        return dataclasses.replace(
            self, mean=plain.mean, std=plain.std, scale=plain.scale, layout="NHWC", dtype="uint8"
        )

    @classmethod
    def parse(cls, text: str) -> Preprocess:
        """What ``text`` spells: options ``name=value`` between commas, after the name of a preset if wanted.

        Raises:
            ParseError: an unknown option or preset, or a value that does not fit.
        """
        given = PRESETS["none"]
        for position, piece in enumerate(filter(None, map(str.strip, text.split(",")))):
            name, equals, value = piece.partition("=")
            if not equals and position == 0 and name in PRESETS:
                given = PRESETS[name]
            else:
                given = dataclasses.replace(given, **{name: _parse_option(name, value if equals else None)})
        return given

    def __str__(self) -> str:
        """The options that differ from their defaults; parses back to an equal value."""
        pieces: list[str] = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value != field.default:
                pieces.append(f"{field.name}={_print_option(field.name, value)}")
        return ",".join(pieces) or "none"

    def to_json(self) -> Json:
        """A JSON object with every option, as the manifest keeps it."""
        return cast("Json", {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()})

    @classmethod
    def from_json(cls, document: object) -> Preprocess:
        """Reads :meth:`to_json`.

        Raises:
            ParseError: the document is not of that form.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(document, Mapping) or not names.issuperset(document):
            expected = f"an object with {', '.join(sorted(names))}"
            raise ParseError("not a description of preprocessing", expected=expected)
        try:
            return cls(**{k: _from_json(k, v) for k, v in document.items()})
        except (TypeError, ValueError) as error:
            raise ParseError(f"not a description of preprocessing: {error}") from error

    def load(self, path: Path) -> np.ndarray:
        """The file's image, ready for the network: ``dtype`` of shape (1, C, H, W), or (1, H, W, C).

        Raises:
            InputError: the file is no readable image.
        """
        from PIL import Image, UnidentifiedImageError

        try:
            with Image.open(path) as image:
                return self.apply(image)
        except UnidentifiedImageError as error:
            raise InputError("not an image that Pillow can read", where=str(path)) from error
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise InputError(f"the image cannot be read: {reason}", where=str(path)) from error

    def apply(self, image: Image) -> np.ndarray:
        """A Pillow image as ``dtype`` of shape (1, C, H, W), or (1, H, W, C)."""
        image = image.convert("L" if self.color == "gray" else "RGB")
        image = _crop(_resize(image, self.resize, self.interpolation), self.crop)
        pixels = np.asarray(image, np.uint8).reshape(image.height, image.width, self.channels)
        if self.color == "bgr":
            pixels = pixels[:, :, ::-1]
        ready = pixels if self.dtype == "uint8" else normalize(pixels, self.scale, self.mean, self.std)
        ordered = ready.transpose(2, 0, 1) if self.layout == "NCHW" else ready
        return np.ascontiguousarray(ordered[np.newaxis])


PRESETS: Mapping[str, Preprocess] = {
    "none": Preprocess(),
    "imagenet": Preprocess((256,), (224,), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Preprocessings that have a name."""


# Pixels ------------------------------------------------------------------------------------------------------------


def _resize(image: Image, size: Size, interpolation: Interpolation) -> Image:
    from PIL import Image as Images

    if not size:
        return image
    if len(size) == 2:
        height, width = size
    else:
        # torchvision truncates the longer side.
        short, long = sorted(image.size)
        longer = int(size[0] * long / short)
        width, height = (size[0], longer) if image.width <= image.height else (longer, size[0])
    if (width, height) == image.size:
        return image
    return image.resize((width, height), Images.Resampling[interpolation.upper()])


def _crop(image: Image, size: Size) -> Image:
    if not size:
        return image
    height, width = size if len(size) == 2 else (size[0], size[0])
    if image.width < width or image.height < height:
        image = _pad(image, max(image.width, width), max(image.height, height))
    # Python's rounding (half to even) is what torchvision does here.
    left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
    return image.crop((left, top, left + width, top + height))


def _pad(image: Image, width: int, height: int) -> Image:
    from PIL import Image as Images

    canvas = Images.new(image.mode, (width, height))
    canvas.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return canvas


# Text --------------------------------------------------------------------------------------------------------------


def _parse_option(name: str, value: str | None) -> Any:
    known = [field.name for field in dataclasses.fields(Preprocess)]
    if value is None:
        known = list(PRESETS)
    if name not in known:
        kind = "preprocessing is named" if value is None else "preprocessing option is named"
        close = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {close[0]}?" if close else _EXAMPLE
        raise ParseError(f"no {kind} {name!r}", expected=f"one of {', '.join(known)}", hint=hint)
    if value is None:
        raise ParseError(f"{name} must come first", where="preprocessing", hint=f"{name},resize=...")
    try:
        if name in ("resize", "crop"):
            return tuple(map(int, value.split("x"))) if value != "none" else ()
        if name in ("mean", "std"):
            return tuple(map(float, value.split("/")))
        return float(value) if name == "scale" else value
    except ValueError:
        raise ParseError(f"{name}={value} is not a number", where="preprocessing", expected=_EXAMPLE) from None


def _print_option(name: str, value: Any) -> str:
    if name in ("resize", "crop"):
        return _print_size(value)
    if name in ("mean", "std"):
        return "/".join(map(_number, value))
    return _number(value) if name == "scale" else str(value)


def _print_size(size: Size) -> str:
    return "x".join(map(str, size)) or "none"


def _number(value: float) -> str:
    return repr(int(value)) if value == int(value) else repr(value)


def _from_json(name: str, value: Any) -> Any:
    if name in ("resize", "crop"):
        return tuple(int(n) for n in value)
    if name in ("mean", "std"):
        return tuple(float(n) for n in value)
    return float(value) if name == "scale" else str(value)
