"""What `run.json` says of a run: what decides its masks, and what it ran on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Final

from rts_batch.errors import RunFolderError
from rts_batch.version import __version__

FORMAT: Final = 1
PACKAGES: Final = ("torch", "ray", "numpy", "opencv-python-headless", "av", "decord", "pyarrow", "pycocotools")
"""What may change a byte of the results, beside this package."""


BEFORE_THE_CHOICE: Final = {"overlap": "merge", "tracker.box_refinements": 0}
"""What runs did that were begun by a version which did not record it, by its dotted name."""


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The content of `run.json`.

    `results` decides the masks: a folder takes only one value of it. `environment` decides their last bits: it is
    recorded, and a later submission whose environment differs goes on with a warning.
    """

    results: Mapping[str, Any]
    environment: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The first submission's `RunSettings`, with which `resume` goes on."""

    def to_json(self) -> bytes:
        return to_json({"format": FORMAT, **vars(self)})

    @classmethod
    def from_json(cls, data: bytes, *, where: str) -> RunRecord:
        try:
            content = json.loads(data)
            if content["format"] != FORMAT:
                raise RunFolderError(
                    f"{where}: format {content['format']} is not one this version ({FORMAT}) can go on with"
                )
            return cls(
                results=content["results"], environment=content["environment"], settings=content.get("settings", {})
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RunFolderError(f"{where} is not a run's record ({error}); give another folder with --out") from error


def other_results(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`differences` of what decides the masks of a run, `RunRecord.results`."""
    return differences(BEFORE_THE_CHOICE | dict(flatten(earlier)), BEFORE_THE_CHOICE | dict(flatten(now)))


def versions() -> dict[str, str]:
    """The installed versions of everything that may change a byte of the results."""
    installed = {package: _version(package) for package in PACKAGES}
    found = {package: version for package, version in installed.items() if version is not None}
    return {"rts-batch": __version__, **found}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One line for every value that differs, by its dotted name."""
    before, after = (dict(flatten(json.loads(to_json(values)))) for values in (earlier, now))
    return [
        f"{name}: the run has {_shown(before.get(name))}, this command {_shown(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested values by their dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value)


def to_json(content: Mapping[str, Any]) -> bytes:
    """A JSON object as the files of a run's folder hold it, for people to read."""
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
