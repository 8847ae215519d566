"""Writes a bundle folder: all of it, or nothing."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ...ir.errors import BundleError, ToolchainError
from .example import example_program
from .link import Toolchain, check_objects, compile_unit, find_toolchain, link_library, link_relocatable
from .manifest import (
    FILE_NAME,
    FileRecord,
    Json,
    Manifest,
    describe_levels,
    describe_memory,
    describe_work,
    digest_file,
)
from .program import Program
from .sequencer import WeightsLink, public_header, translation_unit
from .weights import HEADER_BYTES, WeightStore

WEIGHTS_FILE = "weights.bin"
LABELS_FILE = "labels.txt"
EXAMPLE_FILE = "example.c"


@dataclass(frozen=True)
class BundleContents:
    """Everything that goes into a bundle.

    ``objects`` are relocatable objects with the kernels of every level. ``embed_weights`` puts the weights inside the
    library instead of ``weights.bin``, ``compress_weights`` stores them entropy coded. ``made`` tells how the bundle
    came to be, ``decisions`` is shown by reports; both are JSON that this room passes on unread.
    """

    name: str
    target: str
    program: Program
    weights: WeightStore
    objects: tuple[Path, ...]
    exactness: str = "bit-exact"
    preprocessing: Json = None
    made: Mapping[str, Json] = field(default_factory=dict[str, Json])
    decisions: Json = None
    labels: tuple[str, ...] | None = None
    embed_weights: bool = False
    compress_weights: bool = False


def write_bundle(
    folder: Path, contents: BundleContents, *, toolchain: Toolchain | None = None, overwrite: bool = False
) -> Manifest:
    """Compiles, links and writes the bundle ``folder``; returns its manifest.

    The folder appears under its name only when complete. ``overwrite`` replaces an existing bundle (and only a bundle:
    a folder that holds anything else is left alone).

    Raises:
        BundleError: the folder exists, or cannot be written (a full disk).
        ToolchainError: no working compiler, or kernel objects that do not fit.
    """
    folder = folder.absolute()
    check_destination(folder, overwrite)
    program = contents.program
    check_objects(program.architecture, program.prefix, contents.objects)
    toolchain = toolchain or find_toolchain(program.architecture)
    with _explained(folder), _staging(folder) as staging:
        manifest = _fill(staging, contents, toolchain)
        _sync(staging)
        _publish(staging, folder)
    return manifest


def copy_bundle(source: Path, folder: Path, *, overwrite: bool = False) -> None:
    """Copies a bundle to ``folder``: all of it, or nothing.

    Raises:
        BundleError: the folder exists, or cannot be written.
    """
    folder = folder.absolute()
    check_destination(folder, overwrite)
    with _explained(folder), _staging(folder) as staging:
        for path in source.iterdir():
            shutil.copyfile(path, staging / path.name)
        _sync(staging)
        _publish(staging, folder)


def _fill(staging: Path, contents: BundleContents, toolchain: Toolchain) -> Manifest:
    program = contents.program
    build = _identify(contents)
    with tempfile.TemporaryDirectory(prefix="octavo-link-") as name:
        scratch = Path(name)
        weights = (scratch if contents.embed_weights else staging) / WEIGHTS_FILE
        _write_weights(weights, contents)
        coded_bytes = weights.stat().st_size - HEADER_BYTES if contents.compress_weights else None
        header, data_bytes = contents.weights.header(), contents.weights.data_bytes
        link = WeightsLink(header, data_bytes, contents.embed_weights, coded_bytes)
        _write_code(staging, scratch, contents, link, toolchain, build)
    (staging / EXAMPLE_FILE).write_text(example_program(program), encoding="utf-8")
    if contents.labels is not None:
        (staging / LABELS_FILE).write_text(
            "".join(f"{_one_line(label)}\n" for label in contents.labels), encoding="utf-8"
        )
    manifest = _describe(contents, build, {path.name: digest_file(path) for path in staging.iterdir()})
    (staging / FILE_NAME).write_text(manifest.to_text(), encoding="utf-8")
    return manifest


def _write_weights(path: Path, contents: BundleContents) -> None:
    weights = contents.weights
    with path.open("wb") as file:
        for chunk in weights.coded() if contents.compress_weights else weights.chunks():
            file.write(chunk)


def _write_code(
    staging: Path, scratch: Path, contents: BundleContents, link: WeightsLink, toolchain: Toolchain, build: str
) -> None:
    prefix = contents.program.prefix
    header = public_header(prefix)
    (staging / f"{prefix}.h").write_text(header, encoding="utf-8")
    (scratch / f"{prefix}.h").write_text(header, encoding="utf-8")
    source, unit = scratch / "bundle.c", scratch / "bundle.o"
    source.write_text(translation_unit(contents.program, link, build), encoding="utf-8")
    compile_unit(toolchain, source, unit)
    objects = [unit, *contents.objects]
    link_library(toolchain, prefix, objects, staging / f"lib{prefix}.so")
    link_relocatable(toolchain, objects, staging / f"{prefix}.o")


def _identify(contents: BundleContents) -> str:
    """A digest of everything that decides what the bundle computes, whatever compiler links it."""
    digest = hashlib.sha256(contents.weights.header())
    link = WeightsLink(contents.weights.header(), contents.weights.data_bytes)
    digest.update(translation_unit(contents.program, link, build="").encode())
    for path in contents.objects:
        digest.update(bytes.fromhex(digest_file(path).sha256))
    return digest.hexdigest()


def _describe(contents: BundleContents, build: str, files: Mapping[str, FileRecord]) -> Manifest:
    return Manifest(
        name=contents.name,
        prefix=contents.program.prefix,
        build=build,
        target=contents.target,
        architecture=contents.program.architecture,
        levels=describe_levels(contents.program),
        signatures=contents.program.signatures,
        weights="embedded" if contents.embed_weights else "file",
        files=files,
        exactness=contents.exactness,
        preprocessing=contents.preprocessing,
        made=contents.made,
        decisions=contents.decisions,
        work=describe_work(contents.program),
        memory=describe_memory(contents.program),
    )


def _one_line(label: str) -> str:
    return " ".join(label.split())


def check_destination(folder: Path, overwrite: bool) -> None:
    """Raises :class:`BundleError` unless a bundle may be written to ``folder``."""
    folder = folder.absolute()
    parent = next(path for path in folder.parents if path.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise _cannot_write("its parent is no folder that may be written to", parent)
    if not folder.exists() and not folder.is_symlink():
        return
    if not overwrite:
        raise BundleError(
            "the bundle's folder exists already",
            where=str(folder),
            hint="choose another, or --overwrite it (in Python overwrite=True)",
        )
    if folder.is_symlink() or not folder.is_dir():
        raise BundleError("what stands in the bundle's place is not a folder", where=str(folder))
    if any(folder.iterdir()) and not (folder / FILE_NAME).is_file():
        raise BundleError(
            "the folder holds something that is not a bundle", where=str(folder), hint="choose an empty or a new folder"
        )


@contextlib.contextmanager
def _explained(folder: Path) -> Generator[None]:
    try:
        yield
    except ToolchainError as error:
        if os.strerror(errno.ENOSPC) not in str(error):
            raise
        raise _cannot_write("the disk is full", folder) from error
    except OSError as error:
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise _cannot_write(reason, error.filename or folder) from error


def _cannot_write(reason: str, where: object) -> BundleError:
    return BundleError(f"the bundle cannot be written: {reason}", where=str(where), hint="nothing was left behind")


@contextlib.contextmanager
def _staging(folder: Path) -> Generator[Path]:
    """A hidden folder beside the destination, on the same file system, removed unless it was renamed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    staging = _beside(folder, "partial")
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sync(staging: Path) -> None:
    """The files reach the disk before their folder gets its name: a full disk or power cut shows here or not at all."""
    for path in [*staging.iterdir(), staging]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _publish(staging: Path, folder: Path) -> None:
    """Gives the complete folder its name. An old bundle steps aside, and comes back should anything interrupt."""
    if not folder.exists():
        staging.rename(folder)
        return
    aside = _beside(folder, "old")
    try:
        folder.rename(aside)
        staging.rename(folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            aside.rename(folder)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _beside(folder: Path, suffix: str) -> Path:
    """A fresh hidden name on the same file system."""
    return folder.parent / f".{folder.name}.{secrets.token_hex(4)}.{suffix}"
