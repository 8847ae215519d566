"""Check the files of a bundle."""

from __future__ import annotations

from ..console import format_bytes, print_json, print_text
from ..options import BundlePath, JsonFlag


def command(bundle: BundlePath, json: JsonFlag = False) -> None:
    """Read every file of a bundle and compare its checksum with the manifest's."""
    from ...backends.bundle.loader import verify_files
    from ...backends.bundle.manifest import read_manifest

    manifest = read_manifest(bundle)
    verify_files(bundle, manifest)
    total = sum(record.bytes for record in manifest.files.values())
    if json:
        files = {name: {"bytes": f.bytes, "sha256": f.sha256} for name, f in manifest.files.items()}
        print_json({"bundle": str(bundle), "name": manifest.name, "intact": True, "bytes": total, "files": files})
    else:
        print_text(f"{bundle}: {len(manifest.files)} files, {format_bytes(total)}, all as written")
