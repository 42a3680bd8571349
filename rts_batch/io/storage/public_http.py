"""http(s) that reaches public addresses only.

A manifest may come from anyone, its addresses are asked for by our machines. So the address that a connection is about
to be made to decides, whatever name, redirect or notation led there, unless RTS_BATCH_PRIVATE_HTTP=allow is set.
"""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any, Final

__all__ = ["PRIVATE_HTTP", "PrivateAddressError", "http_options", "refusal_behind"]

PRIVATE_HTTP: Final = "RTS_BATCH_PRIVATE_HTTP"
"""Environment variable; `allow` lets http(s) reach loopback, link-local and private addresses."""


class PrivateAddressError(PermissionError):
    """An address that is not public."""


def http_options() -> dict[str, Any]:
    """What fsspec's http file system is opened with."""
    return {} if os.environ.get(PRIVATE_HTTP) == "allow" else {"get_client": _public_client}


async def _public_client(**options: Any) -> Any:
    import aiohttp

    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(socket_factory=_public_socket), **options)


def _public_socket(address: tuple[Any, ...]) -> socket.socket:
    family, kind, protocol, _, place = address
    host = ipaddress.ip_address(str(place[0]).partition("%")[0])
    host = getattr(host, "ipv4_mapped", None) or host
    if not host.is_global or host.is_multicast:
        raise PrivateAddressError(f"{host} is no public address; set {PRIVATE_HTTP}=allow to reach such ones")
    return socket.socket(family, kind, protocol)


def refusal_behind(error: BaseException | None) -> PrivateAddressError | None:
    """The refusal of a private address behind an error of the http client, if that is what it was."""
    while error is not None and not isinstance(error, PrivateAddressError):
        error = error.__cause__ or error.__context__
    return error
