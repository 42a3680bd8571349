"""`rts-batch weights`: import official checkpoints, show what a weights file holds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from rts_batch.cli.options import JsonOption
from rts_batch.cli.output import printable
from rts_batch.errors import EXIT_FAILED, UsageError

# The commands import torch themselves: `rts-batch --help` shall not wait for it.


def import_(
    source: Annotated[str, typer.Argument(help="rts50.pth, a weights file, or a built-in name.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The weights file to write, *.safetensors.")],
    sta: Annotated[
        str | None, typer.Option(help="sta.pth.tar: adds the network that makes a mask of a box prompt.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Recorded in the file.")] = None,
) -> None:
    """Turn an official checkpoint into one safetensors file that runs load fast and share.

    No code in the checkpoint is run. Prints the new file's fingerprint.
    """
    from rts_batch.weights.registry import import_weights, save_weights

    if output.suffix != ".safetensors":
        raise UsageError(f"the output is {str(output)!r}; give it a name that ends in .safetensors")
    weights = import_weights(source, sta=sta, licence=licence)
    save_weights(weights, output)
    print(weights.fingerprint)


def get(
    name: Annotated[str, typer.Argument(help="rts50.")],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="FOLDER", help="A folder, path or URI, that has the files already."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Fetch them although they are there.")] = False,
) -> None:
    """Fetch published weights, import and check them; from then on --weights finds them by their name.

    Shows first whose they are and under what licence. Prints where they are kept: RTS_BATCH_CACHE names another folder.
    """
    from rts_batch.io.storage import uris
    from rts_batch.weights.publications import PUBLISHED, cached

    if name not in PUBLISHED:
        raise UsageError(f"{name!r} is published nowhere that is known; it can be {', '.join(PUBLISHED)}")
    publication, target = PUBLISHED[name], cached(name)
    if target.is_file() and not again:
        print(f"{name} is there already; --again fetches it anew", file=sys.stderr)
        print(target)
        return
    about = {
        "weights": publication.what,
        "by": publication.authors,
        "licence": publication.licence,
        "from": publication.address if source is None else uris.safe_uri(source),
        "files": " and ".join(publication.files),
        "into": str(target),
    }
    for word, text in about.items():
        print(f"{word:<8} {printable(text)}", file=sys.stderr)
    _agree(yes)

    from rts_batch.weights.fetching import Folder, GoogleDrive
    from rts_batch.weights.fetching import get as fetch

    print(fetch(publication, GoogleDrive(publication) if source is None else Folder(source)))


def _agree(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to agree; --yes says that you do")
    if not typer.confirm("fetch them?", err=True):
        raise typer.Exit(EXIT_FAILED)


def inspect(
    file: Annotated[str, typer.Argument(help="A weights file, an official checkpoint or a built-in name.")],
    as_json: JsonOption = False,
) -> None:
    """Check weights completely and show what they are."""
    from rts_batch.weights.registry import describe

    about = describe(file)
    print(json.dumps(about) if as_json else _as_text(about))


def _as_text(about: dict[str, Any]) -> str:
    size = "made on the spot" if about["bytes"] is None else f"{about['bytes']:,} bytes"
    lines = [
        f"file         {printable(about['file'])} ({size})",
        f"kind         {about['kind']}, stored as {about['stored_as']}",
        f"provenance   {printable(about['provenance'])}",
        f"licence      {printable(about['licence'])}",
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
    return f"{name} = {printable(shown)}"
