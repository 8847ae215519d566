"""Networks of the zoo for other runtimes: as ONNX files in float32, and as their quantizers make them int8.

Exported and quantized files are kept under ``.cache/peers``, named after everything that they depend on.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from octavo.backends.bench.peers import OPSET, PeerFiles
from support.onnx_runtime import exact_options

from .cache import CACHE, cached
from .images import calibration_images, photos
from .registry import Inputs, ZooModel


def float_session(model: ZooModel, threads: int = 1) -> onnxruntime.InferenceSession:
    """ONNX Runtime with the float32 network."""
    return session(onnx_file(model), threads)


def int8_session(
    model: ZooModel, calibration: Sequence[Inputs], threads: int = 1, *, per_channel: bool = True
) -> onnxruntime.InferenceSession:
    """ONNX Runtime with its own static int8 (QDQ, u8 activations, s8 weights, min-max) of the network."""
    return session(files(model, calibration).qdq(per_channel=per_channel), threads)


def dynamic_session(model: ZooModel, threads: int = 1) -> onnxruntime.InferenceSession:
    """ONNX Runtime with s8 weights and activations quantized anew in each call, its usual form of a transformer."""
    return session(files(model, ()).dynamic(), threads)


def calibration_inputs(model: ZooModel, count: int = 100) -> list[Inputs]:
    """The sample's calibration pictures where there is one, or the model's own samples."""
    if model.recipe is None:
        return model.inputs(count)
    pictures = calibration_images() if "OCTAVO_EVAL_DATA" in os.environ else photos()
    return [(model.recipe(picture.open())[None],) for picture in pictures[:count]]


def answers(peer: onnxruntime.InferenceSession, inputs: Inputs) -> list[NDArray[Any]]:
    """All outputs of one call, inputs by position."""
    names = [value.name for value in peer.get_inputs()]
    return [np.asarray(out) for out in peer.run(None, dict(zip(names, inputs, strict=True)))]


def session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session with all optimizations and a fixed number of threads, for its answers."""
    return onnxruntime.InferenceSession(path, exact_options(threads), providers=["CPUExecutionProvider"])


def onnx_file(model: ZooModel) -> Path:
    """The network as an ONNX file: a package's own, or exported from torch at opset 17 with fixed shapes."""
    made = model.make()
    if isinstance(made, Path):
        return made
    module, example = made, tuple(map(torch.from_numpy, model.sample(0)))
    digest = _digest(torch.__version__.encode())
    for name, value in module.state_dict().items():
        digest.update(name.encode() + value.numpy().tobytes())

    def export(path: Path) -> None:
        with warnings.catch_warnings():
            # The exporter that needs no further package announces its successor.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module, example, path, dynamo=False, opset_version=OPSET, input_names=list(model.input_names)
            )

    return cached(f"{model.name}-{digest.hexdigest()[:16]}.onnx", export)


def files(model: ZooModel, calibration: Sequence[Inputs]) -> PeerFiles:
    """The network in the forms that other runtimes run, made by their own quantizers."""
    return PeerFiles(onnx_file(model), lambda: calibration, CACHE)


def _digest(*parts: bytes) -> hashlib._Hash:
    """A hash that starts with this file: another way to export is another cache entry."""
    return hashlib.sha256(Path(__file__).read_bytes() + b"".join(parts))
