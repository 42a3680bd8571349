"""`rts-batch doctor`: what this machine has for runs, and what to do about what it lacks."""

from __future__ import annotations

from typing import Annotated

import typer

from rts_batch.cli.options import JsonOption
from rts_batch.cli.output import print_json, printable
from rts_batch.errors import EXIT_FAILED


def doctor(
    out: Annotated[str | None, typer.Option(help="Look also whether this folder can take a run.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Look whether this machine is fit for runs. Starts no Ray, asks no network; ends with 1 where something fails."""
    from rts_batch.doctor.examination import examine

    levels = []
    for found in examine(out):
        levels.append(found.level)
        if as_json:
            content = {"level": found.level, "about": found.about, "text": found.text, "advice": found.advice}
            print_json("finding", content)
            continue
        print(f"{found.level:<5} {printable(found.about):<16} {printable(found.text)}", flush=True)
        if found.advice is not None:
            print(f"{'':<22} → {printable(found.advice)}", flush=True)
    failed, warned = levels.count("fail"), levels.count("warn")
    if as_json:
        print_json("summary", {"ok": levels.count("ok"), "warn": warned, "fail": failed})
    else:
        print(f"\n{failed} fail, {warned} warn" if failed or warned else "\nall is well")
    if failed:
        raise typer.Exit(EXIT_FAILED)
