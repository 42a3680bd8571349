"""`rts-batch submit` and `plan`: running what a manifest says."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from rts_batch.cli.layers import Setting, SettingsFileOption, check_layers
from rts_batch.cli.layers import settings as settings_of
from rts_batch.cli.options import (
    SAID,
    TRACKING,
    VIDEOS,
    WORKERS,
    AddressOption,
    JsonOption,
    LanesOption,
    LimitOption,
    ManifestArgument,
    MaxFailuresOption,
    OnErrorOption,
    OutOption,
    OverlapOption,
    QuietOption,
    RedoChangedOption,
    ShardOption,
    SkipInvalidOption,
    TrackerOption,
    VerboseOption,
    WeightsOption,
    WorkersOption,
)
from rts_batch.cli.output import print_json
from rts_batch.cli.submission import Submission, chosen_scope, chosen_settings
from rts_batch.config import ProfileChoice, Rules
from rts_batch.io.video.limits import DecoderName
from rts_batch.runs.settings import DeviceName, RunSettings


def submit(
    ctx: typer.Context,
    manifest: ManifestArgument,
    out: OutOption,
    weights: WeightsOption = None,
    workers: WorkersOption = None,
    min_workers: Annotated[
        int, typer.Option(min=1, help="Workers kept as long as any video waits.", rich_help_panel=WORKERS)
    ] = 1,
    threads_per_worker: Annotated[
        int | None,
        typer.Option(
            min=1, help="CPU threads of each worker. [default: what suits the network]", rich_help_panel=WORKERS
        ),
    ] = None,
    lanes: LanesOption = None,
    device: Annotated[
        DeviceName, typer.Option(help="auto takes a GPU where there is one.", rich_help_panel=WORKERS)
    ] = "auto",
    gpus_per_worker: Annotated[
        float, typer.Option(help="0.25 puts four workers on a GPU.", rich_help_panel=WORKERS)
    ] = 1.0,
    cpus_per_worker: Annotated[
        float | None,
        typer.Option(
            help="CPUs that Ray sets aside for each worker. [default: one for every two lanes]", rich_help_panel=WORKERS
        ),
    ] = None,
    resource: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=AMOUNT", help="Custom resource of each worker; repeatable.", rich_help_panel=WORKERS
        ),
    ] = None,
    stall_timeout: Annotated[
        float,
        typer.Option(
            help="Seconds without a further frame after which a video counts as hung.", rich_help_panel=WORKERS
        ),
    ] = 600.0,
    checkpoint_every: Annotated[
        float,
        typer.Option(
            help="Seconds of work on one video between two checkpoints of it; 0 writes none.", rich_help_panel=WORKERS
        ),
    ] = 300.0,
    keep_checkpoints: Annotated[
        bool,
        typer.Option(
            help="Keep them when a video is done: after corrections it is tracked from the last one before the first "
            "change on.",
            rich_help_panel=WORKERS,
        ),
    ] = False,
    profile: Annotated[
        ProfileChoice,
        typer.Option(
            help="Precision: float32, TensorFloat-32 (CUDA only), bfloat16 but for the learners; auto: bfloat16 where "
            "the device has units for it.",
            rich_help_panel=TRACKING,
        ),
    ] = "auto",
    overlap: OverlapOption = "merge",
    decoder: Annotated[DecoderName, typer.Option(help="Who decodes the videos.", rich_help_panel=VIDEOS)] = "auto",
    spool_quota: Annotated[
        float | None,
        typer.Option(
            help="GiB of disk for the videos that each worker copies from a store; larger ones are streamed. "
            "[default: what the disk has]",
            rich_help_panel=VIDEOS,
        ),
    ] = None,
    strict_video: Annotated[
        bool,
        typer.Option(
            "--strict-video", help="Give up videos with missing, corrupt or concealed frames.", rich_help_panel=VIDEOS
        ),
    ] = False,
    rules: Annotated[
        Rules | None,
        typer.Option(
            help="The released tracker's memory and gating rules, or the paper's. [default: code]",
            rich_help_panel=TRACKING,
        ),
    ] = None,
    not_found_threshold: Annotated[
        float | None,
        typer.Option(
            help="t_sc: the score below which the target counts as not found. [default: 0.3]", rich_help_panel=TRACKING
        ),
    ] = None,
    crop_size: Annotated[
        str | None,
        typer.Option(
            metavar="HEIGHTxWIDTH",
            help="Pixels of the search region that the network sees; fewer are faster. [default: the weights']",
            rich_help_panel=TRACKING,
        ),
    ] = None,
    no_localisation_conditioning: Annotated[
        bool,
        typer.Option(
            "--no-localisation-conditioning",
            help="The decoder sees no localisation scores (Table 1).",
            rich_help_panel=TRACKING,
        ),
    ] = False,
    no_localisation_fallback: Annotated[
        bool,
        typer.Option("--no-localisation-fallback", help="A lost mask stays lost (Table 2).", rich_help_panel=TRACKING),
    ] = False,
    skip_invalid: SkipInvalidOption = False,
    redo_changed: RedoChangedOption = False,
    shard: ShardOption = None,
    limit: LimitOption = None,
    on_error: OnErrorOption = "continue",
    max_failures: MaxFailuresOption = None,
    address: AddressOption = "local",
    detach: Annotated[
        bool,
        typer.Option(
            "--detach", help="Have the cluster run it as a job, and say how to follow it.", rich_help_panel=WORKERS
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would run, and start nothing.", rich_help_panel=SAID)
    ] = False,
    settings_file: SettingsFileOption = None,
    show_settings: Annotated[
        bool,
        typer.Option(
            "--show-settings",
            help="Say what every setting is and where it came from; start nothing.",
            rich_help_panel=SAID,
        ),
    ] = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
    tracker: TrackerOption = RunSettings.tracker,
) -> None:
    """Track every video of a manifest; submit again to go on with what is left."""
    layers = check_layers(ctx)
    if show_settings:
        _show(settings_of(ctx, layers), as_json=as_json)
        return
    settings = chosen_settings(ctx.params)  # most of the parameters above; `plan` has the layers' alone
    scope = chosen_scope(shard, limit, on_error, max_failures, redo_changed=redo_changed)
    submission = Submission(
        manifest, out, settings, scope, skip_invalid=skip_invalid, as_json=as_json, quiet=quiet, verbose=verbose
    )
    if dry_run:
        submission.show_plan()
    elif detach:
        submission.detach()
    else:
        submission.run(again=["submit", *submission.words()])


def plan(
    ctx: typer.Context,
    manifest: ManifestArgument,
    out: OutOption,
    weights: WeightsOption = None,
    overlap: OverlapOption = "merge",
    redo_changed: RedoChangedOption = False,
    shard: ShardOption = None,
    limit: LimitOption = None,
    skip_invalid: SkipInvalidOption = False,
    settings_file: SettingsFileOption = None,
    as_json: JsonOption = False,
    tracker: TrackerOption = RunSettings.tracker,
) -> None:
    """Say what `submit` would do, without starting or writing anything."""
    from rts_batch.runs.folder import RunFolder

    layers = check_layers(ctx)
    begun = RunFolder(out).record()
    options = begun.settings.get("tracker_options", {}) if begun is not None else {}
    chosen = chosen_settings({**layers.values, **ctx.params})
    # The device is not the run's own, so what it would warn of is not meant, nor a profile that only GPUs have.
    settings = replace(
        chosen, tracker_options={**options, **chosen.tracker_options}, device="cpu", profile=RunSettings.profile
    )
    scope = chosen_scope(shard, limit, redo_changed=redo_changed)
    Submission(manifest, out, settings, scope, skip_invalid=skip_invalid, as_json=as_json).show_plan(warn=False)


def _show(settings: list[Setting], *, as_json: bool) -> None:
    if as_json:
        print_json("settings", {setting.name: {"value": setting.value, "from": setting.source} for setting in settings})
        return
    for setting in settings:
        value = ", ".join(setting.value) if isinstance(setting.value, list | tuple) else setting.value
        shown = "not set" if value in (None, "") else value
        print(f"{setting.name.replace('_', '-'):<32}{shown!s:<24}{setting.source}")
