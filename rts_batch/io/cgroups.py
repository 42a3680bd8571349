"""What the kernel's control groups (cgroups) say of this process: its limits, and the kills for want of memory.

A container's limits are often those of the root of the tree that it sees; those of a systemd service or a SLURM job
are further down. So a process's own group is looked for, and from there on every group above it. Both versions are
read, the second for all and the first for memory alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

TREE: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")


def memory_kills(*, tree: Path = TREE, own: Path = OWN) -> int:
    """Return how often the kernel has killed a process of this group for want of memory; 0 where it does not say."""
    for folder in _groups(tree, own):
        for name in ("memory.events", "memory.oom_control"):
            count = _values(folder / name).get("oom_kill")
            if count is not None:
                return count
    return 0


def free_memory(*, tree: Path = TREE, own: Path = OWN) -> int | None:
    """Return the bytes that this group and those above it may still take; None where there is no limit.

    Contents of files that lie in memory only until somebody needs it count as free.
    """
    free = []
    for folder in _groups(tree, own):
        for most, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
                limit = int((folder / most).read_text())
                taken = int((folder / used).read_text()) - _values(folder / "memory.stat").get(cache, 0)
                free.append(max(0, limit - taken))
    return min(free, default=None)


def usable_cpus(*, tree: Path = TREE, own: Path = OWN) -> int | None:
    """Return the CPUs whose time this group and those above it may take, at least 1; None where there is no limit."""
    cpus = []
    for folder in _groups(tree, own):
        with contextlib.suppress(OSError, ValueError):  # "max" where there is no limit
            quota, period = (folder / "cpu.max").read_text().split()
            cpus.append(max(1, int(quota) // int(period)))
    return min(cpus, default=None)


def _groups(tree: Path, own: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups, each before the one above it, up to the roots."""
    places = [(tree, ""), (tree / "memory", "")]
    with contextlib.suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, controllers, name = line.split(":", 2)
            if not controllers:
                places[0] = (tree, name)
            elif "memory" in controllers.split(","):
                places[1] = (tree / "memory", name)
    for root, name in places:
        # In a container the name may be the host's, which is not to be found here, and the root the container's own.
        folder = root / name.strip("/")
        yield from [folder, *(above for above in folder.parents if above.is_relative_to(root))]


def _values(path: Path) -> dict[str, int]:
    """The lines `name value` of a file; none where it cannot be read."""
    values = {}
    with contextlib.suppress(OSError):
        for line in path.read_text().splitlines():
            name, _, value = line.partition(" ")
            with contextlib.suppress(ValueError):
                values[name] = int(value)
    return values
