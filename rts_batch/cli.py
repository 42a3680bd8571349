"""The command line: it parses, calls one function and prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

import rts_batch
from rts_batch.config import DecoderName, DeviceName, Rules, RunSettings
from rts_batch.errors import ManifestError, RtsBatchError, UsageError
from rts_batch.export_cli import export
from rts_batch.reading_cli import compact, show
from rts_batch.review_cli import review
from rts_batch.train_cli import add_commands

if TYPE_CHECKING:
    from rts_batch.actors.submit import Summary

app = typer.Typer(
    name="rts-batch",
    help="Masks of marked objects through thousands of videos: the RTS tracker as a batch pipeline on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

ManifestArgument = Annotated[str, typer.Argument(metavar="MANIFEST", help="CSV, JSON lines or Parquet; path or URI.")]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line on standard output.")]
SkipInvalidOption = Annotated[
    bool, typer.Option("--skip-invalid", help="Leave out the rows that are wrong, and report them.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rts-batch {rts_batch.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


@app.command()
def submit(
    manifest: ManifestArgument,
    out: Annotated[str, typer.Option(help="The run's folder, path or URI; the same folder goes on with the run.")],
    weights: Annotated[
        str | None, typer.Option(help="Name, path or URI of the weights. [default: those that the package ships]")
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            "--workers", "--max-workers", min=1, help="Workers at most. [default: one per GPU share, or per 4 cores]"
        ),
    ] = None,
    min_workers: Annotated[int, typer.Option(min=1, help="Workers kept as long as any video waits.")] = 1,
    threads_per_worker: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of each worker. [default: cores // workers]")
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="auto takes a GPU where there is one.")] = "auto",
    gpus_per_worker: Annotated[float, typer.Option(help="0.25 puts four workers on a GPU.")] = 1.0,
    cpus_per_worker: Annotated[float, typer.Option(help="CPUs that Ray sets aside for each worker.")] = 1.0,
    resource: Annotated[
        list[str] | None, typer.Option(metavar="NAME=AMOUNT", help="Custom resource of each worker; repeatable.")
    ] = None,
    stall_timeout: Annotated[
        float, typer.Option(help="Seconds without a further frame after which a video counts as hung.")
    ] = 600.0,
    decoder: Annotated[DecoderName, typer.Option(help="Who decodes the videos.")] = "auto",
    rules: Annotated[
        Rules | None,
        typer.Option(help="The released tracker's memory and gating rules, or the paper's. [default: code]"),
    ] = None,
    not_found_threshold: Annotated[
        float | None, typer.Option(help="t_sc: the score below which the target counts as not found. [default: 0.3]")
    ] = None,
    no_localisation_conditioning: Annotated[
        bool, typer.Option("--no-localisation-conditioning", help="The decoder sees no localisation scores (Table 1).")
    ] = False,
    no_localisation_fallback: Annotated[
        bool, typer.Option("--no-localisation-fallback", help="A lost mask stays lost (Table 2).")
    ] = False,
    skip_invalid: SkipInvalidOption = False,
    address: Annotated[
        str, typer.Option(help="local starts a Ray of its own; else the address of a running cluster.")
    ] = "local",
    as_json: JsonOption = False,
    tracker: Annotated[str, typer.Option(hidden=True)] = RunSettings.tracker,
) -> None:
    """Track every video of a manifest; submit again to go on with what is left."""
    with _errors(as_json):
        options: dict[str, Any] = {"rules": rules, "not_found_threshold": not_found_threshold}
        if no_localisation_conditioning:
            options["localisation_conditioning"] = False
        if no_localisation_fallback:
            options["localisation_fallback"] = False
        settings = RunSettings(
            weights=weights,
            tracker_options={name: value for name, value in options.items() if value is not None},
            tracker=tracker,
            device=device,
            decoder=decoder,
            workers=workers,
            threads_per_worker=threads_per_worker,
            min_workers=min_workers,
            gpus_per_worker=gpus_per_worker,
            cpus_per_worker=cpus_per_worker,
            resources=_resources(resource or []),
            stall_timeout=stall_timeout,
            address=address,
        )
        from rts_batch.actors.progress import choose_display
        from rts_batch.actors.submit import submit as run

        display = choose_display(as_json=as_json, stream=sys.stdout)
        summary = run(manifest, out, settings, display=display, skip_invalid=skip_invalid)
        if as_json:
            _print_json("summary", summary.to_dict())
        else:
            _print_summary(summary, again=["rts-batch", *sys.argv[1:]])
    raise typer.Exit(summary.exit_code)


@app.command()
def validate(manifest: ManifestArgument, skip_invalid: SkipInvalidOption = False, as_json: JsonOption = False) -> None:
    """Check every row of a manifest without opening a video."""
    with _errors(as_json):
        from rts_batch.manifest import read_manifest

        found = read_manifest(manifest, skip_invalid=skip_invalid)
        targets = sum(len(task.targets) for task in found.tasks)
        if as_json:
            _print_json(
                "manifest",
                {"manifest": manifest, "videos": len(found.tasks), "targets": targets, "left_out": list(found.invalid)},
            )
        else:
            print(f"{manifest}: {len(found.tasks)} videos, {targets} targets")
            for problem in found.invalid:
                print(f"left out: {problem}", file=sys.stderr)


for command in (show, export, review, compact):
    app.command()(command)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def weights(context: typer.Context) -> None:
    """Import and inspect the networks' weights."""
    from rts_batch.weights_cli import weights_app  # imports PyTorch

    weights_app(args=context.args, prog_name="rts-batch weights")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def evaluate(context: typer.Context) -> None:
    """Make the manifest of a benchmark, score a run on it."""
    from rts_batch.evaluation_cli import evaluation_app

    evaluation_app(args=context.args, prog_name="rts-batch evaluate")


add_commands(app)


def main() -> None:
    """The `rts-batch` command."""
    app(prog_name="rts-batch")


@contextlib.contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Turns the package's own errors into a message and an exit code; anything else is a bug and keeps its trace."""
    try:
        yield
    except RtsBatchError as error:
        if as_json:
            content = {"error": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            if isinstance(error, ManifestError):
                content["problems"] = list(error.problems)
            _print_json("error", content)
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None


def _resources(given: list[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, amount = text.partition("=")
        try:
            found[name] = float(amount)
        except ValueError:
            raise UsageError(f"--resource {text}: expected NAME=AMOUNT, spot=1 for example") from None
    return found


def _print_json(event: Literal["summary", "error", "manifest"], content: dict[str, Any]) -> None:
    print(json.dumps({"event": event, **content}, ensure_ascii=False), flush=True)


def _print_summary(summary: Summary, *, again: list[str]) -> None:
    content = summary.to_dict()
    already = f" ({summary.already_done} of them before)" if summary.already_done else ""
    left = f", {content['not_started']} left" if content["not_started"] else ""
    print(f"videos   {summary.done} of {summary.videos} done{already}, {len(summary.failures)} failed{left}")
    if summary.frames:
        print(f"frames   {summary.frames} in {summary.seconds:.1f} s, {content['frames_per_second']} frames/s")
    print(f"weights  {summary.weights}")
    print(f"masks    {content['masks']}/*.parquet")
    for failure in summary.failures:
        tries = f" after {failure.attempts} attempts" if failure.attempts > 1 else ""
        print(f"failed   {failure.video_id}{tries}: {failure.message}")
    for problem in summary.left_out:
        print(f"left out {problem}")
    if summary.warnings:
        print(f"warnings {len(summary.warnings)}, shown above and in {content['out']}/summary.json")
    if summary.interrupted:
        print(f"interrupted; to go on, run the same command again: {shlex.join(again)}", file=sys.stderr)


if __name__ == "__main__":
    main()
