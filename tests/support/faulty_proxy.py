"""A small HTTP proxy that gets in the way: answers late or never, breaks off, says 503, cuts bodies, PUTs twice."""

from __future__ import annotations

import http.client
import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)
EXPIRED = (
    b"<?xml version='1.0'?><Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
)


class FaultyProxy:
    """Forwards to `target`. Every `every`-th request meets the next of `faults`; None lets it pass.

    Faults are `reset` (the connection ends before an answer), `break` (it ends after half of the body), `short` (half
    of the body, announced as all of it), `slow down` (503), `expired` (400) and `twice` (the next PUT is forwarded a
    second time).
    """

    def __init__(self, target: str, faults: Sequence[str | None], *, every: int = 3, latency: float = 0.0) -> None:
        self.target = urlsplit(target)
        self.latency = latency
        self.speaking = threading.Event()
        """While it is clear, connections are taken and nothing is answered."""
        self.speaking.set()
        self.done: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        """By method."""
        self.sent = 0
        """Bytes of bodies that came back through it."""
        self._turns = itertools.cycle([None] * (every - 1) + ["fault"])
        self._faults = itertools.cycle(faults)
        self._waiting = False
        self._lock = threading.Lock()

    def next_fault(self, method: str) -> str | None:
        with self._lock:
            fault = next(self._faults) if next(self._turns) else None
            if fault == "twice" or self._waiting:
                self._waiting = method != "PUT"
                fault = None if self._waiting else "twice"
            if fault in ("break", "short") and method != "GET":
                fault = "reset"
            if fault:
                self.done[fault] += 1
            return fault

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Yields the proxy's address."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_expect_100(self) -> bool:
                proxy.speaking.wait()
                return super().handle_expect_100()

            def _forward(self) -> None:
                proxy.speaking.wait()
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(proxy.latency)
                proxy.requests[self.command] += 1
                fault = proxy.next_fault(self.command)
                if fault == "reset":
                    self.close_connection = True
                    return
                if fault in ("slow down", "expired"):
                    self._answer(*((503, SLOW_DOWN) if fault == "slow down" else (400, EXPIRED)), [])
                    return
                status, headers, content = self._ask(body)
                if fault == "twice":
                    status, headers, content = self._ask(body)
                if fault in ("break", "short"):
                    self._answer(status, content, headers, sent=len(content) // 2, announced=fault == "break")
                else:
                    self._answer(status, content, headers)

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward

            def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
                connection = http.client.HTTPConnection(proxy.target.hostname or "", proxy.target.port, timeout=30)
                try:
                    connection.request(self.command, self.path, body, dict(self.headers))
                    answer = connection.getresponse()
                    return answer.status, answer.getheaders(), answer.read()
                finally:
                    connection.close()

            def _answer(
                self,
                status: int,
                content: bytes,
                headers: list[tuple[str, str]],
                *,
                sent: int | None = None,
                announced: bool = True,
            ) -> None:
                sent = len(content) if sent is None else sent
                self.send_response_only(status)
                kept = [
                    (name, value) for name, value in headers if name.lower() not in ("transfer-encoding", "connection")
                ]
                length = len(content) if announced else sent
                if self.command != "HEAD":
                    kept = [(name, value) for name, value in kept if name.lower() != "content-length"]
                    kept.append(("Content-Length", str(length)))
                for name, value in kept:
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content[:sent])
                    proxy.sent += sent
                self.close_connection = sent != len(content)

            def log_message(self, *arguments: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
