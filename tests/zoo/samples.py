"""Seeded inputs other than photographs: printed text, pages, sound and sentences."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FloatArray = NDArray[np.float32]
RATE = 16000

LINES = (
    "eight bits are enough",
    "the quick brown fox",
    "scale and zero point",
    "REGISTER TILE 4x16",
    "rounding to nearest even",
    "Total: 1294.50",
    "a graph of small steps",
    "weights stay between",
    "calibration set 07",
    "no float island here",
    "packed for the target",
    "May 12, 2031",
)
SENTENCES = (
    "A man is eating a piece of bread.",
    "Somebody eats some food.",
    "The compiler folds the network into eight bits.",
    "Neural networks can be quantized after training.",
    "The weather is lovely today.",
    "It is so sunny outside!",
    "He drove to the stadium.",
    "Two kernels share one register tile.",
    "The stock market fell sharply on Monday.",
    "Children are playing football in the park.",
)


def text_line(text: str, width: int = 320, height: int = 48, *, upside_down: bool = False) -> FloatArray:
    """Black print on light paper, float32 [3, height, width] with values -1..1, as the OCR networks want it."""
    page = Image.new("RGB", (width, height), (236, 232, 226))
    font = ImageFont.load_default(size=height * 0.62)
    ImageDraw.Draw(page).text((8, height * 0.1), text, fill=(24, 24, 32), font=font)
    return _signed(page.rotate(180) if upside_down else page)


def text_page(index: int, size: int = 256) -> Image.Image:
    """A square page of printed lines; ``index`` chooses which lines stand where."""
    page = Image.new("RGB", (size, size), (250 - 6 * (index % 5), 248, 240))
    paint = ImageDraw.Draw(page)
    points = 13 + index % 4
    font = ImageFont.load_default(size=points)
    for row in range((size - 20) // (points + 8)):
        text = LINES[(index + row) % len(LINES)] + "  " + LINES[(3 * index + row + 5) % len(LINES)]
        paint.text((12, 10 + row * (points + 8)), text, fill=(20, 20, 20), font=font)
    return page


def page_for_detection(index: int, size: int = 320) -> FloatArray:
    """A page as the text detector wants it: float32 [3, size, size], -1..1, ``size`` a multiple of 32."""
    return _signed(text_page(index, size))


def _signed(image: Image.Image) -> FloatArray:
    pixels = np.asarray(image, np.float32) / np.float32(255)
    return np.ascontiguousarray(((pixels - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1))


def tone(frequency: float, samples: int, seed: int) -> FloatArray:
    """A harmonic tone in a little noise at 16 kHz, float32 [samples], within -1..1."""
    draw = np.random.Generator(np.random.Philox(seed))
    time = np.arange(samples) / RATE
    wave = sum(np.sin(2 * np.pi * frequency * k * time + draw.uniform(0, 6)) / k for k in range(1, 6))
    noisy = 0.3 * np.asarray(wave) + 0.01 * draw.standard_normal(samples)
    return np.clip(noisy, -1, 1).astype(np.float32)


def pitch_frame(frequency: float, seed: int = 0) -> FloatArray:
    """1,024 samples with zero mean and unit variance, float32 [1024]."""
    frame = tone(frequency, 1024, seed)
    centred: FloatArray = (frame - frame.mean()) / frame.std()
    return centred


def vad_frames(count: int, seed: int) -> FloatArray:
    """Voiced stretches and near silence, float32 [count, 576]: 512 samples behind the 64 before them."""
    voiced = tone(110.0 + 9 * (seed % 13), 64 + 512 * count, seed)
    loud = (np.arange(voiced.size) // 4096 + seed) % 2 == 0
    sound = np.where(loud, voiced, 0.01 * voiced).astype(np.float32)
    return np.stack([sound[start : start + 576] for start in range(0, 512 * count, 512)])
