"""Whatever a user calls a model, as float graphs: one for each set of input shapes."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..ir.errors import ModelError, OctavoError, UsageError
from ..ir.graph import Graph
from ..ir.types import Dim, TensorType
from .shapes import Shapes, format_shapes

MODELS = "an .onnx, .pt2 or .octavo file, or package.module:factory"


@dataclass(frozen=True)
class Model:
    """A model that has been found but not read: a path, a torch module, an exported program, or a graph.

    Args:
        source: what the user gave.
        example_inputs: arguments of one call; torch modules need them.
        name: of the graphs; the file's or the module's by default.
        constants: ONNX inputs by name whose values are known at compile time.
        allow_non_finite: accept NaN and infinite weights.
    """

    source: Any
    example_inputs: Any = None
    name: str | None = None
    constants: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])
    allow_non_finite: bool = False

    def trace(self, shapes: Shapes | None = None) -> Graph:
        """The graph, with the given input shapes where there are any.

        Raises:
            ModelError: the model cannot be read, or the shapes do not fit it.
            UnsupportedError: lists every operation without a translation.
        """
        if isinstance(self.source, Graph):
            return self._reshape(self.source.clone(), shapes)
        if isinstance(self.source, str | os.PathLike):
            return self._trace_file(Path(self.source), shapes)
        if hasattr(self.source, "SerializeToString"):
            return self._trace_onnx(self.source, shapes)
        return self._trace_torch(shapes)

    def trace_fixed(self, plans: Sequence[Shapes]) -> tuple[Graph, ...]:
        """One graph of fixed shapes for each plan; without plans, the model's own shapes with a batch of one.

        Raises:
            ModelError: a dimension other than the batch is open.
        """
        if plans:
            return tuple(_require_fixed(self.trace(shapes)) for shapes in plans)
        graph = self.trace()
        if all(value.type.is_static for value in graph.inputs):
            return (_require_fixed(graph),)
        single = {v.name: _single(v.type) for v in graph.inputs if isinstance(v.type.shape[:1][0], Dim)}
        if any(shape is None for shape in single.values()):
            return (_require_fixed(graph),)
        return (_require_fixed(self.trace({name: s for name, s in single.items() if s is not None})),)

    @property
    def stem(self) -> str:
        """The file's name without its ending; empty for what is in memory."""
        return Path(self.source).stem if isinstance(self.source, str | os.PathLike) else ""

    def digest(self) -> str | None:
        """SHA-256 of the model's files; None when only reading the model tells what it is."""
        if not isinstance(self.source, str | os.PathLike) or self.constants:
            return None
        path = Path(self.source)
        digest = hashlib.sha256(path.suffix.encode())
        try:
            content = path.read_bytes()
            digest.update(content)
            if path.suffix == ".octavo" and (data := path.with_suffix(".safetensors")).exists():
                digest.update(data.read_bytes())
        except OSError as error:
            raise _unreadable(path, error) from error
        # ONNX models may keep weights in other files, named under this key.
        return None if path.suffix == ".onnx" and b"location" in content else digest.hexdigest()

    def _trace_file(self, path: Path, shapes: Shapes | None) -> Graph:
        try:
            with path.open("rb"):
                pass
        except OSError as error:
            raise _unreadable(path, error) from error
        if path.suffix == ".onnx":
            return self._trace_onnx(path, shapes)
        if path.suffix == ".octavo":
            from ..ir.text import load_graph

            return self._reshape(load_graph(path), shapes)
        from ..ir.importers.torch import import_torch

        graph = import_torch(path, name=self.name, allow_non_finite=self.allow_non_finite)
        return self._reshape(graph, shapes)

    def _trace_onnx(self, source: Any, shapes: Shapes | None) -> Graph:
        from ..ir.importers.onnx import import_onnx

        return import_onnx(
            source,
            shapes=shapes,
            constants=self.constants,
            name=self.name or (source.stem if isinstance(source, Path) else None),
            allow_non_finite=self.allow_non_finite,
        )

    def _trace_torch(self, shapes: Shapes | None) -> Graph:
        from ..ir.importers.torch import import_torch

        finite = self.allow_non_finite
        graph = import_torch(self.source, self.example_inputs, name=self.name, allow_non_finite=finite)
        current = {value.name: value.type.shape for value in graph.inputs}
        if not shapes or all(tuple(shapes.get(name, shape)) == shape for name, shape in current.items()):
            return self._reshape(graph, shapes)
        _check_names(graph, shapes)
        examples = {v.name: _example(v.type.with_shape(shapes.get(v.name, v.type.shape))) for v in graph.inputs}
        if type(self.source).__name__ == "ExportedProgram":
            return self._reshape(graph, shapes)
        inputs = examples if isinstance(self.example_inputs, Mapping) else tuple(examples.values())
        names = tuple(examples)
        return import_torch(self.source, inputs, name=self.name, input_names=names, allow_non_finite=finite)

    def _reshape(self, graph: Graph, shapes: Shapes | None) -> Graph:
        """The graph with other input shapes, inferred again from there."""
        if self.name:
            graph.name = self.name
        if not shapes:
            return graph
        _check_names(graph, shapes)
        types = {v.name: v.type.with_shape(shapes[v.name]) for v in graph.inputs if v.name in shapes}
        if all(v.type == types.get(v.name, v.type) for v in graph.inputs):
            return graph
        try:
            return graph.clone(inputs=types)
        except ModelError as error:
            raise ModelError(
                f"the network does not fit the shape {format_shapes(shapes)}: {error.what}",
                where=error.where,
                hint="a reshape with fixed numbers ties the network to one size: export it with a dynamic one",
            ) from error


def digest_graphs(graphs: Sequence[Graph]) -> str:
    """SHA-256 of graphs and their constants."""
    from ..ir.text import print_graph

    return hashlib.sha256("".join(map(print_graph, graphs)).encode()).hexdigest()


def parse_constant(text: str) -> tuple[str, np.ndarray]:
    """Name and value from ``NAME=VALUE``: JSON (i64, f32 or bool), or the path of an .npy file.

    Raises:
        UsageError: it is spelled otherwise, or the file cannot be read.
    """
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{text!r} is not a constant", expected="NAME=16000, NAME=[1,2] or NAME=FILE.npy")
    try:
        if value.endswith(".npy"):
            return name, np.load(value, allow_pickle=False)
        array = np.asarray(json.loads(value))
    except (OSError, ValueError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"the constant {name} cannot be read: {reason}", where=text) from error
    if array.dtype.kind not in "ifb":
        raise UsageError(f"the constant {name} is no number", where=text, expected="numbers of one shape")
    return name, array.astype(np.float32) if array.dtype.kind == "f" else array


def find_model(
    text: str, *, constants: Mapping[str, np.ndarray] | None = None, allow_non_finite: bool = False
) -> Model:
    """The model that ``text`` names on the command line; the other arguments are those of :class:`Model`.

    Raises:
        ModelError: no such file, an unknown kind of file, or a factory that cannot be imported or called.
    """
    found = _find_source(text)
    return dataclasses.replace(found, constants=dict(constants or {}), allow_non_finite=allow_non_finite)


def write_graph(graph: Graph, output: Path) -> None:
    """Write ``output`` (.octavo) and the constants beside it, where :func:`find_model` finds them again.

    Raises:
        UsageError: another ending, or the files cannot be written.
    """
    from ..ir.text import save_graph

    if output.suffix != ".octavo":
        raise UsageError(f"{output} would not be found again as a graph", expected="a name that ends in .octavo")
    try:
        with tempfile.TemporaryDirectory(prefix=".octavo-", dir=output.absolute().parent) as folder:
            save_graph(graph, Path(folder) / output.name)
            # The text last: it names constants that the other file holds.
            for path in sorted(Path(folder).iterdir(), key=lambda p: p.suffix == ".octavo"):
                path.replace(output.absolute().parent / path.name)
    except OSError as error:
        raise UsageError(f"the graph cannot be written: {error.strerror or error}", where=str(output)) from error


def _find_source(text: str) -> Model:
    """The model without options.

    Raises:
        ModelError: no such file, an unknown kind of file, or a factory that cannot be imported or called.
    """
    path = Path(text)
    if path.suffix in (".onnx", ".pt2", ".octavo") and (path.exists() or ":" not in text):
        if not path.exists():
            raise ModelError("no such file", where=text, expected=MODELS)
        if not path.is_dir():
            return Model(path)
    module, colon, attribute = text.partition(":")
    if colon and attribute and module and os.sep not in module:
        return _call_factory(module, attribute, text)
    if path.is_dir():
        hint = "a bundle is compiled already: run it"
        raise ModelError("a folder is no model", where=text, expected=MODELS, hint=hint)
    from ..ir.importers.torch.capture import PICKLES

    if path.suffix in PICKLES and path.exists():
        from ..ir.importers.torch import import_torch

        import_torch(path)  # raises, and explains why pickles are refused
    what = f"{path.suffix or 'this'} is no kind of model that octavo reads" if path.exists() else "no such model"
    raise ModelError(what, where=text, expected=MODELS)


def _call_factory(module: str, attribute: str, text: str) -> Model:
    """Import ``module`` (the working directory first) and call its ``attribute``."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        factory: Callable[[], Any] = getattr(importlib.import_module(module), attribute)
    except OctavoError:
        raise
    except ImportError as error:
        raise ModelError(f"{module} cannot be imported: {error}", where=text) from error
    except AttributeError as error:
        hint = "the name after the colon is a function in that module"
        raise ModelError(str(error), where=text, hint=hint) from error
    except Exception as error:
        raise ModelError(f"importing {module} failed: {type(error).__name__}: {error}", where=text) from error
    if not callable(factory):
        raise ModelError(f"{attribute} is a {type(factory).__name__}, not a function", where=text)
    try:
        made = factory()
    except OctavoError:
        raise
    except Exception as error:
        raise ModelError(f"{attribute}() failed: {type(error).__name__}: {error}", where=text) from error
    model, *inputs = made if isinstance(made, tuple) else (made,)
    if not inputs:
        return Model(model, getattr(model, "example_inputs", None))
    return Model(model, inputs[0] if len(inputs) == 1 and isinstance(inputs[0], tuple | dict) else tuple(inputs))


def _check_names(graph: Graph, shapes: Shapes) -> None:
    known = [value.name for value in graph.inputs]
    for name, shape in shapes.items():
        if name not in known:
            raise ModelError(f"a shape is given for {name}, which is no input", expected=f"one of {', '.join(known)}")
        rank = next(v.type.rank for v in graph.inputs if v.name == name)
        if len(shape) != rank:
            raise ModelError(f"a shape of {len(shape)} dimensions is given for {name}", expected=f"{rank} dimensions")


def _example(type: TensorType) -> np.ndarray:
    return np.zeros(type.static_shape, type.dtype.numpy)


def _single(type: TensorType) -> tuple[int, ...] | None:
    """The shape with a batch of one; None when another dimension is open."""
    rest = tuple(d for d in type.shape[1:] if isinstance(d, int))
    return (1, *rest) if len(rest) == type.rank - 1 else None


def _require_fixed(graph: Graph) -> Graph:
    from ..passes.narrow_floats import narrow_interface

    narrow_interface(graph)
    for value in graph.inputs:
        if not value.type.is_static:
            shown = "x".join("..." if isinstance(d, Dim) else str(d) for d in value.type.shape)
            raise ModelError(
                f"the shape of input {value.name} is open: {value.type}", hint=f"--shape {value.name}={shown}"
            )
    return graph


def _unreadable(path: Path, error: OSError) -> ModelError:
    return ModelError(f"the model cannot be read: {error.strerror or error}", where=str(path), expected=MODELS)
