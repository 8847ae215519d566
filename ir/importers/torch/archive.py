"""Exported programs in files: a ``.pt2`` archive is read only if no pickle in it can run code.

``torch.export.load`` unpickles sample inputs, custom objects and unusual tensors without restriction. Here each
pickle of the archive first passes torch's restricted unpickler, which knows tensors and containers alone.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import torch
from torch.export import ExportedProgram

from ...errors import ModelError

PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
OBJECTS = ("custom_obj_", "opaque_obj_")
SAVE_HINT = "save torch.export.export(model, inputs) with torch.export.save(program, 'model.pt2')"


def load_program(path: Path) -> ExportedProgram:
    """The exported program in a ``.pt2`` file.

    Raises:
        ModelError: no such file, a pickle, a damaged archive, or one that carries Python objects.
    """
    if not path.exists():
        raise ModelError("no such file", where=str(path))
    if path.suffix in PICKLES:
        what = f"{path.suffix} files are pickles: loading one runs whatever code is in it"
        raise ModelError(what, where=str(path), hint=SAVE_HINT)
    if path.suffix != ".pt2":
        raise ModelError("not a PyTorch model file", where=str(path), expected="an exported program, *.pt2")
    try:
        _refuse_code(path)
        program: ExportedProgram = torch.export.load(path)
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"not a readable exported program: {first_line(error)}",
            where=str(path),
            hint=f"write it again with torch.export.save of torch {torch.__version__}",
        ) from error
    return program


def first_line(error: BaseException) -> str:
    """What an error says, without the advice that torch adds in further lines."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _refuse_code(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist())
        if any(PurePosixPath(name).name.startswith(OBJECTS) for name in names):
            raise ModelError(
                "the archive carries Python objects, and loading one runs code", where=str(path), hint=SAVE_HINT
            )
        for name in _pickled(archive, names):
            try:
                torch.load(io.BytesIO(archive.read(name)), weights_only=True, map_location="cpu")
            except pickle.UnpicklingError as error:
                raise ModelError(
                    f"{name} in the archive is a pickle of more than tensors, and loading it runs code",
                    where=str(path),
                    hint="export again with tensors alone as example inputs",
                ) from error


def _pickled(archive: zipfile.ZipFile, names: set[str]) -> Iterator[str]:
    """Members that ``torch.export.load`` hands to ``torch.load``."""
    for name in sorted(names):
        entry = PurePosixPath(name)
        if entry.suffix == ".pt":
            yield name
        elif entry.suffix == ".json" and entry.parent.name in ("weights", "constants"):
            payloads = json.loads(archive.read(name)).get("config", {}).values()
            for payload in payloads:
                if payload.get("use_pickle"):
                    yield str(entry.parent / payload["path_name"])
