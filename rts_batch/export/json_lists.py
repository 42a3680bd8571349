"""A JSON object whose lists grow in any order and are never in memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

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
        self._begun: set[str] = set()

    def __enter__(self) -> JsonLists:
        return self

    def __exit__(self, *_: object) -> None:
        for spool in self._spools.values():
            spool.close()

    def append(self, name: str, value: Any) -> None:
        """Add an item to a list."""
        self.append_text(name, [dumps(value)])

    def append_text(self, name: str, chunks: Iterable[str]) -> None:
        """Add an item that is JSON already, in pieces."""
        spool = self._spools[name]
        if name in self._begun:
            spool.write(",\n")
        self._begun.add(name)
        spool.writelines(chunks)

    def close(self, others: Mapping[str, Any]) -> None:
        """Join the lists and the values of `others` into the file."""
        with self.path.open("w", encoding="utf-8") as out:
            out.write("{")
            for name, value in others.items():
                out.write(f"{dumps(name)}:{dumps(value)},\n")
            for place, (name, spool) in enumerate(self._spools.items()):
                out.write(f"{',' if place else ''}{dumps(name)}:[\n")
                spool.seek(0)
                shutil.copyfileobj(spool, out)
                out.write("]\n")
                spool.close()
                Path(spool.name).unlink()
            out.write("}\n")
