"""What decides the bits of a training run: a checkpoint is gone on with only where all of it is the same."""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..ir.graph import Graph
from ..passes.pipeline import Pipeline
from ..passes.training.loop import Samples
from .models import digest_graphs
from .training_config import TrainingConfig

_INSTALLED = frozenset({"site-packages", "dist-packages"})


def describe_run(
    config: TrainingConfig,
    graph: Graph,
    teacher: Graph | None,
    samples: tuple[Samples, ...],
    processes: int,
) -> dict[str, Any]:
    """Everything that decides the bits of a run as JSON, and nothing that is done with its result.

    A network from a file counts with its weights, one from a factory with the factory's code: its weights are random,
    and a checkpoint replaces them. A teacher always counts with its weights, and data as it was read.
    """
    described = dataclasses.asdict(config)
    del described["path"], described["output"]
    described["code"] = {name: _digest_sources(name) for name in sorted(_modules(config))}
    described["network"] = digest_graphs([graph]) if (config.path.parent / config.model.source).exists() else None
    described["network of the teacher"] = digest_graphs([teacher]) if teacher else None
    described["samples"] = [_digest_samples(part) for part in samples]
    described["number of processes"] = processes
    plain: dict[str, Any] = json.loads(json.dumps(described))
    return plain


def find_differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What differs between two runs, as :func:`describe_run` calls it; of code, the modules."""
    different = []
    for name, value in now.items():
        old = before.get(name)
        if name == "code" and isinstance(old, dict):
            different += [f"code of {module}" for module, digest in value.items() if old.get(module) != digest]
        elif old != value:
            different.append(name)
    return different


def _modules(config: TrainingConfig) -> set[str]:
    """The modules whose functions a configuration names, and those of passes that are not octavo's own."""
    sections = (config.model, *([config.teacher] if config.teacher else []))
    texts = (*(section.source for section in sections), *config.data.texts)
    functions = {text.partition(":")[0] for text in texts if not (config.path.parent / text).exists()}
    pipelines = (Pipeline.parse(text) for text in (config.passes.before, config.passes.quantization) if text)
    passes = {type(pass_).__module__ for pipeline in pipelines for pass_ in pipeline.passes}
    return functions | {name for name in passes if name.partition(".")[0] != "octavo"}


# Code --------------------------------------------------------------------------------------------------------------


def _digest_sources(module: str) -> str:
    """SHA-256 of a module that is imported, and of those beside it that it imports."""
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return ""
    path = Path(file).absolute()  # imports start where a link is, not where it leads
    depth = module.count(".") + (path.name == "__init__.py")
    root = path.parents[depth]
    digest = hashlib.sha256()
    for source in sorted(_reach(path, root)):
        digest.update(source.relative_to(root).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _reach(path: Path, root: Path) -> set[Path]:
    """The source file and those below ``root`` that it imports, directly or through others.

    Of what is installed, only the package of the file: its neighbours have nothing to do with it.
    """
    own = path.relative_to(root).parts[0]
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        path = waiting.pop()
        if path not in found and (root.name not in _INSTALLED or path.relative_to(root).parts[0] == own):
            found.add(path)
            waiting += _imports(path, root)
    return found


def _imports(path: Path, root: Path) -> Iterator[Path]:
    """The files below ``root`` that a source file names in its imports."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            folder = path.parents[node.level - 1] if node.level else root
            parts = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _files(folder, [*parts, alias.name])


def _files(folder: Path, parts: list[str]) -> Iterator[Path]:
    """The source files of a module and of the packages above it, as far as there are any."""
    for count in range(len(parts) + 1):
        module = folder.joinpath(*parts[:count])
        candidates = [module / "__init__.py", *([module.with_suffix(".py")] if count else [])]
        yield from (file for file in candidates if file.is_file())


# Data --------------------------------------------------------------------------------------------------------------


def _digest_samples(samples: Samples) -> str:
    digest = hashlib.sha256()
    for tensor in (*samples.inputs, samples.labels, samples.weights):
        if tensor is None:
            digest.update(b"none")
            continue
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()
