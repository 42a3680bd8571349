"""One kind of URI for local disk and object stores: whole files or none, and errors that say whether to try again."""

from __future__ import annotations

import errno
import functools
import io
import os
import pickle
import socket
import threading
import uuid
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rts_batch.errors import StorageError, UsageError
from rts_batch.io.storage import download, files, retries, uris
from rts_batch.io.storage.parquet import read_parquet
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.storage.staging import staged_folder
from tests.support.object_store import KEEPS_FOLDERS

names_are_keys = pytest.mark.skipif(KEEPS_FOLDERS, reason="SeaweedFS cleans keys, and keeps empty folders")


@pytest.fixture(params=["local", "file", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder that does not exist yet, on every kind of store."""
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/run"
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}/run"
    return str(tmp_path / "run") if request.param == "local" else f"file://{tmp_path}/run"


def test_only_the_first_creates_a_file(folder: str) -> None:
    uri = uris.join(folder, "lease.json")
    assert files.create_bytes(uri, b"first")
    assert not files.create_bytes(uri, b"second")
    assert files.read_bytes(uri) == b"first"
    assert files.list_names(folder) == ["lease.json"]


@pytest.mark.parametrize("write", ["put_bytes", "create_bytes", "put_file"])
def test_no_write_waits_for_ever_for_a_store_that_says_nothing(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: str
) -> None:
    """The client waited without an end for a server to ask for the body."""
    monkeypatch.setattr(retries, "WRITE_SECONDS", 0.2)
    monkeypatch.setattr(retries, "ATTEMPTS", 1)
    (tmp_path / "local").write_bytes(b"content")
    with socket.create_server(("127.0.0.1", 0)) as silent:  # connections are taken by the system alone
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        given = (tmp_path / "local", f"{s3}/a") if write == "put_file" else (f"{s3}/a", b"content")
        with pytest.raises(StorageError, match="cannot write") as raised:
            getattr(files, write)(*given)
        assert raised.value.transient
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def test_nothing_is_in_a_file(tmp_path: Path) -> None:
    """A manifest in a run's place, `rts-batch status m.csv`, was trouble with looking up `m.csv/run.json`."""
    (tmp_path / "m.csv").write_bytes(b"video")
    assert not files.exists(str(tmp_path / "m.csv" / "run.json"))
    assert files.list_names(str(tmp_path / "m.csv" / "masks")) == []


def test_what_is_put_can_be_read_listed_and_deleted(folder: str, tmp_path: Path) -> None:
    uri = uris.join(folder, "masks", "a.parquet")
    assert not files.exists(uri)
    assert files.list_names(uris.join(folder, "masks")) == []

    files.put_bytes(uri, b"one")
    local = tmp_path / "b"
    local.write_bytes(b"two" * 100_000)
    files.put_file(local, uris.join(folder, "masks", "b.parquet"))
    files.put_bytes(uris.join(folder, "masks", "deeper", "c.parquet"), b"three")

    assert files.exists(uri)
    assert files.exists(uris.join(folder, "masks"))
    assert files.read_bytes(uri) == b"one"
    assert files.read_bytes(uris.join(folder, "masks", "b.parquet")) == local.read_bytes()
    assert files.list_names(uris.join(folder, "masks")) == ["a.parquet", "b.parquet"]

    files.put_bytes(uri, b"replaced")
    assert files.read_bytes(uri) == b"replaced"
    files.delete(uri)
    files.delete(uri)
    assert files.list_names(uris.join(folder, "masks")) == ["b.parquet"]
    files.delete(folder)
    assert files.list_names(uris.join(folder, "masks")) == []
    assert local.exists()


def test_what_is_fetched_lies_on_local_disk(folder: str, tmp_path: Path) -> None:
    uri = uris.join(folder, "clip.mp4")
    files.put_bytes(uri, b"video" * 1000)
    path = files.fetch(uri, tmp_path / "spool")
    assert path.read_bytes() == b"video" * 1000
    if uris.local_path(uri) is not None:
        assert path == uris.local_path(uri)
    else:
        assert [file.name for file in (tmp_path / "spool").iterdir()] == ["clip.mp4"]


def test_a_folder_of_images_is_fetched_as_one(folder: str, tmp_path: Path) -> None:
    for name in ("0.png", "1.png"):
        files.put_bytes(uris.join(folder, "frames", name), name.encode())
    path = files.fetch(uris.join(folder, "frames"), tmp_path / "spool")
    assert {file.name: file.read_bytes() for file in path.iterdir()} == {"0.png": b"0.png", "1.png": b"1.png"}


# Names are literal.

NAMES = [
    ("take[1]", "take1"),
    ("take[!2]", "take1"),
    ("take[a-c]", "takeb"),
    ("take[1", "take1"),
    ("ta*", "take1"),
    ("**", "take1"),
    ("take?", "take1"),
    ("take{1,2}", "take1"),
    ("~", "take1"),
    ("take::1", "take"),
    ("memory::take1", "take1"),
    ("file:take1", "take1"),
    ("take\\1", "take1"),
    ("take#1", "take"),
    ("take%31+1", "take1 1"),
    ("k\u00f6nig ", "ko\u0308nig "),
    ("-$HOME;1&2=3,4'\"!", "-"),
]
"""Names, each with a decoy: what fsspec, a shell, or a library below them would make of it, or nearly so."""


def contents(folder: str) -> dict[str, bytes]:
    """Every file in a folder, by its name within, as the store itself lists them."""
    filesystem, root = files.open_filesystem(folder)
    filesystem.invalidate_cache()
    return {name[len(root) + 1 :]: filesystem.cat_file(name) for name in filesystem.find(root)}


@names_are_keys
@pytest.mark.parametrize("where", ["file", "folder"])
@pytest.mark.long
def test_every_operation_takes_a_name_as_it_is(
    folder: str, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of odd names, and files of plain ones in folders of odd names; the decoys beside them stay as they are."""
    monkeypatch.chdir(tmp_path)
    for number, (name, decoy) in enumerate(NAMES):
        tail = [] if where == "file" else ["f"]
        check_every_operation(uris.join(folder, str(number)), name, decoy, tail, tmp_path / f"here-{number}")


def check_every_operation(folder: str, name: str, decoy: str, tail: list[str], here: Path) -> None:
    uri = uris.join(folder, name, *tail)
    ours, theirs = "/".join([name, *tail]), "/".join([decoy, *tail])
    files.put_bytes(uris.join(folder, decoy, *tail), b"decoy")
    before = {theirs: b"decoy"}

    assert not files.exists(uri)
    for act in (files.read_bytes, lambda uri: files.fetch(uri, here / "nothing")):
        with pytest.raises(StorageError, match="does not exist"):
            act(uri)
    files.delete(uri)
    assert contents(folder) == before

    assert files.create_bytes(uri, b"new")
    assert not files.create_bytes(uri, b"again")
    assert contents(folder) == {**before, ours: b"new"}
    files.put_bytes(uri, b"bytes")
    assert files.read_bytes(uri) == b"bytes"
    here.mkdir(exist_ok=True)
    (here / name).write_bytes(b"content")
    files.put_file(here / name, uri)
    assert files.exists(uri)
    assert contents(folder) == {**before, ours: b"content"}

    assert files.fetch(uri, here / "spool").read_bytes() == b"content"
    if not tail:
        assert files.list_names(folder) == sorted([name, decoy])
        assert files.list_folders(folder) == []
    else:
        assert files.list_folders(folder) == sorted([name, decoy])
        inside = uris.join(folder, name)
        assert files.list_names(inside) == ["f"]
        files.put_bytes(uris.join(inside, "deeper", name), b"deep")
        fetched = files.fetch(inside, here / "folders")
        assert fetched.name == name
        assert (fetched / "f").read_bytes() == b"content"
        assert (fetched / "deeper" / name).read_bytes() == b"deep"
        files.put_bytes(uris.join(inside, f"half{files.TEMPORARY_SUFFIX}"), b"half")
        assert files.remove_temporaries(inside) == [f"half{files.TEMPORARY_SUFFIX}"]
    files.delete(uris.join(folder, name))
    assert not files.exists(uris.join(folder, name))
    assert contents(folder) == before


@names_are_keys
@pytest.mark.long
def test_whatever_reads_or_writes_takes_a_name_as_it_is(folder: str, tmp_path: Path, small_parts: None) -> None:
    """Parallel parts, ranges, tables and folders that appear at once."""
    sink = io.BytesIO()
    pq.write_table(pa.table({"x": [1]}), sink)
    for name, decoy in NAMES:
        uri = uris.join(folder, name)
        files.put_bytes(uris.join(folder, decoy, "f"), bytes(len(CONTENT)))
        with staged_folder(uri) as stage:
            (stage / "f").write_bytes(CONTENT)
            (stage / "deeper").mkdir()
            (stage / "deeper" / name).write_bytes(sink.getvalue())
        with pytest.raises(UsageError), staged_folder(uri):
            pass
        assert files.fetch(uris.join(uri, "f"), tmp_path / "spool" / name).read_bytes() == CONTENT
        if uris.local_path(uri) is None:
            assert RangedObject(uris.join(uri, "f")).read(1000, 100) == CONTENT[1000:1100]
        assert read_parquet(uris.join(uri, "deeper", name))["x"].to_pylist() == [1]
        assert contents(uri) == {"f": CONTENT, f"deeper/{name}": sink.getvalue()}
        files.delete(uri)
        files.delete(uris.join(folder, decoy))


def test_delete_is_had_from_its_package_too() -> None:
    """Programs outside of the repository import it from there; they did not start any more."""
    from rts_batch.io import storage

    assert storage.delete is files.delete


@names_are_keys
@pytest.mark.parametrize("name", ["../../../secret", "/secret", "a//secret", "./secret"])
def test_a_folder_is_not_left_for_one_above_it(s3: str, tmp_path: Path, name: str) -> None:
    """A key of an object may hold `..` or `//`, which mean nothing to a store."""
    files.put_bytes(f"{s3}/frames/{name}", b"secret")
    files.put_bytes(f"{s3}/frames/0.png", b"image")
    with pytest.raises(StorageError, match="leads out of its folder"):
        files.fetch(f"{s3}/frames", tmp_path / "spool" / "video")
    assert not list((tmp_path / "spool").rglob("*secret*"))


def test_marks_of_empty_folders_are_no_files(s3: str, tmp_path: Path) -> None:
    """As the S3 console makes them: an object of no bytes whose key ends with a slash."""
    client = boto3.client("s3")
    bucket = s3.removeprefix("s3://")
    for key in ("run/", "run/frames/", "run/frames/0.png", "run/empty/"):
        client.put_object(Bucket=bucket, Key=key, Body=b"x" if key.endswith("g") else b"")
    assert files.list_names(f"{s3}/run") == []
    assert files.list_folders(f"{s3}/run") == ["empty", "frames"]
    assert files.list_names(f"{s3}/run/frames") == ["0.png"]
    assert [path.name for path in files.fetch(f"{s3}/run/frames", tmp_path / "spool").iterdir()] == ["0.png"]
    files.delete(f"{s3}/run")
    assert "Contents" not in client.list_objects_v2(Bucket=bucket)


def test_a_folder_that_changes_while_it_is_fetched_is_not_mixed(
    s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        files.put_bytes(f"{s3}/frames/{number}.png", b"old")
    filesystem = fsspec.filesystem("s3")
    get_file = filesystem.get_file

    def change(remote: str, local: str) -> None:
        files.put_bytes(f"{s3}/frames/0.png", b"new")
        get_file(remote, local)

    monkeypatch.setattr(filesystem, "get_file", change)
    with pytest.raises(StorageError, match="changed while it was fetched") as caught:
        files.fetch(f"{s3}/frames", tmp_path / "spool")
    assert caught.value.transient
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_version_of_an_object_is_read(s3: str) -> None:
    client = boto3.client("s3")
    bucket = s3.removeprefix("s3://")
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = client.put_object(Bucket=bucket, Key="a[1].csv", Body=b"first")["VersionId"]
    files.put_bytes(f"{s3}/a[1].csv", b"second")
    assert files.read_bytes(f"{s3}/a[1].csv?versionId={first}") == b"first"
    assert files.read_bytes(f"{s3}/a[1].csv") == b"second"


def test_a_name_of_the_greatest_length_can_be_written(folder: str) -> None:
    name = "名" * 80 + ".parquet"  # 248 bytes of 255
    uri = uris.join(folder, name)
    files.put_bytes(uri, b"long")
    assert not files.create_bytes(uri, b"again")
    assert files.list_names(folder) == [name]
    assert files.read_bytes(uri) == b"long"


def test_deleting_a_link_leaves_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"a")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    files.delete(str(tmp_path / "link"))
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a").exists()


def test_what_is_missing_is_a_permanent_error(folder: str, tmp_path: Path) -> None:
    uri = uris.join(folder, "nothing.mp4")
    for act in (files.read_bytes, lambda uri: files.fetch(uri, tmp_path / "spool")):
        with pytest.raises(StorageError, match=r"nothing\.mp4.*not exist") as caught:
            act(uri)
        assert not caught.value.transient
    assert not (tmp_path / "spool").exists() or not list((tmp_path / "spool").iterdir())


def test_another_bucket_than_ours_is_a_permanent_error(s3: str) -> None:
    with pytest.raises(StorageError) as caught:
        files.read_bytes("s3://there-is-no-such-bucket/a")
    assert not caught.value.transient


@pytest.mark.long
def test_who_has_no_credentials_is_told_what_to_give(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`doctor` said that public addresses need none, and the error only that there are none."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StorageError, match="FSSPEC_S3_ANON=true") as error:
        files.read_bytes(uris.join(s3, "a.mp4"))
    assert not error.value.transient


def test_a_server_that_is_gone_is_a_transient_error(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    with pytest.raises(StorageError) as caught:
        files.read_bytes(f"{s3}/a")
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
    path = files.fetch(f"{web}/clip.mp4?signature=abc", tmp_path / "spool")
    assert path == tmp_path / "spool" / "clip.mp4"
    assert path.read_bytes() == b"video" * 100_000


def test_a_large_file_comes_whole_from_a_web_server_without_ranges(web: str, tmp_path: Path, small_parts: None) -> None:
    (tmp_path / "web" / "clip.mp4").write_bytes(CONTENT)
    assert files.fetch(f"{web}/clip.mp4", tmp_path / "spool").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("code", "transient"),
    [(400, False), (401, False), (403, False), (404, False), (410, False), (429, True), (500, True), (503, True)],
)
@pytest.mark.long
def test_errors_of_a_web_server(web: str, tmp_path: Path, code: int, transient: bool) -> None:
    with pytest.raises(StorageError) as caught:
        files.fetch(f"{web}/{code}.mp4?signature=secret", tmp_path / "spool")
    assert caught.value.transient is transient
    assert ("does not exist" in str(caught.value)) is (code in (404, 410))
    assert ("refuses access" in str(caught.value) and "expired" in str(caught.value)) is (code in (401, 403))
    assert "secret" not in str(caught.value)
    assert list((tmp_path / "spool").iterdir()) == []
    if code in (404, 410):
        assert not files.exists(f"{web}/{code}.mp4")
    else:
        with pytest.raises(StorageError, match=f"{code}|trouble"):
            files.exists(f"{web}/{code}.mp4")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0"])
def test_a_manifests_addresses_reach_no_private_host(
    web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    (tmp_path / "web" / "clip.mp4").write_bytes(b"internal")
    monkeypatch.delenv("RTS_BATCH_PRIVATE_HTTP")
    port = web.rpartition(":")[2]
    for call in (lambda uri: files.fetch(uri, tmp_path / "spool"), files.read_bytes):
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
    files.put_bytes(f"{s3}/clip.mp4", CONTENT)
    assert files.fetch(f"{s3}/clip.mp4", tmp_path / "spool").read_bytes() == CONTENT


@pytest.mark.parametrize("trouble", ["reset", "short", "slow down"])
def test_parts_that_fail_are_fetched_again(
    s3: str, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    files.put_bytes(f"{s3}/clip.mp4", CONTENT)
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
    assert files.fetch(f"{s3}/clip.mp4", tmp_path / "spool").read_bytes() == CONTENT
    assert len(failed) == -(-len(CONTENT) // 10_000)


def test_a_part_that_always_fails_leaves_nothing(
    s3: str, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.put_bytes(f"{s3}/clip.mp4", CONTENT)
    monkeypatch.setattr(fsspec.filesystem("s3"), "cat_file", lambda path, start, end: b"")
    with pytest.raises(StorageError, match="0 of 10000 bytes arrived") as caught:
        files.fetch(f"{s3}/clip.mp4", tmp_path / "spool")
    assert caught.value.transient
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_object_that_changes_meanwhile_is_not_mixed(
    s3: str, tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.put_bytes(f"{s3}/clip.mp4", CONTENT)
    filesystem = fsspec.filesystem("s3")
    cat_file = filesystem.cat_file

    def change(path: str, start: int, end: int) -> bytes:
        if start == 20_000:
            files.put_bytes(f"{s3}/clip.mp4", CONTENT[::-1])
        return cat_file(path, start=start, end=end)

    monkeypatch.setattr(filesystem, "cat_file", change)
    with pytest.raises(StorageError, match="changed while it was fetched") as caught:
        files.fetch(f"{s3}/clip.mp4", tmp_path / "spool")
    assert caught.value.transient
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_disk_without_room_is_not_filled(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.put_bytes(f"{s3}/clip.mp4", CONTENT)
    monkeypatch.setattr(download, "RESERVE_BYTES", 1 << 60)
    with pytest.raises(StorageError, match="MiB free, the object needs") as caught:
        files.fetch(f"{s3}/clip.mp4", tmp_path / "spool")
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
    files.put_bytes(str(target), b"old")

    def disk_full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(StorageError, match="No space left") as caught:
        files.put_bytes(str(target), b"new")
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
        seen.append(files.list_names(str(tmp_path / "masks")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    files.put_bytes(str(tmp_path / "masks" / "a.parquet"), b"content")
    assert seen == [[], [], ["a.parquet"], ["a.parquet"]]
    assert synced[0].endswith(files.TEMPORARY_SUFFIX)  # the content before the name …
    assert synced[1] == str(tmp_path / "masks")  # … and the name in its folder after


def test_leftovers_of_a_killed_writer_are_hidden_and_removed(folder: str) -> None:
    left = uris.join(folder, f".a.parquet.1234abcd{files.TEMPORARY_SUFFIX}")
    files.put_bytes(left, b"half")
    files.put_bytes(uris.join(folder, "b.parquet"), b"whole")
    assert files.list_names(folder) == ["b.parquet"]
    assert len(files.remove_temporaries(folder)) == 1
    assert not files.exists(left)
    assert files.read_bytes(uris.join(folder, "b.parquet")) == b"whole"


def test_a_fetch_that_breaks_off_leaves_nothing(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.put_bytes(f"{s3}/clip.mp4", b"video" * 1000)
    filesystem = fsspec.filesystem("s3")

    def break_off(remote: str, local: str) -> None:
        Path(local).write_bytes(b"vid")

    monkeypatch.setattr(filesystem, "get_file", break_off)
    with pytest.raises(StorageError, match="3 of 5000 bytes arrived") as caught:
        files.fetch(f"{s3}/clip.mp4", tmp_path / "spool")
    assert caught.value.transient
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_permanent_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError) as caught:
        files.put_bytes(str(tmp_path / "file" / "a"), b"")
    assert not caught.value.transient
    assert pickle.loads(pickle.dumps(caught.value)).transient is False
