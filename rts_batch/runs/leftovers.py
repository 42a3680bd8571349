"""What submissions and workers that were killed leave behind in a run's folder."""

from __future__ import annotations

import posixpath
from collections.abc import Set

from rts_batch.errors import RunFolderError
from rts_batch.io.storage import files, uris
from rts_batch.runs.json_files import read_object
from rts_batch.runs.lease import only_one_here
from rts_batch.runs.paths import RunPaths


def remove(paths: RunPaths, keys: Set[str], done: Set[str]) -> None:
    """Remove what nobody needs any more; only while no other submission is at work on the run.

    Args:
        keys: the videos of the manifest.
        done: those whose masks are in place, be it with rows that have changed since.
    """
    remove_temporaries(paths)
    for key in set(paths.reported()) - done - keys:
        files.delete(paths.report(key))
    for key in paths.checkpointed():
        if key not in keys | done or (key in done and not _kept(paths, key)):
            files.delete(paths.checkpoints(key))


def remove_temporaries(paths: RunPaths) -> None:
    """Remove files that are not complete and never will be."""
    if uris.local_path(paths.uri) is None:  # a store has none
        return
    for folder in paths.of_videos:
        files.remove_temporaries(folder)
    with only_one_here(paths.lease):  # which is being renewed
        files.remove_temporaries(paths.uri, of=[posixpath.basename(uri) for uri in paths.own])


def _kept(paths: RunPaths, key: str) -> bool:
    """Whether the checkpoints of a video that is done were to stay, or may have been."""
    uri = paths.report(key)
    try:
        return not files.exists(uri) or bool(read_object(uri).get("checkpoints_kept", True))
    except RunFolderError:
        return True
