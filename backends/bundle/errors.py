"""What can go wrong between a bundle and the machine it meets."""

from __future__ import annotations

from ...ir.errors import BundleError, InputError

__all__ = [
    "BundleCorruptError",
    "BundleError",
    "BundleFormatError",
    "BundleMachineError",
    "BundleRunError",
    "InputError",
]


class BundleFormatError(BundleError):
    """Not a bundle, or one of a newer format."""


class BundleCorruptError(BundleError):
    """A file of the bundle is missing, truncated or altered."""


class BundleMachineError(BundleError):
    """The machine lacks the architecture or the instructions that the bundle needs."""


class BundleRunError(BundleError):
    """The library refused or failed a run."""
