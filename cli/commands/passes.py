"""List passes and named pipelines."""

from __future__ import annotations

from typing import Annotated

import typer

from ..console import print_json, print_table, print_text
from ..options import JsonFlag, LoadOption, load_files


def command(
    name: Annotated[str | None, typer.Argument(metavar="[PASS]", help="Only this pass, with its options.")] = None,
    load: LoadOption = None,
    json: JsonFlag = False,
) -> None:
    """List the passes with their options, and the pipelines that have a name."""
    from ...passes.pipeline import NAMED
    from ...passes.registry import all_passes, find_pass

    load_files(load)
    passes = [find_pass(name)] if name else list(all_passes())
    if json:
        described = [_describe(cls) for cls in passes]
        print_json({"passes": described, "pipelines": {} if name else dict(NAMED)})
        return
    if name:
        _print_pass(_describe(passes[0]))
        return
    print_table(("pass", "numbers", "what it does"), [(p.name, p.exactness.value, p.summary()) for p in passes])
    print_text("")
    print_table(("pipeline", "passes"), list(NAMED.items()))


def _describe(cls: type) -> dict[str, object]:
    from inspect import getdoc

    from ...passes.base import Pass
    from ...passes.options import describe, format_value, options_of

    assert issubclass(cls, Pass)
    options = [
        {
            "name": option.spelling,
            "type": describe(option.annotation),
            "default": None if option.required else format_value(option.default),
            "required": option.required,
        }
        for option in options_of(cls).values()
    ]
    return {
        "name": cls.name,
        "exactness": cls.exactness.value,
        "summary": cls.summary(),
        "help": getdoc(cls) or "",
        "options": options,
    }


def _print_pass(described: dict[str, object]) -> None:
    options = described["options"]
    assert isinstance(options, list)
    print_text(f"{described['name']}  ({described['exactness']})", style="bold")
    print_text(str(described["help"]))
    if options:
        print_text("")
        rows = [(o["name"], o["type"], "required" if o["required"] else o["default"]) for o in options]
        print_table(("option", "type", "default"), rows)
