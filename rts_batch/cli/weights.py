"""`rts-batch weights`: import official checkpoints, show what a weights file holds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from rts_batch.errors import RtsBatchError, UsageError

# The commands import torch themselves: `rts-batch --help` shall not wait for it.

weights_app = typer.Typer(no_args_is_help=True, help="Import and inspect the networks' weights.")


@weights_app.command("import")
def import_command(
    source: Annotated[str, typer.Argument(help="rts50.pth, a weights file, or a built-in name.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights file to write, *.safetensors.")],
    sta: Annotated[
        Path | None, typer.Option(help="sta.pth.tar: adds the network that makes a mask of a box prompt.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Recorded in the file.")] = None,
) -> None:
    """Turn an official checkpoint into one safetensors file that runs load fast and share.

    No code in the checkpoint is run. Prints the new file's fingerprint.
    """
    from rts_batch.weights.registry import import_weights, save_weights

    with _reported():
        if output.suffix != ".safetensors":
            raise UsageError(f"the output is {str(output)!r}; give it a name that ends in .safetensors")
        weights = import_weights(source, sta=sta, licence=licence)
        save_weights(weights, output)
        typer.echo(weights.fingerprint)


@weights_app.command("inspect")
def inspect_command(
    file: Annotated[str, typer.Argument(help="A weights file, an official checkpoint or a built-in name.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Check weights completely and show what they are."""
    from rts_batch.weights.registry import describe

    with _reported():
        about = describe(file)
        typer.echo(json.dumps(about) if as_json else _as_text(about))


@contextmanager
def _reported() -> Iterator[None]:
    """Turns an error of ours into its message on standard error and its exit code."""
    try:
        yield
    except RtsBatchError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def _as_text(about: dict[str, Any]) -> str:
    size = "made on the spot" if about["bytes"] is None else f"{about['bytes']:,} bytes"
    lines = [
        f"file         {_printable(about['file'])} ({size})",
        f"kind         {about['kind']}, stored as {about['stored_as']}",
        f"provenance   {_printable(about['provenance'])}",
        f"licence      {_printable(about['licence'])}",
        f"fingerprint  {about['fingerprint'] or 'none: no tracker in it'}",
    ]
    for name in ("rts", "sta"):
        if name in about:
            network = about[name]
            lines += ["", f"{name}: {network['parameters']:,} parameters"]
            lines += [f"  {module:<18} {count:>12,}" for module, count in network["modules"].items()]
            lines += [f"  {_setting(item)}" for item in network["config"].items()]
    if "tracker" in about:
        lines += ["", "tracker:", *(f"  {_setting(item)}" for item in about["tracker"].items())]
    return "\n".join(lines)


def _setting(item: tuple[str, Any]) -> str:
    name, value = item
    shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return f"{name} = {_printable(shown)}"


def _printable(text: str) -> str:
    """Text from a file must not steer the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)
