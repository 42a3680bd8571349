"""`rts-batch resume` and `retry`: going on with a run from what its folder says."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from rts_batch.cli.options import (
    BidirectionalOption,
    CorrectionsOption,
    JsonOption,
    LanesOption,
    LimitOption,
    MaxFailuresOption,
    OnErrorOption,
    OtherAddressOption,
    OtherDeviceOption,
    QuietOption,
    RunArgument,
    ShardOption,
    VerboseOption,
    WorkersOption,
)
from rts_batch.cli.submission import Submission, chosen_scope, option_word, scope_words
from rts_batch.errors import RunFolderError, UsageError
from rts_batch.runs.settings import RunSettings, Scope


def resume(
    run: RunArgument,
    corrections: CorrectionsOption = False,
    bidirectional: BidirectionalOption = False,
    workers: WorkersOption = None,
    lanes: LanesOption = None,
    device: OtherDeviceOption = None,
    shard: ShardOption = None,
    limit: LimitOption = None,
    on_error: OnErrorOption = "continue",
    max_failures: MaxFailuresOption = None,
    address: OtherAddressOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run, with the manifest and the settings in its folder."""
    scope = chosen_scope(shard, limit, on_error, max_failures)
    changed = {"workers": workers, "lanes": lanes, "device": device, "address": address}
    begun = dataclasses.replace(_begun(run, scope, changed), as_json=as_json, quiet=quiet, verbose=verbose)
    again = ["resume", run, *_words(changed), *scope_words(scope)]
    if bidirectional and not corrections:
        raise UsageError("--bidirectional is about the videos that --corrections tracks again; give both")
    if not corrections:
        begun.run(again=again)
        return
    from rts_batch.runs.corrections import merged_manifest

    with merged_manifest(run, direction="bidirectional" if bidirectional else None) as manifest:
        redone = dataclasses.replace(begun, manifest=manifest, scope=dataclasses.replace(scope, redo_changed=True))
        redone.run(again=[*again, "--corrections", *(["--bidirectional"] if bidirectional else [])])


def retry(
    run: RunArgument,
    failed: Annotated[bool, typer.Option("--failed", help="The videos that failed; required.")] = False,
    workers: WorkersOption = None,
    address: OtherAddressOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Try the videos again that a run gave up, and no others."""
    if not failed:
        raise UsageError("say what to try again: --failed; to go on with everything that is left, use resume")
    changed = {"workers": workers, "address": address}
    begun = _begun(run, Scope(only_failed=True), changed)
    dataclasses.replace(begun, as_json=as_json, quiet=quiet, verbose=verbose).run(
        again=["retry", run, "--failed", *_words(changed)]
    )


def _words(changed: dict[str, Any]) -> list[str]:
    """The options that say again what is changed, as the run's folder does not keep it."""
    return [option_word(name, value) for name, value in changed.items() if value is not None]


def _begun(run: str, scope: Scope, changed: dict[str, Any]) -> Submission:
    """The submission that goes on with a run's folder; `changed` are settings that replace the recorded ones."""
    from rts_batch.runs.folder import RunFolder

    folder = RunFolder(run)
    folder.refuse_compacted()
    record = folder.record()
    if record is None or not record.settings:
        raise RunFolderError(f"{folder.uri} is not a run's folder that says how it was begun; use submit")
    given = {name: value for name, value in changed.items() if value is not None}
    begun = RunSettings.from_dict(record.settings)
    if workers := given.get("workers"):
        given["min_workers"] = min(begun.min_workers, workers)
    settings = dataclasses.replace(begun, **given)
    return Submission(folder.paths.manifest, folder.uri, settings, scope)
