"""A run from Python: `submit`, as `rts-batch submit` does it.

::

    import rts_batch

    summary = rts_batch.submit("manifest.csv", "run", workers=2)
    print(summary.done, "of", summary.videos, "videos;", [failure.video_id for failure in summary.failures])
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import sys
import threading
from typing import Any

import numpy as np

from rts_batch.actors.display import Display, choose_display
from rts_batch.actors.submit import submit as submit_run
from rts_batch.actors.summary import Summary
from rts_batch.errors import UsageError
from rts_batch.runs.settings import RunSettings, Scope

__all__ = ["submit"]


def submit(
    manifest: str | os.PathLike[str],
    out: str | os.PathLike[str],
    settings: RunSettings | None = None,
    *,
    scope: Scope | None = None,
    skip_invalid: bool = False,
    progress: bool = True,
    **changes: Any,
) -> Summary:
    """Track every video of a manifest, or what is left of it, and return how it went.

    It starts a Ray of its own and ends it, or joins the cluster that `address` names. Ctrl-C once finishes the videos
    in hand, twice stops now; call it again to go on. A video that cannot be done is in `Summary.failures` and raises
    nothing.

    Args:
        manifest: CSV, JSON lines or Parquet; path or URI.
        out: the run's folder, path or URI; the same folder goes on with the run.
        settings: how the run is done; the defaults are the command line's.
        scope: how much of the manifest to do.
        skip_invalid: leave out the rows that are wrong, and report them.
        progress: show on standard error how the run gets on.
        changes: fields of `RunSettings` to be set otherwise than `settings` says: `weights="rts50"`, `workers=2`.

    Raises:
        UsageError: a field that there is not, or a call from another thread than the main one.
        ManifestError: rows that are wrong; nothing has started.
        SettingsError: settings that cannot work together.
        RunFolderError: the folder is in use, or belongs to another run.
        WeightsError: the weights cannot be used.
        ClusterError: Ray or the device cannot be used.
    """
    if threading.current_thread() is not threading.main_thread():
        raise UsageError("submit handles Ctrl-C and ties Ray to its thread: call it from the main thread")
    return submit_run(
        os.fspath(manifest),
        os.fspath(out),
        _changed(settings or RunSettings(), changes),
        display=choose_display(as_json=False, stream=sys.stdout) if progress else Display(),
        scope=scope or Scope(),
        skip_invalid=skip_invalid,
    )


def _changed(settings: RunSettings, changes: dict[str, Any]) -> RunSettings:
    known = [field.name for field in dataclasses.fields(settings)]
    for name in changes.keys() - known:
        similar = difflib.get_close_matches(name, known, 1)
        meant = f"did you mean {similar[0]}?" if similar else f"there are {', '.join(known)}"
        raise UsageError(f"{name} is no setting of a run; {meant}")
    values = {name: getattr(settings, name) for name in known} | changes
    return RunSettings(**{name: _plain(value) for name, value in values.items()})


def _plain(value: Any) -> Any:
    """Return a path as text and a NumPy number as Python's, as the run's folder can hold them."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value.item() if isinstance(value, np.generic) else value
