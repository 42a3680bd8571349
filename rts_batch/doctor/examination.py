"""Everything that the doctor looks at, one after another; nothing of it starts Ray or touches a network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from rts_batch.doctor import machine
from rts_batch.doctor.finding import Finding
from rts_batch.doctor.libraries import examine_libraries
from rts_batch.doctor.stores import examine_stores


def examine(out: str | None = None) -> Iterator[Finding]:
    """Yield what is there and what is to be done about it; with `out`, also whether that folder can take a run.

    A look that fails itself is a finding, too: the libraries that this package needs may be missing or broken here.
    """
    for look in machine.LOOKS:
        yield from _guarded(look.__name__.replace("_", " "), partial(_alone, look))
    yield from _guarded("libraries", examine_libraries)
    yield from _guarded("stores", examine_stores)
    if out is not None:
        yield from _guarded("run's folder", lambda: _folder(out))


def _alone(look: Callable[[], Finding]) -> Iterator[Finding]:
    yield look()


def _folder(out: str) -> Iterator[Finding]:
    from rts_batch.io.storage import uris

    path = uris.local_path(out)
    if path is not None:
        yield machine.disk("run's folder", Path(path), "give --out a folder on a disk with more, or one that is yours")
    else:
        yield Finding("ok", "run's folder", f"{uris.safe_uri(out)} is in a store, which is not asked")


def _guarded(about: str, look: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except Exception as error:
        text = f"cannot be looked at: {type(error).__name__}: {error}"
        yield Finding("fail", about, text, "mend first what else fails here; if nothing does, report this line")
