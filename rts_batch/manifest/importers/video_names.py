"""What videos are called in a manifest: as short as tells them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


def distinct_names(names: Mapping[str, str]) -> dict[str, str]:
    """Return a name for each address: its own, or with as much of the address before it as no two have alike.

    Args:
        names: by address, with `/` between its parts; each is the end of its address.
    """
    found = dict(names)
    while True:
        counts = Counter(found.values())
        alike = {address: _longer(address, name) for address, name in found.items() if counts[name] > 1}
        if not any(found[address] != name for address, name in alike.items()):
            return found
        found |= alike


def _longer(address: str, name: str) -> str:
    """An end of an address with one part more."""
    parts = address.split("/")
    return "/".join(parts[-(name.count("/") + 2) :]).strip("/")
