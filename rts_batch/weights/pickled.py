"""What a pickle describes, as data: names, the records of what it would have called, and how to look at them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

_DICT_CLASSES: Final = ("collections.OrderedDict", "collections.defaultdict", "builtins.dict")
_PLAIN_TYPES: Final = (type(None), bool, int, float, str, bytes)


class Name(NamedTuple):
    """A class or function that the pickle names; never looked up."""

    module: str
    name: str

    @property
    def full(self) -> str:
        return f"{self.module}.{self.name}"


class PersistentId(NamedTuple):
    """A reference to something outside the pickle; torch's are `("storage", type, key, location, numel[, view])`."""

    value: Any


class Record:
    """What the pickle would have made by calling `callee(*args)`.

    `state` is what BUILD would have set, `items` what would have been assigned by key and `elements` what would have
    been appended.
    """

    __slots__ = ("args", "callee", "elements", "items", "state")

    def __init__(self, callee: Any, args: Any) -> None:
        self.callee = callee
        self.args = args
        self.state: Any = None
        self.items: list[tuple[Any, Any]] = []
        self.elements: list[Any] = []

    @property
    def callee_name(self) -> str:
        """Full name of the callee; empty where the pickle calls something that is no name."""
        return self.callee.full if isinstance(self.callee, Name) else ""

    @property
    def attributes(self) -> dict[Any, Any]:
        """The `__dict__` that the object would have had."""
        state = self.state
        if isinstance(state, tuple) and len(state) == 2:  # (dict, slots)
            return {**_dict_or_empty(state[0]), **_dict_or_empty(state[1])}
        return _dict_or_empty(state)


def as_mapping(value: Any) -> dict[Any, Any] | None:
    """Return a dict, an OrderedDict or an object of any other dict class as a dict; None for anything else."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Record) and (value.items or value.callee_name in _DICT_CLASSES):
        pairs = [tuple(pair) for pair in _first_list(value.args) if isinstance(pair, list | tuple) and len(pair) == 2]
        return plain_keys([*pairs, *value.items])  # Python 2 gave an OrderedDict's items as its argument
    return None


def brief(value: Any) -> str:
    """Return a value from a pickle as text for a message: short, on one line, and made in bounded time."""
    if not isinstance(value, _PLAIN_TYPES) or (isinstance(value, int) and value.bit_length() > 64):
        return f"a {type(value).__name__}"
    return repr(value[:100] if isinstance(value, str | bytes) else value)


def plain_keys(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """Leave out items with other keys: hashing tuples that are nested in themselves many times takes for ever."""
    return {key: value for key, value in pairs if isinstance(key, _PLAIN_TYPES)}


def _dict_or_empty(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _first_list(args: Any) -> list[Any]:
    return args[0] if isinstance(args, tuple) and args and isinstance(args[0], list) else []
