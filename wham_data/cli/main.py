"""The `wham-data` command: parse, call, print."""

from __future__ import annotations

import os
import signal
import sys
import tomllib
from pathlib import Path
from typing import Annotated, Any

import typer

from wham_data.cli import (
    bench,
    collect,
    convert,
    corpus_commands,
    demo,
    doctor,
    dream,
    export,
    forget,
    ingest,
    retry,
    schema,
    tokenize,
    train,
)
from wham_data.cli.console import say
from wham_data.schemas.errors import UsageError, WhamDataError, printable

app = typer.Typer(
    name="wham-data",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": "WHAM_DATA",
        "max_content_width": 100,
    },
    help="Gameplay recordings in, a verified corpus of 10 Hz tokens and actions out.\n\n"
    "Every option can also be set in a TOML file (--config) or as a variable, for example "
    "WHAM_DATA_INGEST_TOKENIZER. Results go to stdout, everything else to stderr.",
)
app.command()(collect.collect)
app.command()(ingest.ingest)
app.command()(tokenize.tokenize)
app.command()(corpus_commands.info)
app.command()(corpus_commands.stats)
app.command()(corpus_commands.verify)
app.command()(corpus_commands.compact)
app.command()(forget.forget)
app.command()(forget.vacuum)
corpus_commands.quarantine_app.command("retry")(retry.retry)
app.add_typer(corpus_commands.quarantine_app, name="quarantine")
app.add_typer(schema.app, name="schema")
app.add_typer(train.app, name="train")
app.add_typer(bench.app, name="bench")
app.command()(convert.convert)
app.command()(dream.dream)
app.command()(export.export)
app.command()(demo.demo)
app.command()(doctor.doctor)


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
        typer.Option(help="TOML file with a table per command, e.g. [ingest] tokenizer = 'none'."),
    ] = None,
    version: Annotated[  # noqa: ARG001  the callback prints it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Settings that hold for every command."""
    if config is not None:
        context.default_map = read_config(config)


def read_config(path: Path) -> dict[str, Any]:
    """Defaults per command from a TOML file; dashes and underscores are the same.

    Raises:
        UsageError: the file is missing or is not TOML with a table per command.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: {error}") from None
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: {name}: expected a table named after a command, as [ingest]")
    return {
        command: {key.replace("-", "_"): value for key, value in table.items()}
        for command, table in tables.items()
    }


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
    try:
        app()
    except WhamDataError as error:
        say(f"wham-data: {printable(str(error))}")
        sys.exit(error.exit_code)
    except SystemExit:
        if came:  # Ray, if it was waiting when the signal came, makes an exit code of its own
            sys.exit(128 + came[0])
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
