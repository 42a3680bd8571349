"""A result that is written after each step, so that what was measured stays whatever ends the measuring."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["Notes"]


class Notes:
    """The steps of a part. Those that a file has already, taken under the same conditions, are not taken again.

    Args:
        path: of the JSON file; None writes none.
        about: the conditions. A file of others is begun anew.
    """

    def __init__(self, path: Path | None, about: Mapping[str, Any]) -> None:
        self._path = path
        self._content: dict[str, Any] = {"about": dict(about), "complete": False, "steps": {}, "failed": {}}
        if path is not None and path.exists():
            earlier = json.loads(path.read_text())
            if earlier.get("about") == json.loads(json.dumps(dict(about))):
                self._content |= {"steps": earlier["steps"]}

    @property
    def steps(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self._content["steps"]
        return found

    def step(self, name: str, measure: Callable[..., Mapping[str, Any]], *given: Any, **options: Any) -> None:
        """Call `measure` unless that has been done; an error is noted, and the next step is taken all the same."""
        if name in self.steps:
            print(f"{name}: done before", flush=True)
            return
        began = time.monotonic()
        try:
            row = {key: _short(value) for key, value in measure(*given, **options).items()}
        except Exception as error:
            traceback.print_exc()
            self._content["failed"][name] = f"{type(error).__name__}: {str(error)[-1000:]}"
            print(f"{name}: FAILED", flush=True)
        else:
            self.steps[name] = {**row, "step_s": round(time.monotonic() - began, 1)}
            said = "  ".join(f"{key} {value}" for key, value in self.steps[name].items() if key != "kernels")
            print(f"{name}:  {said}", flush=True)
        self._write()

    def finish(self) -> int:
        """Note that all steps have been taken, and return the exit code: 1 where one failed."""
        self._content["complete"] = not self._content["failed"]
        self._write()
        return int(not self._content["complete"])

    def _write(self) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(self._content, indent=1, ensure_ascii=False) + "\n")
            new.replace(self._path)


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value
