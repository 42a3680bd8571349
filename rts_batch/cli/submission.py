"""What a command line asks to be submitted: done here, done by a cluster, planned, or said in words again."""

from __future__ import annotations

import dataclasses
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rts_batch.cli.options import OnError
from rts_batch.cli.output import print_json
from rts_batch.errors import RtsBatchError, SettingsError, UsageError
from rts_batch.runs.settings import RunSettings, Scope, Shard

if TYPE_CHECKING:
    from rts_batch.actors.summary import Summary

SWITCHED_OFF = {
    "localisation_conditioning": "--no-localisation-conditioning",
    "localisation_fallback": "--no-localisation-fallback",
}
"""The options that set a field of the tracker's configuration to False."""


@dataclass(frozen=True)
class Submission:
    manifest: str
    out: str
    settings: RunSettings
    scope: Scope
    skip_invalid: bool = False
    as_json: bool = False
    quiet: bool = False
    verbose: bool = False

    def run(self, *, again: list[str]) -> None:
        """Do it, print how it went and end with that exit code; `again` is the command that goes on with it."""
        summary = self._submit()
        if self.as_json:
            print_json("summary", summary.to_dict())
        else:
            if not self.quiet:
                _print_summary(summary, self.scope)
            if summary.interrupted:
                print(f"interrupted; to go on: {shlex.join(['rts-batch', *again])}", file=sys.stderr)
        raise typer.Exit(summary.exit_code)

    def _submit(self) -> Summary:
        from rts_batch.actors.display import choose_display
        from rts_batch.actors.log import LoggedDisplay
        from rts_batch.actors.submit import submit
        from rts_batch.runs.folder import RunFolder

        folder = RunFolder(self.out, self.scope.shard)
        shown = choose_display(as_json=self.as_json, stream=sys.stdout, quiet=self.quiet)
        display = LoggedDisplay(shown, folder.paths.log, details=not self.quiet) if self.verbose else shown
        try:
            return submit(
                self.manifest,
                self.out,
                self.settings,
                display=display,
                scope=self.scope,
                skip_invalid=self.skip_invalid,
            )
        except RtsBatchError as error:
            if isinstance(display, LoggedDisplay) and folder.record() is not None:
                display.add(f"error: {error}")
                display.write()
            raise

    def detach(self) -> None:
        """Have the cluster do it as a job."""
        from rts_batch.actors.job import submit_job

        address, out = self.settings.address, shlex.quote(self.out)
        job = submit_job(self.elsewhere().words(), address=address)
        if self.as_json:
            print_json("job", {"job": job, "manifest": self.manifest, "out": self.out, "address": address})
            return
        where = "" if address == "auto" else f" --address {shlex.quote(address)}"
        print(f"job      {job}")
        print(f"follow   rts-batch status {out} --follow, or: ray job logs {job} --follow{where}")
        print(f"stop     rts-batch cancel {out}")

    def show_plan(self, *, warn: bool = True) -> None:
        """Say what would be done, and write and start nothing."""
        from rts_batch.actors.prepare import look
        from rts_batch.worker.lengths import read_lengths

        prepared, plan = look(self.manifest, self.out, self.settings, scope=self.scope, skip_invalid=self.skip_invalid)
        lengths = read_lengths(plan.left)
        frames, unknown = sum(lengths.values()), sum(not length for length in lengths.values())
        targets = sum(len(task.targets) for task in plan.left)
        warnings = [*prepared.warnings, *(plan.warnings if warn else ())]
        changed = [task.video_id for task in plan.left if task.key in plan.replaces]
        if self.as_json:
            content = {
                "out": prepared.folder.uri,
                "weights": prepared.tracker.weights,
                "videos": plan.videos,
                "done": plan.done,
                "to_do": len(plan.left),
                "changed": changed,
                "targets": targets,
                "lanes": prepared.lanes,
                "cpus_per_worker": prepared.cpus,
                "estimated_frames": frames,
                "videos_of_unknown_length": unknown,
                "rows_left_out": list(prepared.manifest.invalid),
                "warnings": warnings,
            }
            print_json("plan", content)
            return
        print(f"videos   {len(plan.left)} to do, {plan.done} of {plan.videos} done")
        if changed:
            print(f"again    {len(changed)} that were done with other rows: {', '.join(changed)}")
        print(f"targets  {targets}")
        print(f"workers  each tracks up to {prepared.lanes} at the same time and takes {prepared.cpus:g} CPUs")
        print(f"frames   about {frames}" + (f", and {unknown} videos of unknown length" if unknown else ""))
        print(f"weights  {prepared.tracker.weights}")
        print(f"out      {prepared.folder.uri}")
        for text in warnings:
            print(f"warning: {text}", file=sys.stderr)

    def words(self) -> list[str]:
        """The command line after `rts-batch submit` that asks for this; what has its default is left out.

        Each value stands behind its option's `=`, and the manifest behind `--`, so that none is taken for an option.
        """
        words = [f"--out={self.out}", *_settings_words(self.settings), *scope_words(self.scope)]
        words += ["--skip-invalid"] * self.skip_invalid + ["--json"] * self.as_json
        words += ["--quiet"] * self.quiet + ["--verbose"] * self.verbose
        return [*words, "--", self.manifest]

    def elsewhere(self) -> Submission:
        """The same for a process with another working folder, on the cluster itself."""
        from rts_batch.io.storage.uris import absolute
        from rts_batch.weights.publications import NAMES

        weights = self.settings.weights
        if weights is not None and weights not in NAMES and Path(weights).exists():
            weights = str(Path(weights).absolute())
        settings = replace(self.settings, weights=weights, address=RunSettings.address)
        return replace(self, manifest=absolute(self.manifest), out=absolute(self.out), settings=settings)


def chosen_scope(
    shard: str | None,
    limit: int | None,
    on_error: OnError = "continue",
    max_failures: int | None = None,
    *,
    redo_changed: bool = False,
) -> Scope:
    """Return the scope that options choose."""
    most = 1 if on_error == "stop" else max_failures
    return Scope(shard=Shard.parse(shard) if shard else None, limit=limit, max_failures=most, redo_changed=redo_changed)


def chosen_settings(values: Mapping[str, Any]) -> RunSettings:
    """Return the settings that values of the parameters of `submit` choose; what is not among them has its default."""
    crop_size = values.get("crop_size")
    options = {
        "rules": values.get("rules"),
        "not_found_threshold": values.get("not_found_threshold"),
        "crop_size": None if crop_size is None else list(_sides(crop_size)),
        **{name: False for name in SWITCHED_OFF if values.get(f"no_{name}")},
    }
    options = {name: value for name, value in options.items() if value is not None}
    resources = _resources(values.get("resource") or [])
    return RunSettings.from_dict({**values, "tracker_options": options, "resources": resources})


def _resources(given: Iterable[str]) -> dict[str, float]:
    resources = {}
    for text in given:
        name, _, amount = text.partition("=")
        try:
            resources[name] = float(amount)
        except ValueError:
            raise UsageError(f"--resource {text}: expected NAME=AMOUNT, spot=1 for example") from None
    return resources


def _sides(text: str) -> tuple[int, int]:
    """Return height and width of a `HEIGHTxWIDTH`."""
    match = re.fullmatch(r"(\d+)[x×](\d+)", text.strip())
    if match is None:
        raise SettingsError(f"--crop-size {text!r}: expected height and width in pixels, 240x416 for example")
    return int(match[1]), int(match[2])


def scope_words(scope: Scope) -> list[str]:
    """The options that choose a part of a manifest."""
    shard = None if scope.shard is None else f"{scope.shard.index}/{scope.shard.count}"
    given = {"shard": shard, "limit": scope.limit, "max_failures": scope.max_failures}
    words = [option_word(name, value) for name, value in given.items() if value is not None]
    return [*words, *["--redo-changed"] * scope.redo_changed]


def _settings_words(settings: RunSettings) -> Iterator[str]:
    default = RunSettings()
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if value == getattr(default, field.name):
            continue
        if field.name == "resources":
            yield from (f"--resource={name}={amount}" for name, amount in value.items())
        elif field.name == "tracker_options":
            yield from (SWITCHED_OFF.get(name) or option_word(name, value) for name, value in value.items())
        else:
            yield option_word(field.name, value)


def option_word(name: str, value: Any) -> str:
    """The option that gives a parameter this value."""
    option = f"--{name.replace('_', '-')}"
    value = "x".join(map(str, value)) if isinstance(value, list) else value
    return option if value is True else f"{option}={value}"


def _print_summary(summary: Summary, scope: Scope) -> None:
    from rts_batch.runs.paths import RunPaths

    content = summary.to_dict()
    already = f" ({summary.already_done} of them before)" if summary.already_done else ""
    left = f", {content['not_started']} left" if content["not_started"] else ""
    print(f"videos   {summary.done} of {summary.videos} done{already}, {len(summary.failures)} failed{left}")
    if summary.frames:
        whole = f" ({summary.command_seconds:.1f} s with starting and ending)"
        print(f"frames   {summary.frames} in {summary.seconds:.1f} s, {content['frames_per_second']} frames/s{whole}")
    elif summary.already_done and summary.already_done == summary.videos:
        print("nothing  was left to do")
    if content["efficiency"]:
        rest = [(step, seconds) for step, seconds in summary.step_seconds.items() if step != "track"]
        shares = ", ".join(f"{step} {seconds / summary.video_seconds:.0%}" for step, seconds in rest)
        print(f"tracker  {content['efficiency']:.0%} of the workers' time ({shares})")
    if summary.doubted is not None:
        look = f"; look at them with: rts-batch review {shlex.quote(summary.out)}" if summary.doubted else ""
        print(f"doubted  {summary.doubted:.1%} of the tracked frames are uncertain or lost{look}")
    print(f"weights  {summary.weights}")
    print(f"masks    {content['masks']}/*.parquet")
    for failure in summary.failures:
        tries = f" after {failure.attempts} attempts" if failure.attempts > 1 else ""
        print(f"failed   {failure.video_id}{tries}: {failure.message}")
    for problem in summary.left_out:
        print(f"left out {problem}")
    if summary.warnings:
        paths = RunPaths(summary.out, str(scope.shard) if scope.shard else None)
        print(f"warnings {len(summary.warnings)}, shown above and in {paths.summary}")
