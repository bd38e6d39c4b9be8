"""`wham-data forget | vacuum`: somebody leaves a corpus, and the disk."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Annotated, Final

import typer

from wham_data.cli.console import emit
from wham_data.cli.corpus_commands import size_text
from wham_data.cli.options import Json, KeyFile, Location
from wham_data.schemas.errors import UsageError
from wham_data.schemas.player_key import read_player_key
from wham_data.versions import versions

SECONDS_IN: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MOST_LISTED: Final = 20


def forget(
    corpus: Location,
    player: Annotated[
        list[str] | None,
        typer.Option(
            help="A player: the name (then --player-key is needed where the corpus holds "
            "pseudonyms), or the player as the manifest has it. Can be repeated."
        ),
    ] = None,
    match: Annotated[list[str] | None, typer.Option(help="A match. Can be repeated.")] = None,
    recording: Annotated[
        list[str] | None,
        typer.Option(help="A recording, by its hash in the manifest. Can be repeated."),
    ] = None,
    player_key: KeyFile = None,
    json: Json = False,
) -> None:
    """Remove a player, match or recording from a corpus, and keep it out.

    Only the shards that hold such steps are written again. The steps stay on disk, and in older
    versions of the corpus, until `wham-data vacuum`. A later ingest leaves out what was forgotten and
    says so. Copies of the corpus (made by compact --out, tokenize or export) are not changed.

    \b
    Examples:
      wham-data forget corpus --player ann
      wham-data forget corpus --match m7 --match m8
    """
    from wham_data.corpus import Corpus
    from wham_data.corpus.forget import forget as forget_in
    from wham_data.corpus.forget import players_as_stored

    opened = Corpus.open(corpus)
    key = None if player_key is None or not player else read_player_key(player_key, corpus)
    report = forget_in(
        opened,
        {
            "player": players_as_stored(opened, player or [], key) if player else set(),
            "match": set(match or []),
            "recording": set(recording or []),
        },
    )
    # Of whom is nobody's business any more.
    account = {"command": "forget", "versions": versions(), "report": asdict(report)}
    opened.record_run({**account, "exit_code": 0})
    text = (
        f"{report.location}: version {report.version}, without {report.episodes:,} episodes of "
        f"{report.recordings:,} recordings ({report.steps:,} steps); {report.shards_rewritten:,} "
        f"shards written anew, {report.shards_left:,} no longer named\n"
        f"what they held is on disk until: wham-data vacuum {report.location}"
    )
    emit(asdict(report), text, as_json=json)


def vacuum(
    corpus: Location,
    older_than: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Keep files younger than this, which a run may still need: 24h, 30m, 7d. "
            "0 only if nothing writes to the corpus.",
        ),
    ] = "24h",
    drop_before: Annotated[
        int,
        typer.Option(
            metavar="VERSION",
            min=0,
            help="Also remove what only the versions before this one need. They can no longer be "
            "opened.",
        ),
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be removed, and remove nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Remove from disk what no version of a corpus needs.

    That is what killed runs left behind, once it is older than --older-than, and at once what was
    forgotten: versions from before the last `forget` can then no longer be opened, and a program that
    has such a version open will miss its shards. It may run while an ingest runs.

    \b
    Examples:
      wham-data vacuum corpus --dry-run
      wham-data vacuum corpus --older-than 7d
    """
    from wham_data.corpus import Corpus
    from wham_data.corpus.vacuum import vacuum as vacuum_in

    report = vacuum_in(
        Corpus.open(corpus),
        older_than_seconds=parse_age(older_than),
        drop_before=drop_before,
        dry_run=dry_run,
    )
    names = [f"{why}: {name}" for why, each in report.files.items() for name in each]
    lines = names[:MOST_LISTED] if dry_run else []
    if dry_run and len(names) > MOST_LISTED:
        lines.append(f"and {len(names) - MOST_LISTED:,} more: --json lists them")
    counts = ", ".join(f"{len(each):,} {why}" for why, each in report.files.items()) or "nothing"
    lines.append(
        f"{report.location}: {'would remove' if dry_run else 'removed'} {counts} "
        f"({size_text(report.n_bytes)}); {report.young:,} files are too young; versions from "
        f"{report.oldest_version} on can be opened"
    )
    emit(asdict(report), "\n".join(lines), as_json=json)


def parse_age(text: str) -> float:
    """Seconds in a text such as 24h; a bare number counts hours.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,6})?)([smhd]?)", text.strip(), re.ASCII)
    if found is None:
        raise UsageError(f"--older-than {text[:40]!r}: expected a time such as 24h, 30m or 7d")
    return float(found[1]) * SECONDS_IN[found[2] or "h"]
