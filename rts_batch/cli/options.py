"""The arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rts_batch.config import Overlap
from rts_batch.runs.settings import DeviceName

OnError = Literal["continue", "stop"]

ManifestArgument = Annotated[str, typer.Argument(metavar="MANIFEST", help="CSV, JSON lines or Parquet; path or URI.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="The run's folder; path or URI.")]
MasksArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's or a compacted folder; path or URI.")]
OutOption = Annotated[str, typer.Option(help="The run's folder, path or URI; the same folder goes on with the run.")]
WeightsOption = Annotated[
    str | None, typer.Option(help="Name, path or URI of the weights. [default: those that the package ships]")
]
SkipInvalidOption = Annotated[
    bool, typer.Option("--skip-invalid", help="Leave out the rows that are wrong, and report them.")
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        "--max-workers",
        min=1,
        help="Workers at most. [default: one per GPU share, or what suits CPUs]",
    ),
]
LanesOption = Annotated[
    int | None, typer.Option(min=1, help="Videos that each worker tracks at the same time. [default: 1]")
]
OverlapOption = Annotated[
    Overlap,
    typer.Option(help="Targets that share pixels: merge leaves them to the smaller one, allow tracks each by itself."),
]
ShardOption = Annotated[str | None, typer.Option(metavar="I/N", help="Only the i-th of n parts of the manifest.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many of the videos that are left.")]
RedoChangedOption = Annotated[
    bool, typer.Option("--redo-changed", help="Track videos again that are done and whose rows have changed since.")
]
CorrectionsOption = Annotated[
    bool,
    typer.Option("--corrections", help="Put RUN/corrections.csv into the manifest, and track its videos again."),
]
OnErrorOption = Annotated[OnError, typer.Option(help="stop hands out nothing more once a video has failed.")]
MaxFailuresOption = Annotated[
    int | None, typer.Option(min=1, help="Hand out nothing more once so many videos have failed.")
]
AddressOption = Annotated[
    str, typer.Option(help="local starts a Ray of its own; else a running cluster: auto, host:port or ray://host:port.")
]
OtherDeviceOption = Annotated[DeviceName | None, typer.Option(help="Another device than the run began with.")]
OtherAddressOption = Annotated[str | None, typer.Option(help="Another Ray than the run began with.")]
TrackerOption = Annotated[str, typer.Option(hidden=True)]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but failures, warnings and errors.")]
VerboseOption = Annotated[
    bool, typer.Option("--verbose", "-v", help="Say more, and write it all into log.txt in the run's folder.")
]
