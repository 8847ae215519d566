"""The processes in which other runtimes work: each has its own threads, memory and environment.

A runner loads a model and answers each line of its standard input with the nanoseconds of one turn, measured by the
clock that octavo's own turns are measured with. Environment variables that a library reads once, such as
``ONEDNN_MAX_CPU_ISA``, are set before it starts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import ModelError
from ..closing import Closing
from ..processes import ChildProcess, private_stdout
from .peers import ONEDNN_ISA, Arrays, Peer, fix_shapes, last_words
from .timing import Call, clock_for, settling_for, timed


@dataclass(frozen=True)
class Described:
    """What a runner says of itself: its version, and which kernels multiply, as the runtime calls them, how often."""

    version: str
    kernels: Mapping[str, int]


class Runner(Closing):
    """A peer in a process of its own, with one model and fixed inputs.

    Raises:
        ModelError: the runtime cannot load or run the model.
    """

    def __init__(self, peer: Peer, model: Path, inputs: Arrays, threads: int, level: str | None = None) -> None:
        self._model = model
        self._inputs = tempfile.TemporaryDirectory(prefix="octavo-peer-")
        data = Path(self._inputs.name, "inputs.npz")
        named: dict[str, Any] = {str(index): array for index, array in enumerate(inputs)}
        np.savez(data, **named)
        job = {
            "runtime": peer.runtime,
            "model": str(model),
            "inputs": str(data),
            "precision": peer.precision,
            "threads": threads,
        }
        self.isa = ONEDNN_ISA.get(level or "") if peer.runtime == "openvino" else None
        limit = {"ONEDNN_MAX_CPU_ISA": self.isa} if self.isa else None
        self._child = ChildProcess(__name__, "serve", json.dumps(job), environment=limit)
        try:
            self.described = self._greet()
        except BaseException:
            self.close()
            raise

    def turn(self) -> int:
        """Nanoseconds of one run."""
        try:
            self._child.stdin.write(b"turn\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None
        return int(self._line())

    def close(self) -> None:
        """End the process."""
        self._child.close()
        self._inputs.cleanup()

    def _greet(self) -> Described:
        greeting: dict[str, Any] = json.loads(self._line())
        if "error" in greeting:
            raise ModelError(greeting["error"], where=str(self._model))
        return Described(greeting["version"], greeting["kernels"])

    def _line(self) -> bytes:
        line = self._child.stdout.readline()
        if not line:
            raise self._died()
        return line

    def _died(self) -> ModelError:
        status, lines = self._child.wait()
        return ModelError(f"the runtime ended with status {status}: {last_words(lines)}", where=str(self._model))


# In the child ------------------------------------------------------------------------------------------------------


def serve(text: str) -> None:
    """Load a model and answer each line of standard input; ``text`` is the job in JSON."""
    job: Mapping[str, Any] = json.loads(text)
    answers = private_stdout()

    def answer(line: str) -> None:
        answers.write(f"{line}\n".encode())
        answers.flush()

    with np.load(job["inputs"]) as data:
        inputs = tuple(data[str(index)] for index in range(len(data.files)))
    load: Callable[..., tuple[Call, Described]] = {"onnxruntime": _onnxruntime, "openvino": _openvino}[job["runtime"]]
    try:
        call, described = load(job["model"], inputs, job["threads"], job["precision"])
        call()
    except Exception as error:  # noqa: BLE001 - every failure travels to the caller as text
        answer(json.dumps({"error": f"{job['runtime']} does not run the model: {_first_line(error)}"}))
        return
    answer(json.dumps({"version": described.version, "kernels": described.kernels}))
    clock, settling = clock_for(job["threads"]), settling_for(job["threads"])
    for _ in sys.stdin:
        answer(str(timed(call, clock, settling)))


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _onnxruntime(model: str, inputs: Arrays, threads: int, precision: str | None) -> tuple[Call, Described]:
    """A session with all optimizations, fixed shapes, and inputs and outputs bound once."""
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    open_dimensions = _open_dimensions(session, inputs)
    if open_dimensions:
        for name, extent in open_dimensions.items():
            options.add_free_dimension_override_by_name(name, extent)
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    # Inputs go by position: octavo spells names as identifiers.
    for given, array in zip(session.get_inputs(), inputs, strict=True):
        binding.bind_cpu_input(given.name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)
    return lambda: session.run_with_iobinding(binding), Described(onnxruntime.__version__, {})


def _open_dimensions(session: Any, inputs: Sequence[np.ndarray]) -> dict[str, int]:
    return {
        dimension: extent
        for given, array in zip(session.get_inputs(), inputs, strict=True)
        for dimension, extent in zip(given.shape, array.shape, strict=True)
        if isinstance(dimension, str)
    }


_MULTIPLYING = (
    "Convolution",
    "Deconvolution",
    "FullyConnected",
    "MatMul",
    "LSTMSequence",
    "GRUSequence",
    "RNNSequence",
)


def _openvino(model: str, inputs: Arrays, threads: int, precision: str | None) -> tuple[Call, Described]:
    """A compiled model for latency with one stream, and inputs set once.

    Precision is OpenVINO's choice unless given.
    """
    import openvino  # pyright: ignore[reportMissingImports]

    core = openvino.Core()
    if precision and precision.upper() not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise RuntimeError(f"this CPU has no {precision}")
    network = core.read_model(model)
    fix_shapes(network, inputs)
    settings = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": threads}
    if precision:
        settings["INFERENCE_PRECISION_HINT"] = precision
    compiled = core.compile_model(network, "CPU", settings)
    request = compiled.create_infer_request()
    for index, array in enumerate(inputs):
        # The request refers to this memory for as long as it lives.
        request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
    version = openvino.__version__.partition("-")[0]
    return request.infer, Described(version, _kernels(compiled))


def _kernels(compiled: Any) -> dict[str, int]:
    """How often each implementation multiplies, such as ``brgconv_avx512_amx_i8``, the most frequent first."""
    counts: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if _text(info, "layerType") in _MULTIPLYING:
            counts[_text(info, "primitiveType").lower()] += 1
    return dict(counts.most_common())


def _text(info: Any, key: str) -> str:
    value = info[key]
    return str(value.astype(str) if hasattr(value, "astype") else value)
