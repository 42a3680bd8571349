"""Help in sections: commands and options under the titles that their `rich_help_panel` names, as plain text.

Typer itself draws panels with Rich only, which takes as long to import as all of this command line.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from typer.core import TyperCommand, TyperGroup


class SectionedCommand(TyperCommand):
    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options, those without a title first."""
        records = [(parameter, parameter.get_help_record(ctx)) for parameter in self.get_params(ctx)]
        shown = [(_title(parameter, _kind(parameter)), record) for parameter, record in records if record is not None]
        _write(formatter, shown, first=("Arguments", "Options"))


class SectionedGroup(TyperGroup):
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write each command with the beginning of its help, in the order in which the sections first come."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        room = formatter.width - 6 - max(map(len, commands))
        shown = [
            (_title(command, "Commands"), (name, command.get_short_help_str(room)))
            for name, command in commands.items()
            if command is not None and not command.hidden
        ]
        _write(formatter, shown)


def _kind(parameter: Any) -> str:
    return "Arguments" if parameter.param_type_name == "argument" else "Options"


def _title(item: Any, default: str) -> str:
    panel = getattr(item, "rich_help_panel", None)
    return panel if isinstance(panel, str) else default


def _write(formatter: Any, shown: Iterable[tuple[str, tuple[str, str]]], first: Iterable[str] = ()) -> None:
    sections: dict[str, list[tuple[str, str]]] = {title: [] for title in first}
    for title, row in shown:
        sections.setdefault(title, []).append(row)
    for title, rows in sections.items():
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)
