"""The arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rts_batch.config import Overlap
from rts_batch.runs.settings import DeviceName

WORKERS, PART, TRACKING, VIDEOS, SAID = "Workers", "How much of it", "Tracking", "Videos", "What is said"
"""Titles of the sections that options stand under in the help of a command."""

OnError = Literal["continue", "stop"]

ManifestArgument = Annotated[str, typer.Argument(metavar="MANIFEST", help="CSV, JSON lines or Parquet; path or URI.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's folder; path or URI.")]
MasksArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's or a compacted folder; path or URI.")]
OutOption = Annotated[str, typer.Option(help="The run's folder, path or URI; the same folder goes on with the run.")]
WeightsOption = Annotated[
    str | None,
    typer.Option(
        help="Name, path or URI of the weights. [default: those that the package ships]", rich_help_panel=TRACKING
    ),
]
SkipInvalidOption = Annotated[
    bool,
    typer.Option("--skip-invalid", help="Leave out the rows that are wrong, and report them.", rich_help_panel=PART),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "--max-workers",
        min=1,
        help="Workers at most. [default: one per GPU share, or what suits CPUs]",
        rich_help_panel=WORKERS,
    ),
]
LanesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Videos that each worker tracks at the same time. [default: 1, or what the run was begun with]",
        rich_help_panel=WORKERS,
    ),
]
OverlapOption = Annotated[
    Overlap,
    typer.Option(
        help="Targets that share pixels: merge leaves them to the smaller one, allow tracks each by itself.",
        rich_help_panel=TRACKING,
    ),
]
ShardOption = Annotated[
    str | None, typer.Option(metavar="I/N", help="Only the i-th of n parts of the manifest.", rich_help_panel=PART)
]
LimitOption = Annotated[
    int | None, typer.Option(min=1, help="At most so many of the videos that are left.", rich_help_panel=PART)
]
RedoChangedOption = Annotated[
    bool,
    typer.Option(
        "--redo-changed",
        help="Track videos again that are done and whose rows have changed since.",
        rich_help_panel=PART,
    ),
]
CorrectionsOption = Annotated[
    bool,
    typer.Option("--corrections", help="Put RUN/corrections.csv into the manifest, and track its videos again."),
]
BidirectionalOption = Annotated[
    bool,
    typer.Option(
        "--bidirectional",
        help="With --corrections: track from either side of each prompt, in up to twice the time.",
    ),
]
OnErrorOption = Annotated[
    OnError, typer.Option(help="stop hands out nothing more once a video has failed.", rich_help_panel=PART)
]
MaxFailuresOption = Annotated[
    int | None, typer.Option(min=1, help="Hand out nothing more once so many videos have failed.", rich_help_panel=PART)
]
AddressOption = Annotated[
    str,
    typer.Option(
        help="local starts a Ray of its own; else a running cluster: auto, host:port or ray://host:port.",
        rich_help_panel=WORKERS,
    ),
]
OtherDeviceOption = Annotated[
    DeviceName | None, typer.Option(help="Another device than the run began with.", rich_help_panel=WORKERS)
]
OtherAddressOption = Annotated[
    str | None, typer.Option(help="Another Ray than the run began with.", rich_help_panel=WORKERS)
]
TrackerOption = Annotated[str, typer.Option(hidden=True)]
JsonOption = Annotated[
    bool, typer.Option("--json", help="One JSON object a line on standard output.", rich_help_panel=SAID)
]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Say nothing but failures, warnings and errors.", rich_help_panel=SAID)
]
VerboseOption = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="Say more, and write it all into log.txt in the run's folder.", rich_help_panel=SAID
    ),
]
