"""Limits and kills of control groups, in trees as systemd, SLURM and containers lay them out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from rts_batch.io.cgroups import free_memory, memory_kills, usable_cpus

GB = 10**9
JOB = "system.slice/slurmstepd.scope/job_7"


def tree_of(folder: Path, own: str, files: Mapping[str, str]) -> dict[str, Path]:
    """A tree of groups with these files, and what the kernel says of the groups that the process is in."""
    (folder / "own").write_text(own)
    for name, content in files.items():
        path = folder / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return {"tree": folder / "tree", "own": folder / "own"}


SECOND = {
    f"{JOB}/memory.events": "low 0\noom 1\noom_kill 3\n",
    f"{JOB}/memory.max": "max\n",
    f"{JOB}/memory.current": f"{GB}\n",
    f"{JOB}/cpu.max": "350000 100000\n",
    "system.slice/memory.events": "oom_kill 9\n",
    "system.slice/memory.max": f"{4 * GB}\n",
    "system.slice/memory.current": f"{2 * GB}\n",
    "system.slice/memory.stat": f"anon {GB}\ninactive_file {GB // 2}\n",
    "system.slice/cpu.max": "max 100000\n",
}
FIRST = {
    f"memory/{JOB}/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    f"memory/{JOB}/memory.limit_in_bytes": f"{4 * GB}\n",
    f"memory/{JOB}/memory.usage_in_bytes": f"{2 * GB}\n",
    f"memory/{JOB}/memory.stat": f"total_inactive_file {GB // 2}\n",
    "memory/memory.limit_in_bytes": "9223372036854771712\n",
    "memory/memory.usage_in_bytes": f"{5 * GB}\n",
}
CONTAINER = {
    "memory.events": "oom_kill 3\n",
    "memory.max": f"{4 * GB}\n",
    "memory.current": f"{2 * GB}\n",
    "memory.stat": f"inactive_file {GB // 2}\n",
    "cpu.max": "300000 100000\n",
}


@pytest.mark.parametrize(
    ("own", "files", "cpus"),
    [
        (f"0::/{JOB}\n", SECOND, 3),
        (f"12:pids:/x\n4:cpu,memory:/{JOB}\n0::/\n", FIRST, None),
        ("0::/\n", CONTAINER, 3),
        ("0::/kubepods/pod1/that-only-the-host-sees\n", CONTAINER, 3),
        ("nonsense\n", CONTAINER, 3),
    ],
    ids=["second version", "first version", "container", "container with the host's names", "unreadable"],
)
def test_limits_and_kills_are_found(tmp_path: Path, own: str, files: Mapping[str, str], cpus: int | None) -> None:
    places = tree_of(tmp_path, own, files)
    assert memory_kills(**places) == 3
    assert free_memory(**places) == 4 * GB - 2 * GB + GB // 2
    assert usable_cpus(**places) == cpus


def test_where_nothing_is_said_there_is_no_limit(tmp_path: Path) -> None:
    for own in ("0::/user.slice\n", ""):
        places = tree_of(tmp_path, own, {"user.slice/memory.max": "max\n", "user.slice/memory.events": "damaged"})
        assert (memory_kills(**places), free_memory(**places), usable_cpus(**places)) == (0, None, None)


def test_this_machine_can_be_asked() -> None:
    assert memory_kills() >= 0
    assert (free_memory() or 1) >= 0
    assert (usable_cpus() or 1) >= 1
