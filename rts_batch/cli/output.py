"""What every command prints in the same way: errors with their exit codes, JSON lines, text from elsewhere."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import typer

from rts_batch.errors import ManifestError, RtsBatchError, UsageError

Thing = TypeVar("Thing")


def telling_errors(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command turn the package's own errors into a message and an exit code; with `as_json`, also into JSON.

    Any other exception is a bug and keeps its trace.
    """

    @functools.wraps(command)
    def run(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except (RtsBatchError, FileNotFoundError) as raised:
            error = _without_a_folder(raised)
            if options.get("as_json"):
                content = {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
                if isinstance(error, ManifestError):
                    content["problems"] = list(error.problems)
                print_json("error", content)
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None

    return run


def _without_a_folder(error: RtsBatchError | FileNotFoundError) -> RtsBatchError:
    """Return the error, or in its place that the working folder is gone; raise any other missing file, a bug, again."""
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, FileNotFoundError) and cause.filename is None):
        cause = cause.__cause__ or cause.__context__
    if cause is not None and _is_gone():  # of os.getcwd, which knows no name
        return UsageError("the working folder no longer exists; cd elsewhere")
    if isinstance(error, RtsBatchError):
        return error
    raise error


def _is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def print_json(event: str, content: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of standard output, in ASCII, which any encoding of that stream takes."""
    print(json.dumps({"event": event, **content}), flush=True)


def print_left_out(left_out: Iterable[str], warnings: Iterable[str]) -> None:
    """Print what a command has left out, a line each, and its warnings, which are messages and no data."""
    for problem in left_out:
        print(f"left out {problem}")
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)


def printable(text: str) -> str:
    """Text from a manifest or a file as a terminal may be given it: it must not steer it."""
    return "".join(character if character.isprintable() else "?" for character in text)


def watch(things: Iterable[Thing], name: str, total: int | None = None) -> Iterable[Thing]:
    """A progress bar on standard error, on a terminal only."""
    if not sys.stderr.isatty():
        return things
    from rich.console import Console
    from rich.progress import track

    return track(things, description=name, total=total, console=Console(stderr=True), transient=True)
