"""Other runtimes with the same network: which forms of it are measured, and their files, made by their own quantizers.

ONNX Runtime quantizes to QDQ after its pre-process step, as its manual advises: u8 activations (s8 for ARM), s8
weights per channel, min-max. OpenVINO runs what NNCF makes of the float network, the same QDQ file, and the float
network in bf16: which of them is fastest depends on the network.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...ir.errors import ModelError, UsageError
from ..processes import ChildProcess, private_stdout

Arrays = tuple[npt.NDArray[Any], ...]
"""The inputs of one call, in the order of the network's."""

OPSET = 17
"""The oldest opset given to quantizers: per-channel weights need 13."""

_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul"}
_CONVOLUTIONS = {"Conv", "ConvTranspose"}

RUNTIMES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino", "nncf", "onnxruntime"),
}
"""The runtimes by name, and the packages that each and its quantizers need."""

ONEDNN_ISA: Mapping[str, str] = {"avx2": "AVX2", "avxvnni": "AVX2_VNNI", "avx512vnni": "AVX512_CORE_VNNI"}
"""What holds oneDNN, and so OpenVINO, to the instructions of a level (``ONEDNN_MAX_CPU_ISA``)."""


@dataclass(frozen=True)
class Peer:
    """A runtime with one form of the network.

    ``form`` names a file of `PeerFiles`; ``precision`` is asked of the runtime for what the file leaves in float32.
    """

    name: str
    runtime: str
    form: str
    precision: str | None = None


_FLOAT = (
    Peer("onnxruntime int8", "onnxruntime", "qdq"),
    Peer("onnxruntime float32", "onnxruntime", "given"),
    Peer("openvino int8 (NNCF)", "openvino", "nncf"),
    Peer("openvino int8 (QDQ)", "openvino", "qdq"),
    Peer("openvino bf16", "openvino", "given", "bf16"),
)
_DYNAMIC = Peer("onnxruntime int8 (dynamic)", "onnxruntime", "dynamic")
_GIVEN = (
    Peer("onnxruntime, as given", "onnxruntime", "given"),
    Peer("openvino, as given", "openvino", "given"),
)


def read_runtimes(text: str) -> tuple[str, ...]:
    """The runtimes of a list with commas.

    Raises:
        UsageError: one is unknown, or a package that it needs is not installed.
    """
    names = tuple(dict.fromkeys(word.strip() for word in text.split(",")))
    for name in names:
        if name not in RUNTIMES:
            raise UsageError(f"no runtime is named {name!r}", expected=f"some of {', '.join(RUNTIMES)}")
        check_installed(name)
    return names


def check_installed(runtime: str) -> None:
    """Raises :class:`UsageError` unless the packages of a runtime are installed."""
    missing = [package for package in RUNTIMES[runtime] if importlib.util.find_spec(package) is None]
    if missing:
        raise UsageError(
            f"{runtime} takes part by {' and '.join(missing)}, not installed here",
            hint=f"pip install {' '.join(missing)}, or octavo's extra: pip install 'octavo[bench]'",
        )


def chosen_peers(runtimes: Sequence[str], ops: frozenset[str], level: str | None = None) -> tuple[Peer, ...]:
    """What is measured of these runtimes for a network of such ONNX ops.

    A quantized network runs as it is. Held to a level without bf16, OpenVINO's float form is left out. Networks
    without convolutions also run with activations quantized in each call, ONNX Runtime's usual form of a transformer.
    """
    found: tuple[Peer, ...] = _FLOAT if ops & _CONVOLUTIONS else (*_FLOAT, _DYNAMIC)
    if ops & _QUANTIZED:
        found = _GIVEN
    return tuple(p for p in found if p.runtime in runtimes and not (p.precision and level in ONEDNN_ISA))


@dataclass(frozen=True)
class PeerFiles:
    """The forms of one float ONNX file, made when first asked for and kept in ``folder``.

    Files are named after everything that they depend on. ``calibration`` gives one call's inputs each.
    """

    source: Path
    calibration: Callable[[], Sequence[Arrays]]
    folder: Path

    def path(self, form: str) -> Path:
        """The file of a form: ``given``, ``qdq``, ``dynamic`` or ``nncf``.

        Raises:
            ModelError: the quantizer refuses the network.
        """
        makers: Mapping[str, Callable[[], Path]] = {
            "given": lambda: self.source,
            "qdq": self.qdq,
            "dynamic": self.dynamic,
            "nncf": self.nncf,
        }
        return makers[form]()

    @cached_property
    def ops(self) -> frozenset[str]:
        """The types of the network's nodes."""
        from ...ir.importers.onnx.files import op_types

        return op_types(self.source)

    def qdq(self, *, per_channel: bool = True, signed: bool = False) -> Path:
        """Static int8 by ONNX Runtime; activations are u8, or s8 if signed: on ARM the fewer instructions."""
        form = ("int8-channel" if per_channel else "int8-tensor") + ("-signed" if signed else "")
        name = self._name(form, "onnxruntime", calibrated=True)
        return self._made(f"{name}.onnx", lambda path: _write_qdq(self.source, path, self._calls, per_channel, signed))

    def dynamic(self) -> Path:
        """s8 weights per channel by ONNX Runtime, activations quantized anew in each call."""
        name = self._name("dynamic", "onnxruntime", calibrated=False)
        return self._made(f"{name}.onnx", lambda path: _write_dynamic(self.source, path))

    def nncf(self) -> Path:
        """Static int8 by NNCF's post-training quantization with its default settings, as OpenVINO's IR."""
        name = self._name("nncf", "nncf", calibrated=True)
        folder = self._made(name, lambda path: _write_nncf(self.source, path, self._calls))
        return folder / "model.xml"

    @cached_property
    def _calls(self) -> Sequence[Arrays]:
        return self.calibration()

    @cached_property
    def _digest_source(self) -> str:
        return hashlib.sha256(self.source.read_bytes()).hexdigest()

    @cached_property
    def _digest_calls(self) -> str:
        digest = hashlib.sha256()
        for arrays in self._calls:
            for array in arrays:
                digest.update(str(array.shape).encode() + array.tobytes())
        return digest.hexdigest()

    def _name(self, form: str, package: str, *, calibrated: bool) -> str:
        """The hash starts with this file: another way to quantize is another name."""
        parts = (metadata.version(package), self._digest_source, self._digest_calls if calibrated else "")
        digest = hashlib.sha256(Path(__file__).read_bytes() + "|".join(parts).encode()).hexdigest()
        return f"{self.source.stem}-{form}-{digest[:16]}"

    def _made(self, name: str, write: Callable[[Path], None]) -> Path:
        """The file or folder ``name``; two processes may make it at once, each gets a whole one."""
        path = self.folder / name
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.folder) as scratch:
                draft = Path(scratch) / name
                try:
                    write(draft)
                except ModelError:
                    raise
                except Exception as error:
                    reason = str(error).strip().partition("\n")[0] or type(error).__name__
                    raise ModelError(f"not quantized by its peer: {reason}", where=str(self.source)) from error
                with suppress(OSError):  # of a folder that another process has made meanwhile
                    draft.rename(path)
        return path


# ONNX Runtime ------------------------------------------------------------------------------------------------------


def _write_qdq(source: Path, target: Path, calls: Sequence[Arrays], per_channel: bool, signed: bool) -> None:
    import onnxruntime
    from onnxruntime import quantization

    prepared = _preprocessed(source, target)
    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(prepared, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]  # untyped package
        feeds = iter([dict(zip(names, arrays, strict=True)) for arrays in calls])

        def get_next(self) -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]
            return next(self.feeds, None)

    with _silent():
        quantization.quantize_static(
            prepared,
            target,
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=per_channel,
            activation_type=quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )


def _write_dynamic(source: Path, target: Path) -> None:
    from onnxruntime import quantization

    with _silent():
        quantization.quantize_dynamic(_preprocessed(source, target), target, per_channel=True)


@contextmanager
def _silent() -> Generator[None]:
    """ONNX Runtime's quantizer warns on the root logger of each bias, which has no channels of its own."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def _preprocessed(source: Path, target: Path) -> Path:
    """ONNX Runtime's pre-process step, after raising an old opset to one that knows per-channel quantization."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from ...ir.importers.onnx.files import raise_opset

    raised, prepared = target.with_suffix(".raised.onnx"), target.with_suffix(".prepared.onnx")
    raise_opset(source, raised, OPSET)
    quant_pre_process(raised, prepared, skip_symbolic_shape=True)
    return prepared


# NNCF --------------------------------------------------------------------------------------------------------------


def _write_nncf(source: Path, target: Path, calls: Sequence[Arrays]) -> None:
    """In a process of its own: NNCF imports torch, reports on stdout and configures logging."""
    target.mkdir()
    data = target.with_suffix(".npz")
    named: dict[str, Any] = {f"{call}_{at}": a for call, arrays in enumerate(calls) for at, a in enumerate(arrays)}
    np.savez(data, **named)
    job = {"source": str(source), "target": str(target / "model.xml"), "data": str(data), "calls": len(calls)}
    with ChildProcess(__name__, "quantize", json.dumps(job)) as child:
        status, lines = child.wait()
    if status:
        raise ModelError(f"NNCF does not quantize the model: {last_words(lines)}", where=str(source))


def quantize(text: str) -> None:
    """The body of that process; ``text`` is the job in JSON."""
    import nncf  # pyright: ignore[reportMissingImports]
    import openvino  # pyright: ignore[reportMissingImports]

    private_stdout()
    nncf.set_log_level(logging.ERROR)
    job: Mapping[str, Any] = json.loads(text)
    with np.load(job["data"]) as data:
        per_call = len(data.files) // job["calls"]
        calls = [tuple(data[f"{call}_{index}"] for index in range(per_call)) for call in range(job["calls"])]
    model = openvino.Core().read_model(job["source"])
    fix_shapes(model, calls[0])
    quantized = nncf.quantize(model, nncf.Dataset(calls, list), subset_size=len(calls))
    openvino.save_model(quantized, job["target"], compress_to_fp16=False)


def fix_shapes(model: Any, inputs: Arrays) -> None:
    """Give an OpenVINO model the shapes of these inputs, by position."""
    model.reshape({port: list(array.shape) for port, array in zip(model.inputs, inputs, strict=True)})


def last_words(lines: Sequence[str]) -> str:
    """The last line that a process of another runtime wrote on standard error."""
    return next((line for line in reversed(lines) if line.strip()), "it ended without a word")
