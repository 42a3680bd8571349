"""http(s) that reaches public addresses only.

A manifest may come from anyone, its addresses are asked for by our machines. So the address that a connection is about
to be made to decides, whatever name, redirect or notation led there, unless RTS_BATCH_PRIVATE_HTTP=allow is set. Where
the environment names a proxy, connections are made to that, wherever it is; then names are its to look up, and only
what is written as a private address is refused here.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import urllib.request
from typing import Any, Final
from urllib.parse import urlsplit

PRIVATE_HTTP: Final = "RTS_BATCH_PRIVATE_HTTP"
"""Environment variable; `allow` lets http(s) reach loopback, link-local and private addresses."""


class PrivateAddressError(PermissionError):
    """An address that is not public."""


def is_allowed() -> bool:
    return os.environ.get(PRIVATE_HTTP) == "allow"


def public_socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket for one address of `getaddrinfo`. Raises PrivateAddressError unless it is public, or a proxy's."""
    family, kind, protocol, _, (host, port, *_) = address
    if not _is_public(str(host)) and not _is_proxy(str(host), port):
        raise PrivateAddressError(_refusal(str(host)))
    return socket.socket(family, kind, protocol)


def refuse_private(host: str) -> None:
    """Raise PrivateAddressError for a host that is written as an address, in any notation, which is not public."""
    try:
        written = socket.inet_ntoa(socket.inet_aton(host))  # 2130706433 and 0x7f.1, too
    except OSError:
        written = host.strip("[]")
    name = host.rstrip(".").lower()
    try:
        public = _is_public(written)
    except ValueError:
        public = name != "localhost" and not name.endswith(".localhost")
    if not public:
        raise PrivateAddressError(_refusal(host))


def _refusal(host: str) -> str:
    return f"{host} is no public address; set {PRIVATE_HTTP}=allow to reach such ones"


def _is_public(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_global and not address.is_multicast


def _is_proxy(host: str, port: int) -> bool:
    """Whether the environment names this address as a proxy."""
    return any((host, port) in _addresses(proxy) for proxy in urllib.request.getproxies().values())


def _addresses(proxy: str) -> set[tuple[str, int]]:
    try:
        parts = urlsplit(proxy if "//" in proxy else f"//{proxy}")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError):
        return set()
    return {(str(place[0]), port) for *_, place in found}


def refusal_behind(error: BaseException | None) -> PrivateAddressError | None:
    """The refusal of a private address behind an error of the http client, if that is what it was."""
    while error is not None and not isinstance(error, PrivateAddressError):
        error = error.__cause__ or error.__context__
    return error
