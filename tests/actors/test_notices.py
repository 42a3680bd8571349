"""Spot notices, from a metadata server of our own on the loopback address."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rts_batch.actors.notices import Notice, ask_ec2, ask_gcp, watch


class Metadata(ThreadingHTTPServer):
    """Both clouds' servers; it insists on their headers."""

    notice: str | None = None
    preempted = False
    questions = 0


class Handler(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        granted = self.path == "/latest/api/token" and self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        self.answer(200 if granted else 400, "token")

    def do_GET(self) -> None:
        self.server.questions += 1
        if self.path == "/latest/meta-data/spot/instance-action":
            if self.headers.get("X-aws-ec2-metadata-token") != "token":
                self.answer(401, "")
            else:
                self.answer(200 if self.server.notice else 404, self.server.notice or "")
        elif self.headers.get("Metadata-Flavor") == "Google":
            self.answer(200, "TRUE" if self.server.preempted else "FALSE")
        else:
            self.answer(403, "")

    def answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *_: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[tuple[Metadata, str]]:
    server = Metadata(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_ec2_has_no_notice_and_then_one(metadata: tuple[Metadata, str]) -> None:
    server, base = metadata
    assert ask_ec2(base) is None
    when = datetime.now(timezone.utc) + timedelta(seconds=120)
    server.notice = json.dumps({"action": "terminate", "time": when.strftime("%Y-%m-%dT%H:%M:%SZ")})
    notice = ask_ec2(base)
    assert notice is not None
    assert notice.reason == "EC2 spot terminate"
    assert 100 < notice.seconds <= 120


def test_google_says_true(metadata: tuple[Metadata, str]) -> None:
    server, base = metadata
    assert ask_gcp(base) is None
    server.preempted = True
    assert ask_gcp(base) == Notice("Google preemption", 30.0)


def test_the_watcher_tells_once(metadata: tuple[Metadata, str]) -> None:
    server, base = metadata
    told: list[Notice] = []
    watcher = threading.Thread(
        target=watch,
        args=(told.append,),
        kwargs={"ask": [partial(ask_gcp, base)], "stopped": threading.Event(), "poll_seconds": 0.01},
    )
    watcher.start()
    while server.questions < 5:
        pass
    assert not told
    server.preempted = True
    watcher.join(60)
    assert told == [Notice("Google preemption", 30.0)]


def test_where_no_cloud_answers_the_watcher_gives_up() -> None:
    asked: list[int] = []

    def nobody() -> Notice | None:
        asked.append(1)
        raise ConnectionRefusedError

    watch(lambda notice: pytest.fail("told"), ask=[nobody], stopped=threading.Event(), poll_seconds=0.0)
    assert len(asked) == 3


def test_a_cloud_that_has_answered_may_be_silent_for_a_while() -> None:
    answers: list[Notice | OSError | None] = [None, *[OSError()] * 9, Notice("soon", 1.0)]
    told: list[Notice] = []

    def moody() -> Notice | None:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    watch(told.append, ask=[moody], stopped=threading.Event(), poll_seconds=0.0)
    assert told == [Notice("soon", 1.0)]
