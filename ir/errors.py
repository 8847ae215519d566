"""Errors for people: what is wrong, where in *their* model, what was expected, and what to do.

Everything a user can cause derives from :class:`OctavoError`; the command line prints it without a traceback and
exits with its ``exit_code``. Anything else that escapes is a defect of octavo.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class OctavoError(Exception):
    """A mistake somebody outside octavo can mend.

    Args:
        what: the problem in one sentence.
        where: the place in the user's model or file (module path, ONNX node name, file name).
        expected: what would have been right.
        hint: the way out.
    """

    exit_code: ClassVar[int] = 1

    def __init__(
        self, what: str, *, where: str | None = None, expected: str | None = None, hint: str | None = None
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        labelled = (("where", self.where), ("expected", self.expected), ("try", self.hint))
        return "\n".join([self.what, *(f"  {label}: {text}" for label, text in labelled if text)])


class UsageError(OctavoError):
    """A wrong option, an unknown pass, target or name."""

    exit_code = 2


class ModelError(OctavoError):
    """The model file or module cannot be read as a network."""

    exit_code = 3


@dataclass(frozen=True)
class UnsupportedOp:
    """One kind of operation that has no translation, and everywhere it occurs."""

    name: str
    places: tuple[str, ...]
    reason: str = ""


class UnsupportedError(ModelError):
    """Every unsupported operation of a model at once."""

    exit_code = 4

    def __init__(self, ops: tuple[UnsupportedOp, ...], *, where: str | None = None, hint: str | None = None) -> None:
        self.ops = ops
        total = sum(len(op.places) for op in ops)
        lines = [f"{len(ops)} unsupported operation(s), {total} node(s):"]
        for op in ops:
            shown = ", ".join(op.places[:3]) + (f" and {len(op.places) - 3} more" if len(op.places) > 3 else "")
            lines.append(f"  {op.name} x{len(op.places)} at {shown}" + (f": {op.reason}" if op.reason else ""))
        super().__init__("\n".join(lines), where=where, hint=hint)


class VerifyError(OctavoError):
    """A graph breaks a rule of the IR."""

    exit_code = 5


class ParseError(OctavoError):
    """Text that is not an octavo graph or pipeline."""

    exit_code = 2


class PassError(OctavoError):
    """A pass cannot do its work on this graph."""

    exit_code = 5


class CalibrationError(OctavoError):
    """The calibration data is missing, empty, unreadable or of the wrong shape."""

    exit_code = 6


class TargetError(OctavoError):
    """An unknown target, CPU or feature."""

    exit_code = 2


class ToolchainError(OctavoError):
    """A compiler, linker or code generator is missing or failed."""

    exit_code = 7


class BundleError(OctavoError):
    """A bundle that cannot be written, read, trusted or run on this machine."""

    exit_code = 8


class InputError(OctavoError):
    """Wrong inputs at run time: names, shapes, dtypes, values."""

    exit_code = 9
