"""The command line: it parses, calls one function and prints. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from rts_batch.cli.check import check_deep, probe, verify
from rts_batch.cli.export import export
from rts_batch.cli.read import compact, show
from rts_batch.cli.review import review
from rts_batch.cli.runs import (
    AddressOption,
    JsonOption,
    LimitOption,
    ManifestArgument,
    MaxFailuresOption,
    OnErrorOption,
    ShardOption,
    SkipInvalidOption,
    cancel,
    detached,
    errors_told,
    make_scope,
    plan,
    print_json,
    resume,
    retry,
    run_submission,
    show_plan,
    status,
)
from rts_batch.cli.train import add_commands
from rts_batch.config import Profile, Rules
from rts_batch.errors import UsageError
from rts_batch.io.video.limits import DecoderName
from rts_batch.runs.settings import DeviceName, RunSettings
from rts_batch.version import __version__

app = typer.Typer(
    name="rts-batch",
    help="Masks of marked objects through thousands of videos: the RTS tracker as a batch pipeline on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"rts-batch {__version__}")
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
    lanes: Annotated[
        int | None, typer.Option(min=1, help="Videos that each worker tracks at the same time. [default: 1]")
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
    checkpoint_every: Annotated[
        float, typer.Option(help="Seconds of work on one video between two checkpoints of it; 0 writes none.")
    ] = 300.0,
    profile: Annotated[
        Profile, typer.Option(help="Precision: float32, TensorFloat-32 (CUDA only), or bfloat16 but for the learners.")
    ] = "exact",
    decoder: Annotated[DecoderName, typer.Option(help="Who decodes the videos.")] = "auto",
    spool_quota: Annotated[
        float | None,
        typer.Option(help="GiB of disk for the videos that each worker copies from a store; larger ones are streamed."),
    ] = None,
    strict_video: Annotated[
        bool, typer.Option("--strict-video", help="Give up videos with missing, corrupt or concealed frames.")
    ] = False,
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
    shard: ShardOption = None,
    limit: LimitOption = None,
    on_error: OnErrorOption = "continue",
    max_failures: MaxFailuresOption = None,
    address: AddressOption = "local",
    detach: Annotated[
        bool, typer.Option("--detach", help="Have the cluster run it as a job, and say how to follow it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and start nothing.")] = False,
    as_json: JsonOption = False,
    tracker: Annotated[str, typer.Option(hidden=True)] = RunSettings.tracker,
) -> None:
    """Track every video of a manifest; submit again to go on with what is left."""
    with errors_told(as_json):
        if detach:
            detached(manifest, out, address, as_json=as_json)
            return
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
            profile=profile,
            decoder=decoder,
            spool_quota=spool_quota,
            strict_video=strict_video,
            workers=workers,
            threads_per_worker=threads_per_worker,
            lanes=lanes,
            min_workers=min_workers,
            gpus_per_worker=gpus_per_worker,
            cpus_per_worker=cpus_per_worker,
            resources=_resources(resource or []),
            stall_timeout=stall_timeout,
            checkpoint_every=checkpoint_every,
            address=address,
        )
        scope = make_scope(shard, limit, on_error, max_failures)
        if dry_run:
            show_plan(manifest, out, settings, scope, skip_invalid=skip_invalid, as_json=as_json)
            return
        code = run_submission(manifest, out, settings, scope, skip_invalid=skip_invalid, as_json=as_json)
    raise typer.Exit(code)


@app.command()
def validate(
    manifest: ManifestArgument,
    deep: Annotated[
        bool, typer.Option("--deep", help="Open every video as well, and decode it up to its last prompt.")
    ] = False,
    skip_invalid: SkipInvalidOption = False,
    as_json: JsonOption = False,
) -> None:
    """Check every row of a manifest, with --deep against the videos themselves."""
    with errors_told(as_json):
        from rts_batch.manifest import read_manifest

        found = read_manifest(manifest, skip_invalid=skip_invalid)
        warnings = [*found.warnings, *(check_deep(found, manifest, as_json=as_json) if deep else [])]
        targets = sum(len(task.targets) for task in found.tasks)
        if as_json:
            print_json(
                "manifest",
                {
                    "manifest": manifest,
                    "videos": len(found.tasks),
                    "targets": targets,
                    "left_out": list(found.invalid),
                    "warnings": list(found.warnings),
                },
            )
        else:
            print(f"{manifest}: {len(found.tasks)} videos, {targets} targets")
            for problem in found.invalid:
                print(f"left out: {problem}", file=sys.stderr)
            for warning in warnings:
                print(f"warning: {warning}", file=sys.stderr)


for command in (plan, status, resume, retry, cancel, probe, show, verify, export, review, compact):
    app.command()(command)


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def weights(context: typer.Context) -> None:
    """Import and inspect the networks' weights."""
    from rts_batch.cli.weights import weights_app  # imports PyTorch

    weights_app(args=context.args, prog_name="rts-batch weights")


@app.command(add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def evaluate(context: typer.Context) -> None:
    """Make the manifest of a benchmark, score a run on it."""
    from rts_batch.cli.evaluate import evaluation_app

    evaluation_app(args=context.args, prog_name="rts-batch evaluate")


add_commands(app)


def main() -> None:
    """The `rts-batch` command."""
    app(prog_name="rts-batch")


def _resources(given: list[str]) -> dict[str, float]:
    found = {}
    for text in given:
        name, _, amount = text.partition("=")
        try:
            found[name] = float(amount)
        except ValueError:
            raise UsageError(f"--resource {text}: expected NAME=AMOUNT, spot=1 for example") from None
    return found
