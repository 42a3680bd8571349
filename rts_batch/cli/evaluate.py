"""`rts-batch evaluate`: prepare the manifest of a benchmark, score a run on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from rts_batch.errors import RtsBatchError, UsageError
from rts_batch.io.storage import files, uris

# What the commands need beyond that they import themselves, so that `--help` does not wait.

evaluation_app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="The paper's benchmarks: make a manifest of one, score a run on it.",
)

BenchmarkArgument = Annotated[
    str,
    typer.Argument(
        metavar="BENCHMARK",
        help="lasot, nfs, uav123, trackingnet, got10k, vot2020-st, davis2016, davis2017 or youtubevos2019.",
    ),
]
RootArgument = Annotated[
    str, typer.Argument(metavar="ROOT", help="The folder that the benchmark is unpacked in; a local or mounted path.")
]


@evaluation_app.command("prepare")
def prepare_command(
    benchmark: BenchmarkArgument,
    root: RootArgument,
    output: Annotated[str, typer.Option("--output", "-o", help="The manifest to write, *.csv; path or URI.")],
    init: Annotated[
        Literal["mask", "box"] | None,
        typer.Option(help="What the tracker is given. [default: masks where the benchmark has them]"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Write the manifest with which `rts-batch submit` tracks a whole benchmark."""
    from rts_batch.evaluation.prepare import prepare

    with _reported(as_json):
        done = prepare(benchmark, _local(root), output, init=init)
        if as_json:
            content = {"manifest": output, "sequences": done.sequences, "targets": done.targets, "init": done.init}
            _print_json("manifest", content)
        else:
            typer.echo(f"{output}: {done.sequences} sequences, {done.targets} targets, each given by a {done.init}")


@evaluation_app.command("score")
def score_command(
    benchmark: BenchmarkArgument,
    root: RootArgument,
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's folder, path or URI.")],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of the table.")] = False,
    markdown: Annotated[str | None, typer.Option(metavar="FILE", help="Write the tables, with every sequence.")] = None,
    plots: Annotated[
        str | None, typer.Option(metavar="FOLDER", help="Write success, precision or EAO plots as SVG (boxes, VOT).")
    ] = None,
    archive: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the ZIP for the server of trackingnet or youtubevos2019; no scores."),
    ] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Leave out the sequences that are not finished.")] = False,
) -> None:
    """Score a run on a benchmark, beside the values that the paper reports."""
    from rts_batch.evaluation.archives import write_archive
    from rts_batch.evaluation.plots import to_svg
    from rts_batch.evaluation.scoring import score
    from rts_batch.evaluation.tables import to_markdown

    with _reported(as_json):
        if archive is not None:
            sequences = write_archive(benchmark, _local(root), run, archive)
            if as_json:
                _print_json("archive", {"archive": archive, "sequences": sequences})
            else:
                typer.echo(f"{archive}: {sequences} sequences")
            return
        report = score(benchmark, _local(root), run, partial=partial)
        if markdown is not None:
            files.put_bytes(markdown, to_markdown(report).encode())
        if plots is not None:
            if not report.curves:
                raise UsageError(f"{report.title} has no curves; leave --plots out")
            for name in report.curves:
                files.put_bytes(uris.join(plots, f"{name}.svg"), to_svg(report, name).encode())
        if as_json:
            _print_json("scores", report.to_dict())
        else:
            typer.echo(to_markdown(report, sequences=False), nl=False)


def _local(root: str) -> Path:
    path = uris.local_path(root)
    if path is None or not path.is_dir():
        raise UsageError(f"{uris.safe_uri(root)} is no local folder; unpack the benchmark on a disk, or mount it")
    return path


@contextmanager
def _reported(as_json: bool) -> Iterator[None]:
    """Turns an error of ours into its message on standard error and its exit code."""
    try:
        yield
    except RtsBatchError as error:
        if as_json:
            about = {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            _print_json("error", about)
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


def _print_json(event: Literal["manifest", "archive", "scores", "error"], content: dict[str, object]) -> None:
    typer.echo(json.dumps({"event": event, **content}, ensure_ascii=False))
