"""What measuring found out about kernels, kept for other compilations on the same model of CPU."""

from __future__ import annotations

import json
import secrets
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from .bench.timing import Ratio
from .bundle.manifest import Json
from .cache import digest_compiler, digest_json
from .targets import host_cpu
from .tvm.kernels.base import KernelSpec

LEAST_GAIN = 1.01
"""What an alternative's ratio is certainly above when it is chosen: smaller gains are not worth another kernel."""


@dataclass(frozen=True)
class Finding:
    """How many alternatives of a kernel were measured, which was the best and how many times faster (None: none)."""

    tried: int = 0
    best: int | None = None
    ratio: float = 1.0

    def after(self, ratio: Ratio) -> Finding:
        """With the next alternative measured."""
        if ratio.low > LEAST_GAIN and ratio.median > self.ratio:
            return Finding(self.tried + 1, self.tried, ratio.median)
        return replace(self, tried=self.tried + 1)

    @staticmethod
    def parse(text: str, alternatives: int) -> Finding:
        """What ``json.dumps(vars(finding))`` wrote, of a kernel with so many alternatives.

        Raises:
            ValueError: it is something else.
        """
        match json.loads(text):
            case {"tried": int(tried), "best": None, "ratio": float(ratio)} if 0 <= tried <= alternatives:
                return Finding(tried, None, ratio)
            case {"tried": int(tried), "best": int(best), "ratio": float(ratio)} if 0 <= best < tried <= alternatives:
                return Finding(tried, best, ratio)
            case _:
                raise ValueError("no finding")


@dataclass(frozen=True)
class Findings:
    """Findings in files of ``folder`` (None keeps nothing), by all that the speed of a kernel of ``level`` depends on.

    That is its specification, the CPU, and what generates it. Runs in parallel may share the folder.
    """

    folder: Path | None
    level: str
    cpu: str = field(default_factory=host_cpu)

    def read(self, spec: KernelSpec, alternatives: int) -> Finding:
        """What is known of a kernel; nothing when the file is not there, or damaged."""
        if self.folder is not None:
            with suppress(OSError, ValueError):
                return Finding.parse(self._path(self.folder, spec).read_text(encoding="utf-8"), alternatives)
        return Finding()

    def write(self, spec: KernelSpec, finding: Finding) -> None:
        """Keep it. A folder that cannot be written is no reason to fail."""
        if self.folder is None:
            return
        path = self._path(self.folder, spec)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                draft.write_text(json.dumps(vars(finding)), encoding="utf-8")
                draft.rename(path)
        finally:
            with suppress(OSError):
                draft.unlink()

    def _path(self, folder: Path, spec: KernelSpec) -> Path:
        key: Json = [digest_compiler(), self.cpu, self.level, f"{type(spec).__module__} {spec!r}"]
        return folder / "kernels" / f"{digest_json(key)}.json"
