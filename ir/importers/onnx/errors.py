"""What an import can say besides :class:`~octavo.ir.errors.ModelError`."""

from __future__ import annotations

from ...errors import ModelError


class NeedsConstantError(ModelError):
    """Values that must be known at compile time come from graph inputs; ``inputs`` names those."""

    def __init__(self, inputs: tuple[str, ...], places: tuple[str, ...]) -> None:
        self.inputs = inputs
        super().__init__(
            f"the value of input(s) {', '.join(inputs)} must be known at compile time",
            where="; ".join(places),
            hint=f"give the value: --constant {inputs[0]}=VALUE, or constants={{{inputs[0]!r}: array}} in Python",
        )


class Refusal(Exception):  # noqa: N818 - it ends one translation, not the import
    """Raised by a translation: this node cannot be expressed, for a reason the user reads."""


class Unknown(Exception):  # noqa: N818 - as above
    """Raised by a translation: the named graph inputs would have to be constants."""

    def __init__(self, inputs: tuple[str, ...], what: str) -> None:
        self.inputs = inputs
        super().__init__(what)
