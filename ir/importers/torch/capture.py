"""From whatever the user holds to an exported program whose graph is functional and made of ops we translate."""

from __future__ import annotations

import functools
import linecache
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from ...errors import ModelError
from ...interpreter import to_torch
from .archive import PICKLES, first_line, load_program
from .context import translations

Inputs = Sequence[Any] | Mapping[str, Any]

__all__ = ["PICKLES", "Inputs", "capture", "is_users_file"]


def capture(model: nn.Module | ExportedProgram | Path | str, inputs: Inputs | None, dynamic: bool) -> ExportedProgram:
    """A functional program of ops that have translations as far as decompositions reach."""
    if isinstance(model, str | Path):
        with _quiet():
            program = load_program(Path(model))
    elif isinstance(model, ExportedProgram):
        program = model
    elif isinstance(model, nn.Module):
        program = _export(model, inputs, dynamic)
    else:
        raise ModelError(
            f"cannot import a {type(model).__name__}", expected="an nn.Module, an ExportedProgram or the path of a .pt2"
        )
    return _decompose(program)


def _decompose(program: ExportedProgram) -> ExportedProgram:
    """Functionalize, and decompose every op that has no translation of its own."""
    with _quiet():
        try:
            functional: ExportedProgram = program.run_decompositions(_decompositions())
        except Exception as error:
            raise ModelError(
                f"torch cannot decompose the exported program: {first_line(error)}", where=_user_line(error)
            ) from error
    return functional


@functools.cache
def _decompositions() -> dict[Any, Callable[..., Any]]:
    """What torch knows to decompose, but for what we translate; listing it takes torch longer than most imports."""
    known = translations()
    table: Any = torch.export.default_decompositions()
    return {op: rule for op, rule in table.items() if op not in known}


# Modules -----------------------------------------------------------------------------------------------------------


def _export(module: nn.Module, inputs: Inputs | None, dynamic: bool) -> ExportedProgram:
    args, kwargs = _call_arguments(module, inputs, dynamic)
    shapes = _dynamic_shapes(args, kwargs) if dynamic else None
    with _eval_mode(module), _quiet(), torch.no_grad():
        try:
            return torch.export.export(module, args, kwargs, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            _explain(module, args, kwargs, error)
            raise


def _call_arguments(module: nn.Module, inputs: Inputs | None, dynamic: bool) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if inputs is None:
        hint = "pass example_inputs=(tensor, ...); a factory returns (module, (tensor, ...))"
        raise ModelError(f"{type(module).__name__} needs example inputs to be traced", hint=hint)
    if isinstance(inputs, torch.Tensor | np.ndarray):
        inputs = (inputs,)
    converted: Any = pytree.tree_map(lambda leaf: _example(leaf, dynamic), inputs)
    return ((), dict(converted)) if isinstance(inputs, Mapping) else (tuple(converted), {})


def _example(leaf: Any, dynamic: bool) -> Any:
    """A tensor; with a batch of two where the batch shall vary, since torch.export fixes sizes of one."""
    tensor = to_torch(leaf) if isinstance(leaf, np.ndarray) else leaf
    if dynamic and isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.shape[0] == 1:
        return torch.cat([tensor, tensor])
    return tensor


def _dynamic_shapes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Axis 0 of every example tensor may vary."""
    collection: Any = torch.export.ShapesCollection
    shapes = collection()
    for leaf in pytree.tree_leaves((args, kwargs)):
        if isinstance(leaf, torch.Tensor) and leaf.ndim:
            shapes[leaf] = {0: torch.export.Dim.DYNAMIC}
    return shapes


@contextmanager
def _eval_mode(module: nn.Module) -> Generator[None, None, None]:
    """Eval mode while capturing; each submodule's mode is put back after."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without torch.export's warnings of its own internals, and without fused kernels that have no ATen parts."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _explain(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], error: Exception) -> None:
    """Raise the :class:`ModelError` that says why capturing failed: the inputs, or the model's code."""
    try:
        module(*args, **kwargs)
    except Exception as failure:
        shown = ", ".join(_describe(leaf) for leaf in pytree.tree_leaves((args, kwargs)))
        raise ModelError(
            f"{type(module).__name__} does not run on the example inputs ({shown}): {first_line(failure)}",
            where=_user_line(failure),
            hint="pass inputs of the shapes and dtypes that forward expects",
        ) from failure
    if _is_data_dependent(error):
        raise ModelError(
            "the control flow depends on the data, so the model is not one fixed graph",
            where=_user_line(error),
            hint="choose with torch.where instead of a Python branch, keep sizes independent of values,"
            " or split the model there",
        ) from error
    raise ModelError(
        f"torch.export cannot capture {type(module).__name__}: {first_line(error)}",
        where=_user_line(error),
        hint="make this line traceable, or export the module yourself and pass the ExportedProgram",
    ) from error


def _is_data_dependent(error: BaseException) -> bool:
    kinds = {"GuardOnDataDependentSymNode", "DataDependentOutputException", "DynamicOutputShapeException"}
    signs = ("data-dependent", "Data-dependent", "data dependent", ".item()")
    return any(type(link).__name__ in kinds or any(sign in str(link) for sign in signs) for link in _chain(error))


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or current.__context__


_TORCH = str(Path(torch.__path__[0]).resolve())
_STDLIB = str(Path(sysconfig.get_paths()["stdlib"]).resolve())
_OURS = str(Path(__file__).resolve().parent)


def is_users_file(path: str) -> bool:
    """Whether a source file belongs neither to torch nor to Python nor to this importer."""
    if path.startswith("<"):
        return False
    full = str(Path(path).resolve())
    return not full.startswith((_TORCH, _OURS)) and (not full.startswith(_STDLIB) or "site-packages" in full)


def _user_line(error: BaseException) -> str | None:
    """``file:line: code`` of the innermost frame in the user's own code."""
    for link in _chain(error):
        for frame in reversed(traceback.extract_tb(link.__traceback__)):
            if is_users_file(frame.filename):
                code = frame.line or linecache.getline(frame.filename, frame.lineno or 0).strip()
                return f"{frame.filename}:{frame.lineno}: {code}"
    return None


def _describe(leaf: Any) -> str:
    if isinstance(leaf, torch.Tensor):
        return f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"
    return repr(leaf)
