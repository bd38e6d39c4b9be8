"""How `--help` looks, and how a wrong choice is reported: plain text, in panels, nothing heavy.

The variables that set options are not repeated for each option; one line at the end has the rule.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from wham_data.cli.console import logs_json
from wham_data.cli.options import PANELS
from wham_data.schemas.errors import UsageError
from wham_data.schemas.paths import expanded

if TYPE_CHECKING:
    Context = Any  # typer brings its own click or uses the one installed, by its version
    Formatter = Any

FIRST = "Options"
Row = tuple[str, str]


class Command(TyperCommand):
    """A command whose help shows its options in panels."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        say_less(self.params)

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """As typer does, but a wrong choice is an error of ours: one line, all choices in it."""
        try:
            left: list[str] = super().parse_args(ctx, args)
        except typer.BadParameter as error:
            raise wrong_choice(error) or one_line(error) from None
        expand_paths(ctx)
        return left

    def format_options(self, ctx: Context, formatter: Formatter) -> None:
        """Arguments, the options that matter first, then a section for each panel."""
        for title, rows in self.panels(ctx):
            with formatter.section(title):
                formatter.write_dl(rows)

    def panels(self, ctx: Context) -> Iterator[tuple[str, list[Row]]]:
        """Each panel that is not empty: its title and a row for each option."""
        rows: dict[str, list[Row]] = {title: [] for title in ("Arguments", FIRST, *PANELS)}
        for each in self.get_params(ctx):
            if (row := each.get_help_record(ctx)) is not None:
                rows[panel_of(each)].append(row)
        return ((title, each) for title, each in rows.items() if each)

    def format_epilog(self, ctx: Context, formatter: Formatter) -> None:
        """The rule of the variables, with an option of this command as the example."""
        named = [each for each in self.params if isinstance(each, TyperOption)]
        if not named or ctx.auto_envvar_prefix is None:
            return
        flag = max(named[0].opts, key=len)
        formatter.write_paragraph()
        formatter.write_text(
            f"Each option can also be set as a variable ({ctx.auto_envvar_prefix}_"
            f"{(named[0].name or '').upper()} for {flag}) or in a file (wham-data --config FILE.toml)."
        )


class Group(TyperGroup):
    """A group whose help lists its commands in panels."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """As typer does."""
        left: list[str] = super().parse_args(ctx, args)
        expand_paths(ctx)
        return left

    def format_options(self, ctx: Context, formatter: Formatter) -> None:
        """The options, without their variables, then the commands."""
        say_less(self.params)
        super().format_options(ctx, formatter)

    def format_commands(self, ctx: Context, formatter: Formatter) -> None:
        """A section for each panel of commands, in the order in which they were added."""
        sections: dict[str, list[tuple[str, Any]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            sections.setdefault(command.rich_help_panel or "Commands", []).append((name, command))
        widest = max(len(name) for each in sections.values() for name, _ in each)
        for title, commands in sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [
                        (name.ljust(widest), command.get_short_help_str(120))
                        for name, command in commands
                    ]
                )


def expand_paths(ctx: Context) -> None:
    """Let `~/` mean the home folder in what options and arguments, variables and --config say."""
    ctx.params = {name: _expanded(value) for name, value in ctx.params.items()}


def _expanded(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_expanded, value))
    if isinstance(value, Path):
        return Path(expanded(value))
    return expanded(value) if isinstance(value, str) else value


def say_less(params: Sequence[Any]) -> None:
    """Leave the variables, and "no" as the default of a flag, out of the help."""
    for each in params:
        each.show_envvar = False
        if each.default is False:
            each.show_default = False


def panel_of(param: Any) -> str:
    """The panel of an argument or option; help itself is of the run."""
    if param.param_type_name == "argument":
        return "Arguments"
    if param.name == "help":
        return PANELS[-1]
    panel = getattr(param, "rich_help_panel", None)
    return panel if panel in PANELS else FIRST


def one_line(error: typer.BadParameter) -> Exception:
    """What typer says of a wrong value, as an event where the log is JSON; else as it is."""
    return UsageError(error.format_message()) if logs_json() else error


def wrong_choice(error: typer.BadParameter) -> UsageError | None:
    """What typer says of a value that is not among the choices, in our words; None: another error."""
    found = re.search(r"('.*') is not one of (.+?)\.?$", error.message, re.DOTALL)
    if found is None or error.param is None:
        return None
    option = max(getattr(error.param, "opts", ["?"]), key=len)
    *others, last = found[2].replace("'", "").split(", ")
    return UsageError(f"{option} {found[1]}: expected {', '.join(others)} or {last}")
