"""What the http client sends, and by which way: signed addresses, redirects and proxies."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rts_batch.errors import StorageError
from rts_batch.io.storage import files
from rts_batch.io.storage.ranges import RangedObject
from rts_batch.io.storage.web import wire_form

CONTENT = bytes(range(256)) * 40


class Server(ThreadingHTTPServer):
    """Answers every GET with `CONTENT`, or a redirect to what `redirects` says; also as a proxy. HEAD is refused."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        """The first lines of all requests but HEAD, without `HTTP/1.1`."""
        self.authorizations: list[str | None] = []
        self.redirects: dict[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_HEAD(self) -> None:
        self._answer(403)

    def do_CONNECT(self) -> None:
        self._remember()
        self._answer(502)

    def do_GET(self) -> None:
        self._remember()
        target = self.server.redirects.get(self.path)
        if target is not None:
            self._answer(302, headers={"Location": target})
        elif wanted := self.headers.get("Range"):
            first, last = (int(number) for number in wanted.removeprefix("bytes=").split("-"))
            part = CONTENT[first : last + 1]
            self._answer(206, part, headers={"Content-Range": f"bytes {first}-{last}/{len(CONTENT)}"})
        else:
            self._answer(200, CONTENT)

    def _remember(self) -> None:
        self.server.asked.append(f"{self.command} {self.path}")
        names = ("Proxy-Authorization", "Authorization")
        self.server.authorizations.append(next((self.headers[name] for name in names if name in self.headers), None))

    def _answer(self, code: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTS_BATCH_PRIVATE_HTTP", "allow")


SIGNED = (
    "/a.mp4?sig=a%2Bb%2Fc%3D%3D&X=1%2F2",
    "/a.mp4?X-Amz-Credential=KEY%2F20261128%2Fus-east-1%2Fs3&X-Amz-Signature=0a1b",
    "/a.mp4?Policy=eyJ~_-&Signature=a~b-c_&x=%7e%2f",  # as CloudFront does; lower-case escapes stay so, too
    "/a%20b%2Fc%2B~.mp4?q=a+b%20c&empty=&flag",
    "/a.mp4?url=https://other/?x=1",
    "/a.mp4?list[]=1&b=|{}",
)


@pytest.mark.parametrize("path", SIGNED)
def test_a_signed_address_is_sent_byte_for_byte(allowed: None, server: Server, tmp_path: Path, path: str) -> None:
    uri = server.address + path
    assert files.fetch(uri, tmp_path).read_bytes() == CONTENT
    assert files.read_bytes(uri) == CONTENT
    assert RangedObject(uri).read(100, 50) == CONTENT[100:150]
    assert set(server.asked) == {f"GET {path}"}


@pytest.mark.parametrize("path", SIGNED)
def test_a_redirect_to_a_signed_address_is_followed_byte_for_byte(allowed: None, server: Server, path: str) -> None:
    server.redirects = {"/here": path, "/there": server.address + path}
    for name in ("/here", "/there"):
        server.asked.clear()
        assert files.read_bytes(server.address + name) == CONTENT
        assert server.asked == [f"GET {name}", f"GET {path}"]


def test_a_redirect_to_an_address_that_has_not_been_escaped_is_followed(allowed: None, server: Server) -> None:
    server.redirects = {"/here": "/a b.mp4?x=1 2"}
    assert files.read_bytes(f"{server.address}/here") == CONTENT
    assert server.asked == ["GET /here", "GET /a%20b.mp4?x=1%202"]


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("http://host/a b.mp4", "http://host/a%20b.mp4"),
        ("http://host/кот.mp4?q=кот", "http://host/%D0%BA%D0%BE%D1%82.mp4?q=%D0%BA%D0%BE%D1%82"),
        ("http://кот.рф:81/a", "http://xn--j1aim.xn--p1ai:81/a"),
        ("http://host/100%.mp4?share=5%", "http://host/100%25.mp4?share=5%25"),
        ("http://host/take[1].mp4", "http://host/take%5B1%5D.mp4"),
        ("http://host/%2e%2E/%41", "http://host/%2e%2E/%41"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("http://host?x=/", "http://host?x=/"),
        ("https://host/a.mp4#t=10", "https://host/a.mp4#t=10"),
    ],
)
def test_only_what_cannot_be_sent_is_escaped(written: str, sent: str) -> None:
    assert wire_form(written) == sent
    assert wire_form(sent) == sent


# Proxies. The names end in `.invalid`, which no name server knows: only the proxy can have been asked.


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
def test_the_proxy_of_the_environment_is_used(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    """And may be at a private address, where it mostly is."""
    monkeypatch.setenv(variable, server.address)
    uri = "http://videos.invalid/a%2Fb.mp4?sig=a%2Fb"
    assert files.fetch(uri, tmp_path).read_bytes() == CONTENT
    assert RangedObject(uri).read(100, 50) == CONTENT[100:150]
    assert set(server.asked) == {f"GET {uri}"}


def test_a_proxy_for_https_is_asked_to_connect(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", server.address.removeprefix("http://"))
    with pytest.raises(StorageError):
        files.read_bytes("https://videos.invalid/a.mp4")
    assert set(server.asked) == {"CONNECT videos.invalid:443"}


def test_a_proxy_gets_its_password_and_nobody_else_one(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Other than by `trust_env`, what ~/.netrc holds for any host is not sent to the hosts of a manifest."""
    (tmp_path / "netrc").write_text("default login me password netrc-secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("http_proxy", server.address.replace("//", "//me:proxy-secret@"))
    assert files.read_bytes("http://videos.invalid/a.mp4") == CONTENT
    monkeypatch.delenv("http_proxy")
    monkeypatch.setenv("RTS_BATCH_PRIVATE_HTTP", "allow")
    assert files.read_bytes(f"{server.address}/a.mp4") == CONTENT
    assert server.authorizations == [f"Basic {base64.b64encode(b'me:proxy-secret').decode()}", None]


@pytest.mark.parametrize("hosts", ["127.0.0.1", "*", "other.invalid,127.0.0.1"])
def test_hosts_without_proxy_are_asked_themselves(
    allowed: None, server: Server, monkeypatch: pytest.MonkeyPatch, hosts: str
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", hosts)
    assert files.read_bytes(f"{server.address}/a.mp4") == CONTENT
    assert server.asked == ["GET /a.mp4"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "a.localhost", "[::1]", "2130706433", "0x7f.1", "169.254.169.254", "10.0.0.1"]
)
def test_no_proxy_is_asked_for_a_private_address(server: Server, monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("http_proxy", server.address)
    with pytest.raises(StorageError, match="is no public address") as caught:
        files.read_bytes(f"http://{host}/a.mp4")
    assert not caught.value.transient
    server.redirects = {"http://videos.invalid/a.mp4": f"http://{host}/a.mp4"}
    with pytest.raises(StorageError, match="is no public address"):
        files.read_bytes("http://videos.invalid/a.mp4")
    assert server.asked == ["GET http://videos.invalid/a.mp4"]


def test_a_proxy_that_is_gone_is_a_transient_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rts_batch.io.storage.retries.FIRST_PAUSE", 0.001)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(StorageError) as caught:
        files.read_bytes("http://videos.invalid/a.mp4")
    assert caught.value.transient
