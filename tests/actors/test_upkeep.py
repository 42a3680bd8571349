"""The run's folder and its log, on a store that takes connections and says nothing for a while."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from rts_batch.actors.coordinator import FailedAttempt
from rts_batch.actors.display import Display
from rts_batch.actors.driver import Driver
from rts_batch.actors.interruptions import Interruptions
from rts_batch.actors.log import LoggedDisplay
from rts_batch.actors.prepare import DEFAULT_SCOPE, prepare
from rts_batch.actors.progress import RunProgress
from rts_batch.actors.upkeep import Upkeep
from rts_batch.errors import RunFolderError
from rts_batch.io.storage import files
from rts_batch.manifest import read_manifest
from rts_batch.runs.folder import RunFolder
from rts_batch.runs.lease import Lease
from rts_batch.runs.settings import RunSettings
from rts_batch.runs.status import ask_to_stop
from tests.support.faulty_proxy import FaultyProxy
from tests.support.manifests import write_many
from tests.support.running import wait_until

pytestmark = pytest.mark.long

FAILURE = FailedAttempt(kind="permanent", error="VideoError", message="it is none", worker="host:1", frame=None)


@pytest.fixture
def proxy(s3_server: str, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """The way to the store, which falls silent when it is told to, for some seconds at most."""
    proxy = FaultyProxy(s3_server, [None])
    with proxy.serving() as address:
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield proxy
        proxy.speaking.set()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def fall_silent(proxy: FaultyProxy) -> None:
    proxy.speaking.clear()
    threading.Timer(8, proxy.speaking.set).start()  # who waits for the store goes on then, and finds it speaking


@pytest.fixture
def driver(s3: str, tmp_path: Path, proxy: FaultyProxy) -> Iterator[Driver]:
    settings = RunSettings(tracker="tests.support.stub_tracker:Stub", device="cpu")
    manifest = read_manifest(str(write_many(tmp_path, 2)))
    prepared = prepare(manifest, f"{s3}/run", settings)
    with Lease(prepared.folder.paths.lease) as lease:
        plan = prepared.folder.prepare(manifest, prepared.record, DEFAULT_SCOPE)
        yield Driver(prepared=prepared, plan=plan, settings=settings, max_failures=None, display=Display(), lease=lease)


def test_the_pool_goes_on_while_the_store_says_nothing(driver: Driver, proxy: FaultyProxy) -> None:
    interruptions, folder = Interruptions(), driver.folder
    ask_to_stop(folder.uri, now=False)
    with driver.upkeep:
        fall_silent(proxy)
        driver._check(interruptions)
        driver.given_up(driver.plan.left[0], (FAILURE,))
        driver.status_due = 0.0
        driver._check(interruptions)
        assert not proxy.speaking.is_set(), "each of them waited for the store"
        assert not interruptions.finish, "nobody knows yet"
        proxy.speaking.set()
        wait_until(lambda: driver._check(interruptions) or interruptions.finish)
    assert files.exists(folder.paths.status)
    assert folder.failed() == {driver.plan.left[0].key}
    assert driver.warnings == []


def test_a_wish_to_stop_is_heard_however_many_notes_are_written(tmp_path: Path) -> None:
    """Where each video that ended left one to write there always was another, and nobody looked."""
    folder, waiting = RunFolder(str(tmp_path)), threading.Event()
    files.put_bytes(folder.paths.record, b"{}")
    with Upkeep(folder, lease="") as upkeep:
        upkeep.write(lambda: waiting.wait() and None)
        for number in range(3):
            upkeep.look({"looks": number})
            upkeep.write(lambda: None)
        waiting.set()
    assert files.read_bytes(folder.paths.status) == b'{\n  "looks": 0\n}\n'


def test_a_folder_that_is_no_runs_any_more_gets_nothing_of_what_waits(driver: Driver) -> None:
    files.delete(driver.folder.paths.record)
    waiting = threading.Event()

    def look_and_write() -> None:
        with Upkeep(driver.folder, lease=driver.lease.token) as upkeep:
            upkeep.look({})
            wait_until(upkeep._under_way[0].done)
            upkeep.write(lambda: waiting.wait() and None)
            upkeep.write(lambda: driver.folder.fail(driver.plan.left[0], []))
            threading.Timer(0.1, waiting.set).start()
            upkeep.troubles()

    with pytest.raises(RunFolderError, match="is no run's folder any more"):
        look_and_write()
    assert driver.folder.failed() == set()


def test_the_log_is_written_beside_what_it_tells_of(s3: str, proxy: FaultyProxy) -> None:
    with LoggedDisplay(Display(), f"{s3}/log.txt") as display:
        display.note("one")
        fall_silent(proxy)
        display.update(RunProgress(videos=1))
        display.note("two")
        assert not proxy.speaking.is_set(), "who shows a run waited for the store"
        proxy.speaking.set()
    lines = files.read_bytes(f"{s3}/log.txt").decode().splitlines()
    assert [line.split()[-1] for line in lines] == ["one", "two"]
