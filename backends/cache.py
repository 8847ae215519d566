"""Compiled bundles by a digest of everything that decides their bytes, so that compiling again is a copy."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ..ir.errors import BundleError, CalibrationError
from .bundle.manifest import Manifest, digest_file, read_manifest
from .bundle.writer import copy_bundle

if TYPE_CHECKING:
    from .bundle.manifest import Json

_PACKAGES = ("apache-tvm", "torch", "numpy", "onnx", "pillow")
_SOURCES = (".py", ".c", ".h", ".S")


def default_folder() -> Path:
    """``octavo`` in the user's cache folder: ``$XDG_CACHE_HOME``, else ``~/.cache``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "octavo"


@dataclass(frozen=True)
class Cache:
    """Bundles in one folder, each under its key. Runs in parallel may share it."""

    folder: Path

    def fetch(self, key: str, output: Path, *, overwrite: bool = False) -> Manifest | None:
        """Copy the bundle of this key to ``output``; None when there is none, or a damaged one.

        Raises:
            BundleError: ``output`` exists or cannot be written.
        """
        entry = self._entry(key)
        try:
            manifest = read_manifest(entry)
            if any(digest_file(entry / name) != record for name, record in manifest.files.items()):
                raise BundleError("damaged")
        except (BundleError, OSError):
            shutil.rmtree(entry, ignore_errors=True)
            return None
        copy_bundle(entry, output, overwrite=overwrite)
        return manifest

    def store(self, key: str, bundle: Path) -> None:
        """Keep a copy of a bundle. A cache that cannot be written is no reason to fail."""
        entry = self._entry(key)
        draft = entry.with_name(f".{entry.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(OSError, BundleError):
            copy_bundle(bundle, draft)
            # Another run may have been first; both made the same bytes.
            with contextlib.suppress(OSError):
                draft.rename(entry)
        shutil.rmtree(draft, ignore_errors=True)

    def _entry(self, key: str) -> Path:
        return self.folder / "bundles" / key


def digest_json(document: Json) -> str:
    """SHA-256 of a JSON document, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def digest_files(files: Sequence[Path]) -> str:
    """SHA-256 of the contents of files, in order.

    Raises:
        CalibrationError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for path in files:
        try:
            digest.update(bytes.fromhex(digest_file(path).sha256))
        except OSError as error:
            raise CalibrationError(f"the file cannot be read: {error.strerror}", where=str(path)) from error
    return digest.hexdigest()


@functools.cache
def digest_compiler() -> str:
    """SHA-256 of octavo's own sources and the versions of the packages that decide a bundle's bytes."""
    root = Path(__file__).resolve().parents[1]
    digest = hashlib.sha256(json.dumps(_versions(), sort_keys=True).encode())
    for room in ("ir", "passes", "backends"):
        for path in sorted((root / room).rglob("*")):
            if path.suffix in _SOURCES:
                digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _versions() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
