"""The onnx package's own backend tests, through our importer and interpreter."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from octavo.ir import Graph, parse_graph, print_graph, run_graph, verify
from octavo.ir.constants import from_tensors
from octavo.ir.errors import ModelError, OctavoError, UnsupportedError
from octavo.ir.importers.onnx import NeedsConstantError, import_onnx
from onnx import numpy_helper
from onnx.backend.test.case.test_case import TestCase
from onnx.backend.test.loader import load_model_tests

KINDS = ("node", "pytorch-converted", "pytorch-operator", "simple")
HERE = Path(__file__).parent
PASSING, NOT_PASSING = HERE / "passing.txt", HERE / "not_passing.txt"

Array = np.ndarray[Any, np.dtype[Any]]


@functools.cache
def cases() -> Mapping[str, TestCase]:
    """Every test by ``kind/name``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # making the expected values divides by zero on purpose
        return {f"{kind}/{case.name}": case for kind in KINDS for case in load_model_tests(kind=kind)}


def failure(case: TestCase) -> str | None:
    """Why the test does not pass, or None when it does."""
    try:
        check(case)
    except UnsupportedError as error:
        op = error.ops[0]
        return f"{op.name}: {op.reason}"
    except NeedsConstantError as error:
        return f"data would have to be constant: {', '.join(error.inputs)}"
    except OctavoError as error:
        return f"{type(error).__name__}: {error.what}".splitlines()[0]
    except AssertionError as error:
        return "differs: " + " ".join(str(error).split())[:120]
    return None


def check(case: TestCase) -> None:
    """Import the model and compare what it gives with what the test expects, for every data set."""
    model = case.model or onnx.load(Path(str(case.model_dir)) / "model.onnx")
    names = [v.name for v in model.graph.input]
    for inputs, expected in _data_sets(case, model):
        feeds = dict(zip(names, map(_array, inputs), strict=False))
        graph, feeds = _import(model, feeds)
        verify(graph)
        text = print_graph(graph)
        assert print_graph(parse_graph(text, from_tensors(graph.constants()))) == text, "the text form does not parse"
        results = run_graph(graph, feeds)
        assert len(results) == len(expected), f"{len(results)} outputs, not {len(expected)}"
        for got, wanted in zip(results.values(), expected, strict=True):
            _compare(got, wanted, case.rtol, case.atol)


def _import(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> tuple[Graph, dict[str, Array]]:
    """The graph, and what is left to feed it by its own input names.

    One rule binds inputs as constants: those that the importer names. It names none that are data (float tensors of
    more than one axis).
    """
    constants: dict[str, Array] = {}
    while True:
        try:
            graph = import_onnx(model, constants=constants)
        except NeedsConstantError as error:
            new = {name: np.asarray(feeds[name]) for name in error.inputs if name not in constants}
            if not new:
                raise
            constants |= new
        else:
            left = [array for name, array in feeds.items() if name not in constants]
            return graph, {v.name: np.asarray(a) for v, a in zip(graph.inputs, left, strict=True)}


def _data_sets(case: TestCase, model: onnx.ModelProto) -> Sequence[tuple[Sequence[Any], Sequence[Any]]]:
    if case.data_sets is not None:
        return case.data_sets
    return [_stored(folder, model) for folder in sorted(Path(str(case.model_dir)).glob("test_data_set_*"))]


def _stored(folder: Path, model: onnx.ModelProto) -> tuple[list[Array], list[Array]]:
    """The arrays of one data set on disk."""

    def read(kind: str, count: int) -> list[Array]:
        paths = [folder / f"{kind}_{i}.pb" for i in range(count)]
        return [numpy_helper.to_array(onnx.TensorProto.FromString(p.read_bytes())) for p in paths if p.exists()]

    return read("input", len(model.graph.input)), read("output", len(model.graph.output))


def _array(value: Any) -> Any:
    """Tensors as arrays; sequences and absent values as they are."""
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _compare(got: Array, wanted: Any, rtol: float, atol: float) -> None:
    """As the onnx package's own runner compares."""
    wanted = _array(wanted)
    if not isinstance(wanted, np.ndarray):
        raise ModelError(f"the expected result is a {type(wanted).__name__}, not a tensor")
    assert got.dtype == wanted.dtype, f"dtype {got.dtype}, not {wanted.dtype}"
    assert got.shape == wanted.shape, f"shape {got.shape}, not {wanted.shape}"
    bits = {np.dtype(np.float16): 10, np.dtype(ml_dtypes.bfloat16): 7}.get(got.dtype)
    if got.dtype == ml_dtypes.bfloat16:
        got, wanted = got.astype(np.float32), wanted.astype(np.float32)
    try:
        np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)
    except AssertionError:
        if bits is None:
            raise
        error = np.abs(got.astype(np.float64) - wanted) / np.maximum(np.abs(wanted.astype(np.float64)), 2.0**-10)
        raise AssertionError(f"16-bit floats rounded at other places: up to {error.max() * 2**bits:.1f} ulp") from None


def read_lists() -> tuple[list[str], dict[str, str]]:
    """The checked-in lists: names that pass, and reasons of those that do not."""
    passing = PASSING.read_text(encoding="utf-8").split()
    rows = NOT_PASSING.read_text(encoding="utf-8").splitlines()
    return passing, dict(row.split("\t", 1) for row in rows)


def write_lists() -> tuple[int, int]:
    """Run everything and write both lists anew; returns their lengths."""
    reasons = {name: failure(case) for name, case in sorted(cases().items())}
    passing = [name for name, reason in reasons.items() if reason is None]
    PASSING.write_text("".join(f"{name}\n" for name in passing), encoding="utf-8")
    rows = [f"{name}\t{reason}\n" for name, reason in reasons.items() if reason is not None]
    NOT_PASSING.write_text("".join(rows), encoding="utf-8")
    return len(passing), len(rows)
