"""What a machine may lack: trained models, data sets, tools for ARM."""

from __future__ import annotations


class MissingError(Exception):
    """Something is not on this machine; a test that needs it is skipped, a benchmark ends with the reason.

    ``required`` is the environment variable that says, by 1, that nothing of this kind may be missing: tests fail then.
    """

    def __init__(self, reason: str, required: str) -> None:
        super().__init__(reason)
        self.required = required
