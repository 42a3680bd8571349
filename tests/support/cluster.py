"""A Ray that the runs of several tests share over loopback, as a fixture; starting one takes most of a small run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from tests.support.places import REPOSITORY
from tests.support.running import COMMAND, Outcome, finish, start

__all__ = ["SharedCluster", "cluster"]

LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without it Ray binds to every interface of a Linux host; a cluster's drivers need it as its node does."""

HEAD = """
import sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@dataclass(frozen=True)
class SharedCluster:
    """Its address, as `ray.init` takes it."""

    address: str

    def run(self, *arguments: object, program: Sequence[str] = COMMAND) -> Outcome:
        """Run the real command there. What depends on a run's own processes belongs on a Ray of its own."""
        return finish(start(*arguments, "--address", self.address, program=program, **LOOPBACK))


@pytest.fixture(scope="session")
def cluster() -> Iterator[SharedCluster]:
    environment = {
        **LOOPBACK,
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
        "RAY_enable_worker_prestart": "0",  # else it begins a process for every core, of which most runs need one
    }
    head = subprocess.Popen(
        [sys.executable, "-c", HEAD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment},
    )
    assert head.stdin is not None
    assert head.stdout is not None
    try:
        address = head.stdout.readline().strip()
        assert address, "no Ray was started"
        yield SharedCluster(address)
    finally:
        head.stdin.close()
        head.wait(60)
