"""Google Drive on loopback, as far as gdown asks it: the page of a folder, and its files by their ids."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from requests.adapters import HTTPAdapter

DRIVE = "https://drive.google.com"


class Drive(ThreadingHTTPServer):
    """Serves the files of `folder`, on Drive's addresses and under their own names."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.folder = folder
        self.asked: list[str] = []
        self.status = 200
        """What the folder's page is answered with."""
        self.cut = 0
        """How many answers of a file's content to break off in the middle."""

    def ids(self) -> dict[str, Path]:
        return {f"{path.name.replace('.', '-'):_<33}": path for path in sorted(self.folder.iterdir())}


class Handler(BaseHTTPRequestHandler):
    server: Drive

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        parts = urlsplit(self.path)
        query = parse_qs(parts.query)
        if parts.path == "/embeddedfolderview":
            self._page()
        elif parts.path == "/uc":
            self._file(self.server.ids()[query["id"][0]])
        else:
            self._file(self.server.folder / parts.path[1:])

    def do_HEAD(self) -> None:
        self.send_response(405)
        self.end_headers()

    def _page(self) -> None:
        links = [f'<a href="{DRIVE}/file/d/{key}/view">{path.name}</a>' for key, path in self.server.ids().items()]
        page = f"<html><head><title>checkpoints</title></head><body>{''.join(links)}</body></html>".encode()
        self._answer(self.server.status, page, {})

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._answer(404, b"", {})
            return
        content, first, headers = path.read_bytes(), 0, {"Content-Disposition": f'attachment; filename="{path.name}"'}
        if wanted := self.headers.get("Range"):
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._answer(206 if wanted else 200, content[first:], headers)

    def _answer(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        kind = "application/octet-stream" if "Content-Disposition" in headers else "text/html"
        self.send_response(status)
        for name, value in {"Content-Type": kind, **headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.server.cut and "Content-Disposition" in headers:
            self.server.cut -= 1
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
            return
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def drive_on_loopback(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Drive]:
    """Answers what this process asks of Google Drive; anything else that `requests` is asked for fails."""
    server = Drive(folder)

    class Loopback(HTTPAdapter):
        def send(self, request: Any, *arguments: Any, **options: Any) -> requests.Response:
            assert request.url.startswith(f"{DRIVE}/"), request.url
            request.url = server.address + request.url.removeprefix(DRIVE)
            return super().send(request, *arguments, **options)

    monkeypatch.setattr(requests.Session, "get_adapter", lambda self, url: Loopback())
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
