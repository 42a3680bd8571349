"""Who may ask this server, and what its pages may do.

It listens on loopback, where every process and every web page that the user has open can reach it. So each address
begins with a token, only the server's own name is answered to (a hostile name may be made to point at loopback), and
what changes something must come from the page itself.
"""

from __future__ import annotations

import hmac
from collections.abc import MutableMapping
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES: Final = 64 << 20
"""Of a request's body."""

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # the token is part of the address
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Guard:
    """Lets only requests through that know the token; the application sees their addresses without it.

    Args:
        app: the application.
        token: the first part of every address.
        port: that the server listens on; its names are `127.0.0.1` and `localhost`.
    """

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        given, slash, rest = scope["path"].removeprefix("/").partition("/")
        refused = self._refusal(scope["method"], Headers(scope=scope))
        if refused is None and not (slash and hmac.compare_digest(given.encode(), self._token)):
            refused = 403, "The address lacks the token, or has that of another session: copy it from the terminal."
        answer: ASGIApp = self._app
        if refused is not None:
            status, text = refused
            answer = PlainTextResponse(text, status)
        inner = {**scope, "path": f"/{rest}", "raw_path": f"/{rest}".encode()}
        await answer(inner, _limited(receive), _with_headers(send))

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self._hosts:
            return 403, "This server answers to its own name only."
        if origin is None and method not in ("GET", "HEAD"):
            return 403, "What changes something must say where it comes from."
        if origin is not None and origin not in {f"http://{name}" for name in self._hosts}:
            return 403, "Another page may not ask this server."
        # Another site's link may open the page, but not take a picture or a table of it.
        site, mode = headers.get("sec-fetch-site", "none"), headers.get("sec-fetch-mode")
        if site not in ("none", "same-origin") and mode != "navigate":
            return 403, "Another page may not ask this server."
        if int(headers.get("content-length", "0") or 0) > MOST_BYTES:
            return 413, "That is too much at once."
        return None


def _limited(receive: Receive) -> Receive:
    left = MOST_BYTES

    async def limited() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        return message if left >= 0 else {"type": "http.disconnect"}

    return limited


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
            headers.setdefault("cache-control", "no-store")
        await send(message)

    return sending
