"""Where an option of `submit` has its value from: the command line, the environment, a file of settings, its default.

Each layer is put under the one before it as the parser's own defaults, so that a value is checked in the same way
wherever it comes from.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from rts_batch.cli.submission import chosen_settings
from rts_batch.config import TrackerConfig
from rts_batch.errors import SettingsError, UsageError
from rts_batch.io.storage import uris
from rts_batch.weights.publications import NAMES

PREFIX: Final = "RTS_BATCH_"
FILE_VARIABLE: Final = f"{PREFIX}SETTINGS"
OF_ONE_SUBMISSION: Final = frozenset(
    {"manifest", "out", "redo_changed", "shard", "limit", "detach", "dry_run", "as_json", "tracker", "help"}
    | {"settings_file", "show_settings", "quiet", "verbose"}
)
"""Parameters of `submit` that say what it does now, not how runs are done: no layer but the command line has them."""

_META: Final = "rts_batch.layers"


@dataclass(frozen=True)
class Setting:
    name: str
    value: Any
    source: str


class Layers:
    """What the environment and a file say, by the names of the parameters."""

    def __init__(self, ctx: typer.Context, file: Path | None) -> None:
        self._ctx = ctx
        group: Any = None if ctx.parent is None else ctx.parent.command
        command = ctx.command if group is None else group.commands["submit"]
        parameters = {str(parameter.name): parameter for parameter in command.params}
        self._parameters = {name: parameters[name] for name in parameters.keys() - OF_ONE_SUBMISSION}
        self._names = {known: name for name in self._parameters for known in _spellings(self._parameters[name])}
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}
        if file is not None:
            self._add_file(file)
        self._add_environment()

    def _add_file(self, file: Path) -> None:
        keys: dict[str, str] = {}
        for key, value in _read(file).items():
            known = key.replace("-", "_")
            if known not in self._names:
                raise SettingsError(f"{file}: {key!r} is no setting of submit{self._similar(known)}")
            name = self._names[known]
            if name in keys:
                raise SettingsError(f"{file}: {key!r} is the same setting as {keys[name]!r}; keep one of them")
            keys[name] = key
            if name == "weights" and isinstance(value, str) and _is_path(value):
                value = str(file.parent / Path(value).expanduser())
            if name == "resource" and isinstance(value, dict):
                value = [f"{resource}={amount}" for resource, amount in value.items()]
            self._add(name, value, str(file), f"{file}: {key} = {value!r}")

    def _add_environment(self) -> None:
        variables: dict[str, str] = {}
        for known, name in self._names.items():
            variable = PREFIX + known.upper()
            if value := os.environ.get(variable):
                if name in variables:
                    raise SettingsError(f"{variable} is the same setting as {variables[name]}; keep one of them")
                variables[name] = variable
                split = [word for word in re.split(r"[\s,]+", value) if word]
                self._add(name, split if name == "resource" else value, variable, f"{variable}={value}", text=True)

    def _add(self, name: str, value: Any, source: str, shown: str, *, text: bool = False) -> None:
        """Add a value, once the parameter itself and the run's settings have taken it."""
        parameter = self._parameters[name]
        is_flag = bool(getattr(parameter, "is_flag", False))
        if not text and isinstance(value, bool) != is_flag:
            raise SettingsError(f"{shown}: expected {'true or false' if is_flag else 'no truth value'}")
        try:
            taken = parameter.process_value(self._ctx, value)
            chosen_settings({name: taken}).tracker_config(TrackerConfig())
        except typer.BadParameter as error:
            raise SettingsError(f"{shown}: {error.message}") from None
        except (SettingsError, UsageError) as error:
            option = f"--{name.replace('_', '-')} "  # nobody gave it on the command line
            raise SettingsError(f"{shown}: {str(error).removeprefix(option)}") from None
        self.values[name] = taken
        self.sources[name] = source

    def misspelt(self) -> Iterator[str]:
        """Yield a warning for every variable that is nearly one of ours."""
        known = {PREFIX + name.upper() for name in self._names} | {FILE_VARIABLE}
        for variable in sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known):
            if similar := difflib.get_close_matches(variable, known, 1, 0.9):
                yield f"{variable} is not looked at; did you mean {similar[0]}?"

    def _similar(self, name: str) -> str:
        similar = difflib.get_close_matches(name, self._names, 1)
        names = [known.replace("_", "-") for known in similar or sorted(self._names)]
        return f"; did you mean {names[0]}?" if similar else f"; there are {', '.join(names)}"


def _spellings(parameter: Any) -> list[str]:
    """The names of a parameter as its options spell them, its own first."""
    options = [option.lstrip("-").replace("-", "_") for option in parameter.opts]
    return list(dict.fromkeys([str(parameter.name), *options]))


def _is_path(weights: str) -> bool:
    return weights != "" and weights not in NAMES and uris.scheme_of(weights) is None


def _read(file: Path) -> Mapping[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    try:
        content: Mapping[str, Any] = tomllib.loads(file.read_text(encoding="utf-8"))
        return content
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read ({error.strerror or error})") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise SettingsError(f"{file}: not a TOML file: {error}") from None


def _take(ctx: typer.Context, file: Path | None) -> Path | None:
    """Put the layers under the command line before it is looked at; what is wrong waits for `check_layers`."""
    if ctx.resilient_parsing:
        return file
    named = os.environ.get(FILE_VARIABLE)
    try:
        layers = Layers(ctx, file or (Path(named) if named else None))
        ctx.meta[_META] = layers
        own = {parameter.name for parameter in ctx.command.params}
        ctx.default_map = {name: value for name, value in layers.values.items() if name in own}
    except SettingsError as error:
        ctx.meta[_META] = error
    return file


SettingsFileOption = Annotated[
    Path | None,
    typer.Option(
        "--settings",
        metavar="FILE",
        is_eager=True,
        callback=_take,
        help="TOML file of these options; RTS_BATCH_… variables win over it, the command line over both.",
    ),
]


def check_layers(ctx: typer.Context) -> Layers:
    """Raise what was wrong with the layers, and warn of variables that are nearly settings."""
    layers = ctx.meta[_META]
    if isinstance(layers, SettingsError):
        raise layers
    assert isinstance(layers, Layers)
    for text in layers.misspelt():
        print(f"warning: {text}", file=sys.stderr)
    return layers


def settings(ctx: typer.Context, layers: Layers) -> list[Setting]:
    """Return every setting of `submit` with its value and where that came from, in the order of its options."""
    found = []
    for name, value in ctx.params.items():
        if name in OF_ONE_SUBMISSION:
            continue
        given = ctx.get_parameter_source(name)
        source = "default" if given is None else given.name.lower().replace("commandline", "command line")
        found.append(Setting(name, value, layers.sources.get(name, source) if source == "default_map" else source))
    order = [parameter.name for parameter in ctx.command.params]
    return sorted(found, key=lambda setting: order.index(setting.name))
