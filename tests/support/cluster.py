"""A Ray that the runs of several tests share over loopback, as a fixture; starting one takes most of a small run.

It ends with the last of the tests that use Ray, not with the session: one that does nothing takes 3 % of a core.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support.places import REPOSITORY
from tests.support.running import COMMAND, Outcome, finish, start

__all__ = ["SharedCluster", "cluster", "pytest_runtest_teardown", "pytest_sessionfinish"]

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


class SharedCluster:
    """One that has begun."""

    def __init__(self) -> None:
        environment = {
            **LOOPBACK,
            "PYTHONPATH": str(REPOSITORY),
            "OMP_NUM_THREADS": "1",
            "RAY_enable_worker_prestart": "0",  # else it begins a process for every core, of which most runs need one
        }
        self._head = subprocess.Popen(
            [sys.executable, "-c", HEAD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **environment},
        )
        assert self._head.stdout is not None
        self.address = self._head.stdout.readline().strip()
        """As `ray.init` takes it."""

    def run(self, *arguments: object, program: Sequence[str] = COMMAND) -> Outcome:
        """Run the real command there. What depends on a run's own processes belongs on a Ray of its own."""
        return finish(start(*arguments, "--address", self.address, program=program, **LOOPBACK))

    def end(self) -> None:
        assert self._head.stdin is not None
        self._head.stdin.close()
        self._head.wait(60)


_OF_SESSION = pytest.StashKey[SharedCluster]()


@pytest.fixture
def cluster(pytestconfig: pytest.Config) -> SharedCluster:
    if _OF_SESSION not in pytestconfig.stash:
        pytestconfig.stash[_OF_SESSION] = SharedCluster()
    shared = pytestconfig.stash[_OF_SESSION]
    assert shared.address, "no Ray was started"
    return shared


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is None or not nextitem.get_closest_marker("ray"):
        _end(item.config)


def pytest_sessionfinish(session: pytest.Session) -> None:
    _end(session.config)  # where the last tests were interrupted


def _end(config: pytest.Config) -> None:
    if _OF_SESSION in config.stash:
        config.stash[_OF_SESSION].end()
        del config.stash[_OF_SESSION]
