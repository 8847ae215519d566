"""The entry point: runs a command, and turns mistakes into messages and exit codes."""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ..ir.errors import OctavoError, UsageError
from .console import print_error, print_json

EXIT_DEFECT = 70
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

COMMANDS = ("compile", "run", "verify", "inspect", "opt", "compare", "bench", "train", "passes", "targets", "ops")

EPILOG = (
    "Exit codes: 0 done, 1 failed, 2 wrong options, 3 unreadable model, 4 unsupported operations, 5 invalid graph, "
    "6 calibration data, 7 compiler or linker, 8 bundle, 9 wrong inputs, 10 a comparison found differences, "
    "70 defect of octavo, 130 interrupted."
)

app = typer.Typer(
    name="octavo",
    help="Fold a neural network into eight bits: compile it to a small int8 program for x86 and ARM CPUs.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        print(f"octavo {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of errors, too.")] = False,
) -> None:
    """Options before the command; ``--debug`` is read by :func:`run` wherever it stands."""


for _name in COMMANDS:
    _module = importlib.import_module(f".commands.{_name}", __package__)
    app.command(_name)(_module.command)


def main() -> None:
    """Run the command line of this process and exit."""
    # A terminated run removes its drafts as an interrupted one does.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    code = run(sys.argv[1:])
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    sys.exit(code)


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code."""
    debug = "--debug" in arguments
    words = [word for word in arguments if word != "--debug"]
    try:
        result = app(words, prog_name="octavo", standalone_mode=False)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except OctavoError as error:
        return _fail(error, words, debug)
    except BrokenPipeError:
        return _leave_pipe()
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else None
        return _fail(OctavoError(error.strerror or str(error), where=where), words, debug)
    except Exception as error:  # noqa: BLE001 - what nobody foresaw is a defect, and says so
        return _fail_usage(error, words, debug) if hasattr(error, "format_message") else _report_defect(error)
    if result == EXIT_INTERRUPTED:
        print("interrupted, nothing was left half-written", file=sys.stderr)
    return result if isinstance(result, int) else 0


def _fail_usage(error: Any, arguments: Sequence[str], debug: bool) -> int:
    """What the parser of the command line refuses, as one of our own errors. Without arguments, it printed the help."""
    message: str = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        return UsageError.exit_code
    # The parser does not always say in which command: options before it are flags, so it is the first other word.
    command = next((word for word in arguments if not word.startswith("-")), None)
    hint = f"octavo {command} --help" if command in COMMANDS else "octavo --help"
    return _fail(UsageError(message.rstrip("."), hint=hint), arguments, debug)


def _fail(error: OctavoError, arguments: Sequence[str], debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    if "--json" in arguments:
        details = {"what": error.what, "where": error.where, "expected": error.expected, "hint": error.hint}
        print_json({"error": {**details, "exit_code": error.exit_code}})
    else:
        print_error(error)
    return error.exit_code


def _leave_pipe() -> int:
    """Whoever read the output has gone: write no more, and keep Python from complaining at exit."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def _report_defect(error: Exception) -> int:
    import traceback

    traceback.print_exception(error)
    print("This is a defect of octavo: please report it with the lines above.", file=sys.stderr)
    return EXIT_DEFECT
