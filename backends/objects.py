"""Kernels as relocatable objects, each generated once, however many bundles are made of them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from ..ir.errors import ToolchainError
from .closing import Closing
from .tvm.kernels.base import KernelSpec
from .tvm.worker import CodegenError, CodegenPool

Progress = Callable[[str, int, int | None], None]
_Request = tuple[str, tuple[tuple[str, KernelSpec], ...]]

TOGETHER = 6
"""Kernels of one object: enough to amortize a request, few enough to balance the workers."""


class KernelObjects(Closing):
    """A folder of objects, with the processes that generate them: ``jobs`` at a time.

    A bundle takes whole objects, so where bundles differ in some kernels an object should hold few: ``together``.
    """

    def __init__(self, jobs: int, together: int = TOGETHER) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="octavo-kernels-")
        self._pool = CodegenPool(jobs)
        self._executor = ThreadPoolExecutor(jobs)
        self._together = together
        self._paths: dict[str, Path] = {}

    def close(self) -> None:
        """End the processes and remove the folder."""
        self._executor.shutdown()
        self._pool.close()
        self._folder.cleanup()

    def generate(self, kernels: Mapping[str, Mapping[str, KernelSpec]], progress: Progress) -> tuple[Path, ...]:
        """Objects that define the kernels of each level, by their symbols; what is there already is not made again.

        Raises:
            ToolchainError: code generation failed.
        """
        requests = [request for level, own in kernels.items() for request in self._missing(level, own)]
        total = sum(len(chunk) for _, chunk in requests)
        done = 0
        progress("kernels", 0, total)
        try:
            futures = {self._executor.submit(self._make, request): request for request in requests}
            for future in as_completed(futures):
                self._paths |= future.result()
                done += len(futures[future][1])
                progress("kernels", done, total)
        except BaseException as error:
            # After Ctrl-C, too, nobody waits for what is under way or has not begun.
            self._pool.abort()
            self._executor.shutdown(cancel_futures=True)
            if isinstance(error, CodegenError):
                hint = "report this model: it is a defect"
                raise ToolchainError(f"code generation failed: {error}", hint=hint) from error
            raise
        return tuple(dict.fromkeys(self._paths[symbol] for own in kernels.values() for symbol in own))

    def _make(self, request: _Request) -> dict[str, Path]:
        """One object; its place for each symbol."""
        level, chunk = request
        path = Path(self._folder.name) / f"{chunk[0][0]}.o"
        path.write_bytes(self._pool.compile(chunk, level))
        return dict.fromkeys((symbol for symbol, _ in chunk), path)

    def _missing(self, level: str, kernels: Mapping[str, KernelSpec]) -> Sequence[_Request]:
        items = [(symbol, spec) for symbol, spec in kernels.items() if symbol not in self._paths]
        return [(level, tuple(items[at : at + self._together])) for at in range(0, len(items), self._together)]
