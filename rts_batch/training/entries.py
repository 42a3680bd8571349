"""Checks of the tables `[[data]]` and `[[validation]]` of a recipe against the builders of their kinds."""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from rts_batch.errors import SettingsError


def tables(content: Mapping[str, Any], section: str) -> list[dict[str, Any]]:
    """Return the tables `[[section]]` of a recipe, none where it is not there; raise `SettingsError`."""
    found = content.get(section, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise SettingsError(f"{section} is {found!r}; expected tables, each under [[{section}]] in double brackets")
    return found


def table(content: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Return the table `[section]` of a recipe, empty where it is not there; raise `SettingsError`."""
    found = content.get(section, {})
    if not isinstance(found, dict):
        raise SettingsError(f"{section} is {found!r}; expected a table under [{section}]")
    return found


def check_entry(entry: Mapping[str, Any], kinds: Mapping[str, Callable[..., Any]], where: str) -> None:
    """Raise `SettingsError` where a table names no kind of data, or has not the options that its builder takes.

    Args:
        entry: `kind`, `weight` and the options.
        kinds: the builders; all their parameters but the first are options.
        where: which table it is, for messages.
    """
    kind = entry.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise SettingsError(f"data has kind {kind!r}; valid are {', '.join(sorted(kinds))}")
    weight = entry.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise SettingsError(f"data of kind {kind!r} has weight {weight!r}; expected a number above 0")
    parameters = {**inspect.signature(kinds[kind]).parameters}
    parameters.pop(next(iter(parameters)))  # the clips' settings
    options = set(entry) - {"kind", "weight"}
    unknown = sorted(options - set(parameters))
    missing = sorted(name for name, p in parameters.items() if p.default is p.empty and name not in options)
    if unknown or missing:
        fault = f"does not know {unknown[0]!r}" if unknown else f"needs {missing[0]!r}"
        raise SettingsError(f"data of kind {kind!r} {fault}; its options are weight, {', '.join(parameters)}")
    hints = _hints(kinds[kind])
    for name in sorted(options & set(hints)):
        _check_value(entry[name], hints[name], f"{where}, of kind {kind!r}: {name}")


def _check_value(value: Any, kind: Any, where: str) -> None:
    try:
        # As JSON, in which a list does for a tuple; strictly, so that no text becomes a number.
        TypeAdapter(kind).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        raise SettingsError(f"{where} is {value!r}: {error.errors(include_url=False)[0]['msg']}") from None


def _hints(build: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(build)
    except NameError:  # somebody's own builder, with names that are not to be had here
        return {}
