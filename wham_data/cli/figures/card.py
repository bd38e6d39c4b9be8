"""`wham-data card`: README.md and croissant.json of a corpus, made from its numbers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from wham_data.cli.console import emit, say
from wham_data.cli.options import OUTPUT, AsOf, Json, Location


def card(
    corpus: Location,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Write to this folder or URL. Default: into the corpus."
        ),
    ] = None,
    show_players: Annotated[
        bool,
        typer.Option(
            "--show-players",
            help="Show players by name if the corpus has names, not pseudonyms. Default: how many.",
        ),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            rich_help_panel=OUTPUT,
            help="Also replace a README.md or croissant.json that a person wrote or changed.",
        ),
    ] = False,
    version: AsOf = None,
    json: Json = False,
) -> None:
    """Describe a corpus for others: README.md, croissant.json and pictures, made from its numbers.

    What only a person can say is asked for in card.toml, which stays as you wrote it. docs/card.md.

    \b
    Example:
      wham-data card corpus
    """
    from wham_data.pipelines.curate.card.job import WORDS, write_card

    report = write_card(corpus, out, version=version, show_players=show_players, force=force)
    lines = [
        f"{report.location}: {', '.join(report.files)}; version {report.version}; "
        f"players: {report.players}"
    ]
    if report.missing:
        lines.append(f"missing in {WORDS}: {', '.join(report.missing)}")
    if report.asked:
        say(
            f"{WORDS} has the questions that only a person can answer; fill it in, and run this again"
        )
    emit(asdict(report), "\n".join(lines), as_json=json)
