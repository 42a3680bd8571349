"""What the machine has: Python, cores, memory, shared memory, disk, files, a loopback."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import tempfile
from pathlib import Path
from typing import Final

from rts_batch.actors.cluster import OBJECT_STORE_BYTES, usable_cores
from rts_batch.doctor.finding import Finding
from rts_batch.version import __version__

GIB: Final = 2**30
LEAST_MEMORY: Final = 2 * GIB
LEAST_DISK: Final = 2 * GIB
LEAST_FILES: Final = 1024
SHARED_MEMORY: Final = Path("/dev/shm")


def python() -> Finding:
    version, advice = platform.python_version(), "make an environment with Python 3.10 or newer"
    text = f"rts-batch {__version__} on Python {version}, {platform.system()} {platform.machine()}"
    return Finding("ok", "python", text) if sys.version_info >= (3, 10) else Finding("fail", "python", text, advice)


def cores() -> Finding:
    return Finding("ok", "cores", f"{usable_cores()} that this process may use")


def memory() -> Finding:
    from rts_batch.actors.sizing import usable_memory  # imports libraries that may be broken here

    free = usable_memory()
    text = f"{free / GIB:.1f} GiB free"
    if free < LEAST_MEMORY:
        return Finding("warn", "memory", text, f"free {LEAST_MEMORY / GIB:.0f} GiB, or submit with --workers 1")
    return Finding("ok", "memory", text)


def shared_memory(folder: Path = SHARED_MEMORY) -> Finding:
    """What Ray's object store lies in; Docker gives 64 MiB unless it is told otherwise."""
    about = "shared memory"
    if not folder.is_dir():
        return Finding("ok", about, f"no {folder}: Ray takes a file among the temporary ones")
    free = shutil.disk_usage(folder).free
    text = f"{free / 2**20:,.0f} MiB free in {folder}"
    if free < OBJECT_STORE_BYTES:
        advice = "Ray takes the disk instead, which is slower; in a container, start it with --shm-size=1g"
        return Finding("warn", about, text, advice)
    return Finding("ok", about, text)


def disk(about: str, folder: Path, advice: str) -> Finding:
    """Whether a folder can be written, and what is free there; one that is not there yet is looked for above."""
    place = next((parent for parent in [folder, *folder.absolute().parents] if parent.exists()), folder)
    if not os.access(place, os.W_OK | os.X_OK) or not place.is_dir():
        return Finding("fail", about, f"{folder} cannot be written to", advice)
    free = shutil.disk_usage(place).free
    text = f"{free / GIB:,.1f} GiB free for {folder}"
    return Finding("ok", about, text) if free >= LEAST_DISK else Finding("warn", about, text, advice)


def temporary_files() -> Finding:
    return disk("temporary files", Path(tempfile.gettempdir()), "set TMPDIR to a folder with more")


def open_files() -> Finding:
    try:
        import resource
    except ImportError:  # not on POSIX
        return Finding("ok", "open files", "as many as the system gives")
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    text = "without a limit" if most == resource.RLIM_INFINITY else f"at most {most:,}"
    if most != resource.RLIM_INFINITY and most < LEAST_FILES:
        return Finding("warn", "open files", text, f"raise the limit (ulimit -Hn) to {LEAST_FILES} or more")
    return Finding("ok", "open files", text)


def loopback() -> Finding:
    """Ray's processes talk to each other over 127.0.0.1."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        return Finding("fail", "loopback", f"127.0.0.1 does not answer: {error}", "let processes listen on 127.0.0.1")
    return Finding("ok", "loopback", "127.0.0.1 answers: Ray can start")


LOOKS: Final = (python, cores, memory, shared_memory, temporary_files, open_files, loopback)
