"""The `wham-data` command: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from wham_data.cli import (
    bench,
    collect,
    columns,
    convert,
    corpus_commands,
    dream,
    export,
    forget,
    ingest,
    retry,
    schema,
    start,
    train,
)
from wham_data.cli.config import read_config
from wham_data.cli.console import log_ended, say
from wham_data.cli.figures import card, stats
from wham_data.cli.help import Command, Group
from wham_data.cli.look import audit, inspect
from wham_data.cli.play import duplicates
from wham_data.cli.play import filter as play_filter
from wham_data.inference.device.failures import device_line
from wham_data.schemas.errors import DeviceError, WhamDataError, printable

app = typer.Typer(
    name="wham-data",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    cls=Group,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "WHAM_DATA",
        "max_content_width": 100,
    },
    help="Gameplay recordings in, a verified corpus of 10 Hz tokens and actions out.\n\n"
    "Try `wham-data demo` first. `wham-data COMMAND --help` explains a command. Results are printed on "
    "stdout, everything else on stderr.",
    epilog="Each option can also be set as a variable, WHAM_DATA_COMMAND_OPTION, such as "
    "WHAM_DATA_INGEST_TOKENIZER, or in a TOML file that --config names (docs/commands.md).",
)

COMMANDS: Final[dict[str, tuple[Callable[..., None], ...]]] = {
    "Start here": (start.demo, start.doctor),
    "Make a corpus": (
        ingest.ingest,
        inspect.inspect,
        audit.audit,
        collect.collect,
        columns.tokenize,
        columns.caption,
    ),
    "Look after a corpus": (
        *(corpus_commands.info, stats.stats, corpus_commands.query, card.card),
        corpus_commands.verify,
        *(play_filter.filter, duplicates.duplicates),
        *(corpus_commands.compact, forget.forget, forget.vacuum),
    ),
    "Use a corpus": (dream.dream, export.export, convert.convert),
}
"""The commands by the panel of `wham-data --help` that lists them."""

GROUPS: Final = {
    "schema": ("Make a corpus", schema.app),
    "quarantine": ("Look after a corpus", corpus_commands.quarantine_app),
    "train": ("Use a corpus", train.app),
    "bench": ("Use a corpus", bench.app),
}
"""The groups of commands: their panel, and what they hold."""

corpus_commands.quarantine_app.command("retry", cls=Command)(retry.retry)
for panel, functions in COMMANDS.items():
    for function in functions:
        app.command(cls=Command, rich_help_panel=panel)(function)
for name, (panel, group) in GROUPS.items():
    app.add_typer(group, name=name, rich_help_panel=panel)


def _version(asked: bool) -> None:
    if asked:
        from wham_data import __version__

        print(f"wham-data {__version__}")
        raise typer.Exit


@app.callback()
def settings(
    context: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Options from a file, which has a table for each command: [ingest], then tokenizer "
            '= "none".',
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001  the callback prints it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Settings that hold for every command."""
    if config is not None:
        context.default_map = read_config(config, context.command)


def main() -> None:
    """Run the command and leave with the exit code that its outcome stands for."""
    came: list[int] = []

    def leave(number: int, _: object) -> None:
        """Leave where the program is, so that it can put its state down on the way out."""
        came.append(number)
        sys.exit(128 + number)

    # Idle OpenMP threads that spin would take the cores from the decoders; read when torch loads.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Weights and caches in huge pages: a pass that reads them all for one token is a tenth faster.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    with log_ended():
        try:
            app()
        except WhamDataError as error:
            say(f"wham-data: {printable(str(error))}", "error", "error")
            sys.exit(error.exit_code)
        except BrokenPipeError:
            sys.stderr.close()
            sys.exit(0)
        except Exception as error:
            what, lower = (
                "wham-data",
                "End other programs that use the memory, or work on less at once",
            )
            if (line := device_line(error, what, lower)) is None:
                raise
            say(printable(line), "error", "error")
            sys.exit(DeviceError.exit_code)
        except SystemExit:
            if came:  # Ray, if it was waiting when the signal came, makes an exit code of its own
                sys.exit(128 + came[0])
            raise
