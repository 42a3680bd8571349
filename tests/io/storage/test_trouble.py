"""What a message says of a name that is not there."""

from __future__ import annotations

import contextlib
import threading
import unicodedata
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rts_batch.errors import StorageError
from rts_batch.io.storage import files, retries
from rts_batch.io.video.spool import version_of_video


def refusal(uri: str) -> str:
    with pytest.raises(StorageError) as caught:
        files.read_bytes(uri)
    return str(caught.value)


@pytest.mark.parametrize(("on_disk", "given"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_that_are_written_otherwise_are_pointed_out(tmp_path: Path, on_disk: str, given: str) -> None:
    there = tmp_path / unicodedata.normalize(on_disk, "café") / unicodedata.normalize(on_disk, "Übung.mp4")
    there.parent.mkdir()
    there.touch()
    said = refusal(str(tmp_path / unicodedata.normalize(given, "café/Übung.mp4")))
    assert f"there is {there}, which looks the same" in said
    assert f"{given} in the name that was given, {on_disk} on disk" in said


def test_backslashes_case_spaces_and_percent_signs_are_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "My Clip.MP4"):
        (tmp_path / "clips" / name).touch()
    said = refusal(f"{tmp_path}/clips\\a.mp4")
    assert "write / between folders" in said
    assert f"there is {tmp_path}/clips/a.mp4" in said
    assert f"there is {tmp_path}/clips/My Clip.MP4" in refusal(f"{tmp_path}/clips/my clip.mp4 ")
    said = refusal(f"{tmp_path}/clips/My%20Clip.MP4")
    assert f"there is {tmp_path}/clips/My Clip.MP4: only file:// addresses are percent-encoded" in said
    assert refusal(str(tmp_path / "other.mp4")).endswith("other.mp4: it does not exist")


@contextlib.contextmanager
def answering(status: int, **headers: str) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        do_HEAD = do_GET

        def log_message(self, *words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/a.mp4"
        server.shutdown()


def trouble_of_video(uri: str) -> StorageError:
    with pytest.raises(StorageError) as caught:
        version_of_video(uri)
    return caught.value


def test_a_server_that_gives_nothing_is_told_from_one_that_has_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that does not exist was "in trouble", and an address that leads in circles did not exist."""
    monkeypatch.setenv("RTS_BATCH_PRIVATE_HTTP", "allow")
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.0)
    with answering(404) as uri:
        assert str(trouble_of_video(uri)).endswith("it does not exist")
    with answering(503) as uri:
        error = trouble_of_video(uri)
        assert str(error).endswith("the server answers 503 Service Unavailable")
        assert error.transient
    with answering(302, Location="/a.mp4") as uri:
        assert "TooManyRedirects" in str(trouble_of_video(uri))
    error = trouble_of_video(uri)  # the server is gone
    assert "Connect call failed" in str(error)
    assert error.transient
    error = trouble_of_video("http://127.0.0.1:99999/a.mp4")
    assert "Port out of range" in str(error)
    assert not error.transient
