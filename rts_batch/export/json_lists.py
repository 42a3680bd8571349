"""A JSON object whose lists grow in any order and are never in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

__all__ = ["JsonLists", "dumps"]

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def dumps(value: Any) -> str:
    return _ENCODER.encode(value)


class JsonLists:
    """Writes `{"name": […], …}` to `path`: each list is spooled to a file of its own, which `close` joins."""

    def __init__(self, path: Path, *names: str) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._spools: dict[str, IO[str]] = {
            name: path.with_name(f"{path.name}.{name}.part").open("w+", encoding="utf-8") for name in names
        }
        self._lengths = dict.fromkeys(names, 0)

    def __enter__(self) -> JsonLists:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spool in self._spools.values():
            spool.close()

    def append(self, name: str, value: Any) -> int:
        """Add an item to a list and return how many it has now."""
        return self.append_text(name, [dumps(value)])

    def append_text(self, name: str, chunks: Iterable[str]) -> int:
        """Add an item that is JSON already, in pieces."""
        spool = self._spools[name]
        if self._lengths[name]:
            spool.write(",\n")
        spool.writelines(chunks)
        self._lengths[name] += 1
        return self._lengths[name]

    def length(self, name: str) -> int:
        return self._lengths[name]

    def close(self, others: Mapping[str, Any] | None = None) -> None:
        """Join the lists and the values of `others` into the file."""
        with self.path.open("w", encoding="utf-8") as out:
            out.write("{")
            for name, value in (others or {}).items():
                out.write(f"{dumps(name)}:{dumps(value)},\n")
            for place, (name, spool) in enumerate(self._spools.items()):
                out.write(f"{',' if place else ''}{dumps(name)}:[\n")
                spool.seek(0)
                shutil.copyfileobj(spool, out)
                out.write("]\n")
                spool.close()
                Path(spool.name).unlink()
            out.write("}\n")
