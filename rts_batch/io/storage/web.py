"""The http client: it sends addresses as they are written, and goes through the proxies that the environment names.

A signed address is signed byte for byte. Client libraries write it anew (`%2F` in a query becomes `/`), so that a
server which compares the text refuses it.
"""

from __future__ import annotations

import base64
import re
import socket
import urllib.request
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote

import aiohttp
from yarl import URL

from rts_batch.io.storage.public_http import is_allowed, public_socket, refuse_private

_PARTS: Final = re.compile(
    r"(?P<start>[^/?#]*//)(?P<host>[^/?#]*)(?P<path>[^?#]*)(?P<query>[^#]*)(?P<rest>.*)", re.DOTALL
)
_IN_PATH: Final = "%/:@!$&'()*+,;=~-._"
_IN_QUERY: Final = _IN_PATH + "?[]{}|\\^`"
"""What browsers send as it is."""
_STRAY_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")


def session(*, socket_factory: Callable[..., socket.socket] | None = None, **options: Any) -> aiohttp.ClientSession:
    """A client session for fsspec.

    Args:
        socket_factory: makes the socket of a connection, or refuses it.
        options: as of `aiohttp.ClientSession`.
    """
    connector = aiohttp.TCPConnector(socket_factory=socket_factory) if socket_factory is not None else None
    return aiohttp.ClientSession(connector=connector, request_class=_Request, requote_redirect_url=False, **options)


def wire_form(url: str) -> str:
    """The address as it goes over the wire: byte for byte what is written, where that can stand in a request.

    Characters that cannot (spaces, letters beyond ASCII, a `%` that begins no escape) are escaped; names of hosts get
    their ASCII form.
    """
    match = _PARTS.fullmatch(url)
    if match is None:
        return url
    start, host, path, query, rest = match.groups()
    if not host.isascii():
        host = str(URL(f"http://{host}").raw_authority)
    path, query = (
        quote(_STRAY_PERCENT.sub("%25", part), safe=safe) for part, safe in ((path, _IN_PATH), (query, _IN_QUERY))
    )
    return f"{start}{host}{path}{query}{rest}"


class _Request(aiohttp.ClientRequest):
    """A request, or one that a redirect leads to."""

    def __init__(self, method: str, url: URL, **options: Any) -> None:
        url = URL(wire_form(str(url)), encoded=True)
        proxy = _proxy_for(url)
        if proxy is not None:
            if not is_allowed():
                refuse_private(url.host or "")
            # Not by the session's `trust_env`, which would also send what ~/.netrc holds to any host of a manifest.
            options["proxy"] = proxy.with_user(None)
            if proxy.user is not None:
                secret = base64.b64encode(f"{proxy.user}:{proxy.password or ''}".encode()).decode()
                options["proxy_headers"] = {"Authorization": f"Basic {secret}"}  # which becomes Proxy-Authorization
        super().__init__(method, url, **options)


def _proxy_for(url: URL) -> URL | None:
    """The proxy that `http_proxy`, `https_proxy` or `all_proxy` names, unless `no_proxy` has the host."""
    proxies = urllib.request.getproxies()
    host = f"[{url.raw_host}]" if ":" in (url.raw_host or "") else url.raw_host
    written = proxies.get(url.scheme) or proxies.get("all")
    if not written or urllib.request.proxy_bypass(f"{host}:{url.port}"):
        return None
    proxy = URL(written if "//" in written else f"http://{written}")
    return proxy if proxy.scheme in ("http", "https") else None


def http_options() -> dict[str, Any]:
    """What fsspec's http file system is opened with."""
    return {"get_client": _client if is_allowed() else _public_client, "encoded": True}


async def _client(**options: Any) -> Any:
    return session(**options)


async def _public_client(**options: Any) -> Any:
    return session(socket_factory=public_socket, **options)
