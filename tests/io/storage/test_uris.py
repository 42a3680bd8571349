"""What files are called: which addresses may be read, how they are shown, and what relative and file:// ones mean."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

import pytest

from rts_batch.errors import StorageError
from rts_batch.io.storage import files, uris


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
        "s3://bucket/zip::a.mp4",
        "/data/zip::s3://bucket/a",
        "take::1.mp4",
    ],
)
def test_what_may_be_read(uri: str) -> None:
    uris.check_uri(uri)


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
        files.exists(uri)
    assert "secret" not in str(caught.value)


def test_no_secret_is_shown() -> None:
    signed = "https://user:secret@host/a.mp4?signature=secret"
    assert re.fullmatch(r"https://host/a\.mp4\?…[0-9a-f]{6}", uris.safe_uri(signed))
    assert uris.without_query(signed) == "https://host/a.mp4"
    assert uris.safe_uri("https://host/a@2x.mp4") == "https://host/a@2x.mp4"
    assert re.fullmatch(
        r"s3://bucket/a\?…[0-9a-f]{6}", uris.safe_uri("s3://key:secret@bucket/a?X-Amz-Signature=secret")
    )
    assert uris.safe_uri("abfss://videos@account.dfs.core.windows.net/a?") == (
        "abfss://videos@account.dfs.core.windows.net/a?"
    )


@pytest.mark.parametrize(
    ("signed", "lasting"),
    [
        ("X-Amz-Date=20260101T000000Z&X-Amz-Expires=60&X-Amz-Signature=ab&versionId=7", "?versionId=7"),
        ("AWSAccessKeyId=A&Signature=x%2Fy&Expires=1", ""),
        ("Expires=1&Signature=x&Key-Pair-Id=K&Policy=p", ""),
        ("X-Goog-Credential=c&X-Goog-Signature=a&generation=5", "?generation=5"),
        ("sv=2020&st=a&se=b&sr=b&sp=r&skoid=c&sig=x%2B&snapshot=q", "?snapshot=q"),
        ("id=7&expires=1", "?id=7&expires=1"),  # not signed
    ],
)
def test_of_a_signed_address_what_signs_it_does_not_last(signed: str, lasting: str) -> None:
    assert uris.unsigned(f"https://host/a%20b.mp4?{signed}") == f"https://host/a%20b.mp4{lasting}"
    assert uris.unsigned(f"s3://bucket/a?{signed}") == f"s3://bucket/a?{signed}"


def test_what_differs_in_its_query_is_shown_differently() -> None:
    shown = [uris.safe_uri(f"https://host/video?id={number}") for number in range(100)]
    assert len(set(shown)) == 100
    assert [uris.safe_uri(uri) for uri in shown] == shown  # what was written down can be shown again


@pytest.mark.parametrize("uri", ["/data/what?.mp4", "s3://bucket/take?1", "memory://a/b?", "file:///data/what?.mp4"])
def test_a_question_mark_is_part_of_a_name(uri: str) -> None:
    assert uris.safe_uri(uri) == uris.without_query(uri) == uri
    assert uris.folder_of(f"{uri}/m.csv") == (uri if "://" in uri[:9] and uri[0] != "f" else "/data/what?.mp4")


def test_a_store_whose_package_is_missing_names_the_extra() -> None:
    try:
        import gcsfs  # noqa: F401
    except ImportError:
        with pytest.raises(StorageError, match=r"pip install 'rts-batch\[gcs\]'"):
            files.exists("gs://bucket/a")
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
    assert uris.resolve(uri, folder) == expected


@pytest.mark.parametrize("start", ["file://", "file://localhost", "file://LocalHost", "file:"])
def test_an_address_of_a_local_file_is_percent_encoded(start: str, tmp_path: Path) -> None:
    named = {name: tmp_path / name for name in ("a b%2.mp4", "a%20b.mp4", "кот?#.mp4")}
    for name, path in named.items():
        path.write_text(name)
        assert files.read_bytes(start + quote(str(path))) == name.encode()
    assert uris.local_path(f"{start}/a%20b") == Path("/a b")


def test_an_address_of_a_file_elsewhere_is_refused() -> None:
    with pytest.raises(StorageError, match="names a file on another machine, 'server'"):
        uris.local_path("file://server/share/a.mp4")


def test_relative_paths_of_a_relative_folder_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert uris.resolve("a.mp4", "clips") == str(tmp_path / "clips" / "a.mp4")
