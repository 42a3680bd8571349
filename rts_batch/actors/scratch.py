"""The folder on this host in which a run has its Ray's sockets and logs, and its files under way.

The folder for temporary files is shared: with other runs, with other users, and with containers whose processes are not
seen from here, so that a process id says nothing. A run therefore holds a lock on a file in its folder as long as it
lives, which the kernel lets go however the run ends, and removes the folders of others only where it gets their lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from rts_batch.errors import ClusterError
from rts_batch.runs.lease import boot_id

PREFIX: Final = "rtsb-"
LOCK: Final = "lock"

LONGEST_ROOT: Final = 24
"""Ray puts sockets inside, and a socket's path may have 107 bytes."""


@contextlib.contextmanager
def scratch_folder(root: Path | None = None) -> Iterator[Path]:
    """Make a folder for one run, or for one worker of it, and remove what killed ones left behind.

    It is gone afterwards, but for what a ClusterError may name: then the next run on this host removes it.

    Args:
        root: where to make it; None takes the folder for temporary files, if its path is short enough for Ray.
    """
    if root is None:
        root = Path(tempfile.gettempdir())
        if len(str(root)) > LONGEST_ROOT and os.access("/tmp", os.W_OK):
            root = Path("/tmp")
    for other in root.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # not ours to look at, or somebody else removes it
            _remove_if_abandoned(other)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root))
    lock = _lock(folder)
    keep = False
    try:
        yield folder
    except ClusterError:
        keep = True
        raise
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _lock(folder: Path) -> int:
    """Lock the folder until the descriptor that is returned is closed; no child process inherits it."""
    # Under another name first: a lock file that is found has been locked already.
    new = folder / f"new-{LOCK}"
    descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, json.dumps(_here()).encode())
    with contextlib.suppress(OSError):  # a file system without locks, where nothing is ever removed
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    new.rename(folder / LOCK)
    return descriptor


def _remove_if_abandoned(folder: Path) -> None:
    """Remove the folder of a run that has ended, by all that can be known here; leave it where that is not sure."""
    if folder.stat(follow_symlinks=False).st_uid != os.geteuid():
        return
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        owner = json.loads(os.read(descriptor, 4096))
    except ValueError:
        return
    else:
        if _would_be_seen(owner):
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _here() -> dict[str, str]:
    return {"host": socket.gethostname(), "boot": boot_id()}


def _would_be_seen(owner: Any) -> bool:
    """Whether a lock of that run would be seen here: one of this kernel's, or of this host before it was started anew.

    Another machine's may not, where the folder is on a network file system.
    """
    if not isinstance(owner, dict):
        return False
    here = _here()
    return owner.get("host") == here["host"] or (owner.get("boot") == here["boot"] != "")
