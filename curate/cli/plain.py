"""Help as plain text, whole: for its frames typer imports rich, half of the time of `curate --help`."""

from __future__ import annotations

import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}


class PlainGroup(TyperGroup):
    """A group whose help shows each command's whole sentence, where typer's ends with the line."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the commands; takes the place of typer's."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(n, c.get_short_help_str(limit=sys.maxsize)) for n, c in commands if c])


class PlainCommand(TyperCommand):
    """A command whose help has a section for each `rich_help_panel`, where typer's plain help has one for all."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options; takes the place of typer's."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                usual = "Arguments" if parameter.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(parameter, "rich_help_panel", None) or usual, []).append(record)
        for name, records in sections.items():
            with formatter.section(name):
                formatter.write_dl(records)


def plain_app(**options: Any) -> typer.Typer:
    """Return a `typer.Typer` with plain help; it takes the options of that."""
    return typer.Typer(cls=PlainGroup, rich_markup_mode=None, context_settings=SETTINGS, **options)
