"""One kind of URI for local disk and object stores: whole files or none, and errors that say whether to try again."""

from __future__ import annotations

import errno
import functools
import os
import pickle
import threading
import uuid
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from rts_batch.errors import StorageError
from rts_batch.io.storage import download, retries
from rts_batch.io.storage import files as storage
from tests.support import weed


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    if os.environ.get("RTS_BATCH_TEST_S3") == "seaweedfs":  # `make test-slow`
        with weed.serving() as address:
            yield address
        return
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"
    fsspec.filesystem("s3").mkdir(bucket)
    return f"s3://{bucket}"


@pytest.fixture(params=["local", "file", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that does not exist yet, on every kind of store."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/run"
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/run"
    return str(tmp_path / "run") if request.param == "local" else f"file://{tmp_path}/run"


def test_only_the_first_creates_a_file(folder: str) -> None:
    uri = storage.join(folder, "lease.json")
    assert storage.create_bytes(uri, b"first")
    assert not storage.create_bytes(uri, b"second")
    assert storage.read_bytes(uri) == b"first"
    assert storage.list_names(folder) == ["lease.json"]


def test_what_is_put_can_be_read_listed_and_deleted(folder: str, tmp_path: Path) -> None:
    uri = storage.join(folder, "masks", "a.parquet")
    assert not storage.exists(uri)
    assert storage.list_names(storage.join(folder, "masks")) == []

    storage.put_bytes(uri, b"one")
    local = tmp_path / "b"
    local.write_bytes(b"two" * 100_000)
    storage.put_file(local, storage.join(folder, "masks", "b.parquet"))
    storage.put_bytes(storage.join(folder, "masks", "deeper", "c.parquet"), b"three")

    assert storage.exists(uri)
    assert storage.is_folder(storage.join(folder, "masks"))
    assert not storage.is_folder(uri)
    assert storage.read_bytes(uri) == b"one"
    assert storage.read_bytes(storage.join(folder, "masks", "b.parquet")) == local.read_bytes()
    assert storage.list_names(storage.join(folder, "masks")) == ["a.parquet", "b.parquet"]

    storage.put_bytes(uri, b"replaced")
    assert storage.read_bytes(uri) == b"replaced"
    storage.delete(uri)
    storage.delete(uri)
    assert storage.list_names(storage.join(folder, "masks")) == ["b.parquet"]
    storage.delete(folder)
    assert storage.list_names(storage.join(folder, "masks")) == []
    assert local.exists()


def test_what_is_fetched_lies_on_local_disk(folder: str, tmp_path: Path) -> None:
    uri = storage.join(folder, "clip.mp4")
    storage.put_bytes(uri, b"video" * 1000)
    path = storage.fetch(uri, tmp_path / "spool")
    assert path.read_bytes() == b"video" * 1000
    if storage.local_path(uri) is not None:
        assert path == storage.local_path(uri)
    else:
        assert [file.name for file in (tmp_path / "spool").iterdir()] == ["clip.mp4"]


def test_a_folder_of_images_is_fetched_as_one(folder: str, tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        storage.put_bytes(storage.join(folder, "frames", name), name.encode())
    path = storage.fetch(storage.join(folder, "frames"), tmp_path / "spool")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {"0.png": b"0.png", "1.png": b"1.png"}


def test_what_is_missing_is_a_permanent_error(folder: str, tmp_path: Path) -> None:
    uri = storage.join(folder, "nothing.mp4")
    for act in (storage.read_bytes, lambda uri: storage.fetch(uri, tmp_path / "spool")):
        with pytest.raises(StorageError, match=r"nothing\.mp4.*not exist") as caught:
            act(uri)
        assert not caught.value.transient
    assert not (tmp_path / "spool").exists() or not list((tmp_path / "spool").iterdir())


def test_another_bucket_than_ours_is_a_permanent_error(s3: str) -> None:
    with pytest.raises(StorageError) as caught:
        storage.read_bytes("s3://there-is-no-such-bucket/a")
    assert not caught.value.transient


def test_a_server_that_is_gone_is_a_transient_error(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StorageError) as caught:
        storage.read_bytes(f"{s3}/a")
    assert caught.value.transient


class Pages(SimpleHTTPRequestHandler):
    """A web server over a folder, some of whose answers are errors."""

    def do_GET(self) -> None:
        code = self.path.partition("?")[0].strip("/").removesuffix(".mp4")
        if code.isdecimal():
            self.send_error(int(code))
        else:
            super().do_GET()

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    handler = functools.partial(Pages, directory=str(tmp_path / "web"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("RTS_BATCH_PRIVATE_HTTP", "allow")
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_file_is_fetched_from_a_web_server(web: str, tmp_path: Path) -> None:
    (tmp_path / "web" / "clip.mp4").write_bytes(b"video" * 100_000)
    path = storage.fetch(f"{web}/clip.mp4?signature=abc", tmp_path / "spool")
    assert path == tmp_path / "spool" / "clip.mp4"
    assert path.read_bytes() == b"video" * 100_000


def test_a_large_file_comes_whole_from_a_web_server_without_ranges(web: str, tmp_path: Path, small_parts: None) -> None:
    (tmp_path / "web" / "clip.mp4").write_bytes(CONTENT)
    assert storage.fetch(f"{web}/clip.mp4", tmp_path / "spool").read_bytes() == CONTENT


@pytest.mark.parametrize(("code", "transient"), [(404, False), (403, False), (429, True), (500, True), (503, True)])
def test_errors_of_a_web_server(web: str, tmp_path: Path, code: int, transient: bool) -> None:
    with pytest.raises(StorageError) as caught:
        storage.fetch(f"{web}/{code}.mp4?signature=secret", tmp_path / "spool")
    assert caught.value.transient is transient
    assert "secret" not in str(caught.value)
    assert list((tmp_path / "spool").iterdir()) == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0"])
def test_a_manifests_addresses_reach_no_private_host(
    web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    (tmp_path / "web" / "clip.mp4").write_bytes(b"internal")
    monkeypatch.delenv("RTS_BATCH_PRIVATE_HTTP")
    port = web.rpartition(":")[2]
    for call in (lambda uri: storage.fetch(uri, tmp_path / "spool"), storage.read_bytes):
        with pytest.raises(StorageError) as caught:
            call(f"http://{host}:{port}/clip.mp4")
        assert not caught.value.transient
        if host in ("127.0.0.1", "localhost"):
            assert "is no public address; set RTS_BATCH_PRIVATE_HTTP=allow" in str(caught.value)
    assert not list(tmp_path.glob("spool/*"))


# In parallel ranges


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PART_BYTES", 10_000)
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.001)


CONTENT = bytes(range(256)) * 1000 + b"end"


def test_a_large_object_comes_in_parts(s3: str, tmp_path: Path, small_parts: None) -> None:
    storage.put_bytes(f"{s3}/clip.mp4", CONTENT)
    assert storage.fetch(f"{s3}/clip.mp4", tmp_path / "spool").read_bytes() == CONTENT


@pytest.mark.parametrize("trouble", ["reset", "short", "slow down"])
def test_parts_that_fail_are_fetched_again(
    s3: str, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    storage.put_bytes(f"{s3}/clip.mp4", CONTENT)
    filesystem = fsspec.filesystem("s3")
    cat_file, failed = filesystem.cat_file, set()

    def cat_badly(path: str, start: int, end: int) -> bytes:
        if start not in failed:
            failed.add(start)
            if trouble == "short":
                return cat_file(path, start=start, end=end)[:-7]
            raise ConnectionResetError if trouble == "reset" else OSError(errno.EBUSY, "SlowDown")
        return cat_file(path, start=start, end=end)

    monkeypatch.setattr(filesystem, "cat_file", cat_badly)
    assert storage.fetch(f"{s3}/clip.mp4", tmp_path / "spool").read_bytes() == CONTENT
    assert len(failed) == -(-len(CONTENT) // 10_000)


def test_a_part_that_always_fails_leaves_nothing(
    s3: str, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put_bytes(f"{s3}/clip.mp4", CONTENT)
    monkeypatch.setattr(fsspec.filesystem("s3"), "cat_file", lambda path, start, end: b"")
    with pytest.raises(StorageError, match="0 of 10000 bytes arrived") as caught:
        storage.fetch(f"{s3}/clip.mp4", tmp_path / "spool")
    assert caught.value.transient
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_object_that_changes_meanwhile_is_not_mixed(
    s3: str, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.put_bytes(f"{s3}/clip.mp4", CONTENT)
    filesystem = fsspec.filesystem("s3")
    cat_file = filesystem.cat_file

    def change(path: str, start: int, end: int) -> bytes:
        if start == 20_000:
            storage.put_bytes(f"{s3}/clip.mp4", CONTENT[::-1])
        return cat_file(path, start=start, end=end)

    monkeypatch.setattr(filesystem, "cat_file", change)
    with pytest.raises(StorageError, match="changed while it was fetched") as caught:
        storage.fetch(f"{s3}/clip.mp4", tmp_path / "spool")
    assert caught.value.transient
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_disk_without_room_is_not_filled(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.put_bytes(f"{s3}/clip.mp4", CONTENT)
    monkeypatch.setattr(download, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(StorageError, match="MiB free, the object needs") as caught:
        storage.fetch(f"{s3}/clip.mp4", tmp_path / "spool")
    assert caught.value.transient
    assert list((tmp_path / "spool").iterdir()) == []


def test_only_what_may_get_better_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.0)
    for error, calls in (
        (ConnectionResetError(), 4),
        (FileNotFoundError(), 1),
        (PermissionError(), 1),
        (ValueError(), 1),
    ):
        count = 0

        def fail(error: Exception = error) -> None:
            nonlocal count
            count += 1
            raise error

        with pytest.raises(type(error)):
            retries.retried(fail)
        assert count == calls


# Whole or not at all


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "masks" / "a.parquet"
    storage.put_bytes(str(target), b"old")

    def disk_full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(StorageError, match="No space left") as caught:
        storage.put_bytes(str(target), b"new")
    assert caught.value.transient
    assert [file.name for file in target.parent.iterdir()] == ["a.parquet"]
    assert target.read_bytes() == b"old"


def test_no_reader_sees_a_file_that_is_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    synced: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        seen.append([str(path.name) for path in (tmp_path / "masks").glob("*.parquet")])
        seen.append(storage.list_names(str(tmp_path / "masks")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    storage.put_bytes(str(tmp_path / "masks" / "a.parquet"), b"content")
    assert seen == [[], [], ["a.parquet"], ["a.parquet"]]
    assert synced[0].endswith(storage.TEMPORARY_SUFFIX)  # the content before the name …
    assert synced[1] == str(tmp_path / "masks")  # … and the name in its folder after


def test_leftovers_of_a_killed_writer_are_hidden_and_removed(folder: str) -> None:
    left = storage.join(folder, f".a.parquet.1234abcd{storage.TEMPORARY_SUFFIX}")
    storage.put_bytes(left, b"half")
    storage.put_bytes(storage.join(folder, "b.parquet"), b"whole")
    assert storage.list_names(folder) == ["b.parquet"]
    assert len(storage.remove_temporaries(folder)) == 1
    assert not storage.exists(left)
    assert storage.read_bytes(storage.join(folder, "b.parquet")) == b"whole"


def test_a_fetch_that_breaks_off_leaves_nothing(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.put_bytes(f"{s3}/clip.mp4", b"video" * 1000)
    filesystem = fsspec.filesystem("s3")

    def break_off(remote: str, local: str) -> None:
        Path(local).write_bytes(b"vid")

    monkeypatch.setattr(filesystem, "get_file", break_off)
    with pytest.raises(StorageError, match="3 of 5000 bytes arrived") as caught:
        storage.fetch(f"{s3}/clip.mp4", tmp_path / "spool")
    assert caught.value.transient
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_permanent_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        storage.put_bytes(str(tmp_path / "file" / "a"), b"")
    assert not caught.value.transient
    assert pickle.loads(pickle.dumps(caught.value)).transient is False


# Addresses


@pytest.mark.parametrize(
    "uri",
    [
        "clips/a.mp4",
        "/data/a.mp4",
        "C:clip.mp4",
        "odd name: it has a colon.mp4",
        "file:///data/a.mp4",
        "s3://bucket/a.mp4",
        "gs://bucket/a.mp4",
        "https://example.org/a.mp4?size=large",
        "memory://a.mp4",
    ],
)
def test_what_may_be_read(uri: str) -> None:
    storage.check_uri(uri)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("ftp://host/a.mp4", "expected a path or one of file, s3"),
        ("ssh://host/a.mp4", "expected a path"),
        ("zip://a.mp4::s3://bucket/a.zip", "expected a path"),
        ("simplecache::s3://bucket/a", "expected a path"),
        ("https://user:secret@example.org/a.mp4", "holds a password"),
        ("https://[bad/a.mp4", "not a valid address"),
    ],
)
def test_what_may_not_be_read(uri: str, message: str) -> None:
    with pytest.raises(StorageError, match=message) as caught:
        storage.exists(uri)
    assert "secret" not in str(caught.value)


def test_no_secret_is_shown() -> None:
    assert storage.safe_uri("https://user:secret@host/a.mp4?signature=secret") == "https://host/a.mp4"
    assert storage.safe_uri("https://host/a@2x.mp4") == "https://host/a@2x.mp4"
    assert storage.safe_uri("s3://key:secret@bucket/a?versionId=1") == "s3://bucket/a"
    assert storage.safe_uri("/data/what?.mp4") == "/data/what?.mp4"


def test_a_store_whose_package_is_missing_names_the_extra() -> None:
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(StorageError, match=r"pip install 'rts-batch\[gcs\]'"):
            storage.exists("gs://bucket/a")
    else:
        pytest.skip("gcsfs is installed")


@pytest.mark.parametrize(
    ("uri", "folder", "expected"),
    [
        ("a.mp4", "/data", "/data/a.mp4"),
        ("../a.mp4", "/data/lists", "/data/a.mp4"),
        ("/other/a.mp4", "/data", "/other/a.mp4"),
        ("s3://bucket/a.mp4", "/data", "s3://bucket/a.mp4"),
        ("a.mp4", "s3://bucket/lists", "s3://bucket/lists/a.mp4"),
        ("a.mp4", "file:///data", "/data/a.mp4"),
    ],
)
def test_relative_paths_belong_to_their_folder(uri: str, folder: str, expected: str) -> None:
    assert storage.resolve(uri, folder) == expected


def test_relative_paths_of_a_relative_folder_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.resolve("a.mp4", "clips") == str(tmp_path / "clips" / "a.mp4")
