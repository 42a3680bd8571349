"""What submissions and workers that were killed leave behind in a run's folder."""

from __future__ import annotations

import posixpath
from collections.abc import Set

from rts_batch.io.storage import files, uris
from rts_batch.runs.lease import only_one_here
from rts_batch.runs.paths import RunPaths
from rts_batch.runs.reports import read_reports


def remove(paths: RunPaths, keys: Set[str], done: Set[str], *, keep_checkpoints: bool = False) -> None:
    """Remove what nobody needs any more; only while no other submission is at work on the run.

    Args:
        keys: the videos of the manifest.
        done: those whose masks are in place, be it with rows that have changed since.
        keep_checkpoints: whether those of videos that are done stay, whoever left them.
    """
    remove_temporaries(paths)
    for key in set(paths.reported()) - done - keys:
        files.delete(paths.report(key))
    checkpointed = paths.checkpointed()
    needless = [key for key in checkpointed if key not in keys | done]
    if not keep_checkpoints:
        reports = read_reports(paths.uri, done & set(checkpointed))
        needless += [key for key, report in reports.items() if not report.get("checkpoints_kept", True)]
    for key in needless:
        files.delete(paths.checkpoints(key))


def remove_temporaries(paths: RunPaths) -> None:
    """Remove files that are not complete and never will be."""
    if uris.local_path(paths.uri) is None:  # a store has none
        return
    for folder in paths.of_videos:
        files.remove_temporaries(folder)
    with only_one_here(paths.lease):  # which is being renewed
        files.remove_temporaries(paths.uri, of=[posixpath.basename(uri) for uri in paths.own])
