"""Clusters that are there before the run: one that grows and shrinks, one that takes jobs and clients. Minutes long."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray._raylet import GcsClient
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.job_submission import JobSubmissionClient

from tests.support.places import REPOSITORY
from tests.support.running import STUB, done, finish, run, start, write_manifest
from tests.support.videos import make_video

pytestmark = [pytest.mark.slow, pytest.mark.ray]

RAY = str(Path(sys.executable).with_name("ray"))
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
ENVIRONMENT = {
    # A job's `python` is the first on its node's PATH: an activated environment's, as here, or an image's.
    "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # a token would have to be shared by way of the home folder
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": str(REPOSITORY),
}


def free_ports(count: int) -> list[int]:
    """Ports between those of Ray's workers and those that the system gives to outgoing connections."""
    found: list[int] = []
    for port in random.sample(range(20_000, 32_000), 1000):
        with contextlib.suppress(OSError), socket.socket() as one:
            one.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


SHORT = ({"sleep": 0.05},) * 3


@contextlib.contextmanager
def head(*options: object, **environment: str) -> Iterator[Path]:
    """A head node in a session of its own, which ends with everything that it has started; the folder of its logs."""
    with tempfile.TemporaryDirectory(prefix="rc", dir="/tmp") as folder:
        command = [RAY, "start", "--head", "--block", "--node-ip-address", "127.0.0.1", "--temp-dir", folder]
        log = open(Path(folder) / "log", "w+")  # noqa: SIM115
        process = subprocess.Popen(
            [*command, *map(str, options)],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, **ENVIRONMENT, **environment},
        )
        try:
            yield Path(folder) / "session_latest" / "logs"
        finally:
            ours = psutil.Process(process.pid).children(recursive=True)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for one in ours:
                with contextlib.suppress(psutil.Error):
                    one.kill()
            process.wait(60)
            log.close()


def logs_of(address: str, job: str) -> str:
    return str(JobSubmissionClient(address).get_job_logs(job))


def wait_for_job(address: str, job: str, seconds: float = 180) -> str:
    """How it ended."""
    client = JobSubmissionClient(address)
    deadline = time.monotonic() + seconds
    while not (status := client.get_job_status(job)).is_terminal():
        assert time.monotonic() < deadline, logs_of(address, job)
        time.sleep(0.5)
    return str(status)


def wait_for_port(port: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < deadline, f"nothing listens on port {port}"
        time.sleep(0.2)


def worker_nodes(cluster: GcsClient) -> int:
    """Nodes beside the head that Ray's own books call alive."""
    nodes = cluster.get_all_node_info(timeout=30).values()
    return sum(node.state == GcsNodeInfo.ALIVE and not node.is_head_node for node in nodes)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    make_video(folder / "video.mp4", 20)
    return folder


def manifest_of(videos: Path, tmp_path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """One video with each of the rows' further columns."""
    row = {"video": str(videos / "video.mp4"), "box": [30, 30, 20, 20]}
    numbered = [{**row, "video_id": f"v{number}", **more} for number, more in enumerate(rows)]
    return write_manifest(tmp_path / "manifest.jsonl", numbered)


def test_a_cluster_grows_for_a_run_and_shrinks_at_its_end(videos: Path, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    lists += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files", "rsync_exclude")
    config: dict[str, Any] = {
        "cluster_name": "fake",
        "max_workers": 2,
        "idle_timeout_minutes": 0.4,
        "upscaling_speed": 10,
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": f"127.0.0.1:{port}",
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": 2},
        },
        "head_node_type": "ray.head.default",  # the name that the provider gives its head
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        "rsync_filter": [],
        **{name: [] for name in lists},
    }
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(config))
    options = ("--port", port, "--num-cpus", 0, "--autoscaling-config", path, "--include-dashboard", "false")
    flags = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "0"}
    # Seconds per frame: one worker is still at work when nothing is left for the other.
    rows = [{"sleep": 4.0}, *[{"sleep": 0.1}] * 3]
    with head(*options, **flags) as logs:
        wait_for_port(port)
        cluster = GcsClient(address=f"127.0.0.1:{port}")
        before = worker_nodes(cluster)
        submission = start(
            *("submit", manifest_of(videos, tmp_path, rows), "--out", tmp_path / "run", "--device", "cpu"),
            *("--workers", 2, "--address", f"127.0.0.1:{port}", "--json", *STUB),
        )
        running = counts_while(cluster, lambda: submission.poll() is None)
        afterwards = counts_while(cluster, lambda: worker_nodes(cluster) > 0)
        outcome = finish(submission)
        log = (logs / "monitor.log").read_text()
    assert outcome.code == 0, outcome.err
    assert outcome.summary["done"] == len(rows)
    assert re.search(r"Adding \d node\(s\) of type worker", log)
    assert "Removing 1 nodes of type worker (idle)" in log
    assert before == 0
    growing = running[: running.index(2) + 1]
    assert growing in ([0, 2], [0, 1, 2]), f"the cluster grows when the run asks for its workers\n{log}"
    assert running[len(growing) :] == [1], f"a node goes as soon as no video waits, while the other still works\n{log}"
    assert afterwards[-1] == 0, f"and the other one after the run\n{log}"


def counts_while(cluster: GcsClient, condition: Callable[[], bool], seconds: float = 300) -> list[int]:
    """The numbers of worker nodes that follow each other as long as the condition holds, and the one after that."""
    counts = [worker_nodes(cluster)]
    deadline = time.monotonic() + seconds
    holds = True
    while holds:
        assert time.monotonic() < deadline, counts
        time.sleep(0.2)
        holds = condition()
        if (now := worker_nodes(cluster)) != counts[-1]:
            counts.append(now)
    return counts


@pytest.fixture(scope="module")
def standing() -> Iterator[tuple[int, int, int]]:
    """A cluster with a dashboard and a client server; its ports."""
    ports = free_ports(5)
    names = ("--port", "--dashboard-port", "--ray-client-server-port")
    # With its usual port taken by another Ray on this machine, the agent would take no jobs.
    names += ("--dashboard-agent-listen-port", "--dashboard-agent-grpc-port")
    options = [word for pair in zip(names, ports, strict=True) for word in pair]
    with head(*options, "--num-cpus", 2, "--include-dashboard", "true"):
        for port in ports:
            wait_for_port(port, 240)
        yield ports[0], ports[1], ports[2]


def test_a_job_on_the_cluster_is_followed_from_its_folder(
    standing: tuple[int, int, int], videos: Path, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{standing[1]}"
    out = tmp_path / "run"
    outcome = run(
        *("submit", manifest_of(videos, tmp_path, SHORT), "--out", out, "--device", "cpu", "--workers", 2),
        *("--address", address, "--detach", "--json", *STUB),
    )
    assert outcome.code == 0, outcome.err
    (job,) = outcome.events()
    assert job["event"] == "job"
    assert wait_for_job(address, job["job"]) == "SUCCEEDED", logs_of(address, job["job"])
    assert len(done(out)) == 3
    outcome = run("status", out, "--follow", "--json")
    assert outcome.events()[-1]["done"] == 3
    assert not outcome.events()[-1]["running"]


def test_the_job_script_runs_under_ray_job_submit(standing: tuple[int, int, int], videos: Path, tmp_path: Path) -> None:
    address = f"http://127.0.0.1:{standing[1]}"
    manifest = manifest_of(videos, tmp_path, SHORT)
    command = ["job", "submit", "--address", address, "--working-dir", ".", "--", "python", "jobs/track.py"]
    command += [manifest, "--out", tmp_path / "run", "--device", "cpu", "--workers", 2, *STUB]
    shown = subprocess.run([RAY, *map(str, command)], cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert "3 of 3 done" in shown.stdout
    before = {path: path.stat().st_mtime_ns for path in done(tmp_path / "run")}
    assert len(before) == 3

    shown = subprocess.run([RAY, *map(str, command)], cwd=REPOSITORY, capture_output=True, text=True, timeout=240)
    assert "3 of 3 done" in shown.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before, "the same command again does nothing"


def test_a_driver_here_reaches_the_cluster_through_rays_client(
    standing: tuple[int, int, int], videos: Path, tmp_path: Path
) -> None:
    outcome = run(
        *("submit", manifest_of(videos, tmp_path, SHORT), "--out", tmp_path / "run", "--device", "cpu"),
        *("--workers", 2, "--address", f"ray://127.0.0.1:{standing[2]}", "--json", *STUB),
    )
    assert outcome.code == 0, outcome.err
    assert outcome.summary["done"] == 3
