"""`wham-data forget | vacuum`: somebody leaves a corpus, and the disk."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import typer

from wham_data.cli.console import emit
from wham_data.cli.corpus_commands import AsJson, Location, size_text
from wham_data.schemas.errors import UsageError
from wham_data.schemas.player_key import read_player_key
from wham_data.versions import versions

SECONDS_IN: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
MOST_LISTED: Final = 20


def forget(
    corpus: Location,
    player: Annotated[
        list[str] | None,
        typer.Option(help="A player, by name (with --player-key) or as the manifest has him."),
    ] = None,
    match: Annotated[list[str] | None, typer.Option(help="A match.")] = None,
    recording: Annotated[
        list[str] | None, typer.Option(help="A recording, by the hash the manifest has of it.")
    ] = None,
    player_key: Annotated[
        Path | None,
        typer.Option(
            envvar="WHAM_DATA_PLAYER_KEY", help="File with the key that made the pseudonyms."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Take all steps of a player, match or recording out of a corpus, and keep them out.

    Only shards that hold steps of theirs are written anew. What is gone from the newest version stays
    on disk, and in older versions, until `wham-data vacuum`. A later ingest leaves out who was
    forgotten and says so. Copies of the corpus (compact --out, tokenize, export) are not touched.

    Examples: wham-data forget corpus --player ann; wham-data forget corpus --match m7 --match m8
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
            help="Leave younger files, which a run may need: 24h, 30m, 7d, ...; 0 if nothing writes.",
        ),
    ] = "24h",
    drop_before: Annotated[
        int, typer.Option(metavar="VERSION", min=0, help="Let go of the versions before this one.")
    ] = 0,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be removed, and remove nothing.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Remove from disk what no version of a corpus needs.

    That is what killed runs have left behind, if it is older than a grace, and at once what was
    forgotten: versions from before the last `forget` can then no longer be opened. May run beside
    an ingest. Readers that still have such a version open will find its shards missing.

    Examples: wham-data vacuum corpus --dry-run; wham-data vacuum corpus --older-than 7d
    """
    from wham_data.corpus import Corpus
    from wham_data.corpus.vacuum import vacuum as vacuum_in

    report = vacuum_in(
        Corpus.open(corpus),
        older_than_seconds=parse_age(older_than),
        drop_before=drop_before,
        dry_run=dry,
    )
    names = [f"{why}: {name}" for why, each in report.files.items() for name in each]
    lines = names[:MOST_LISTED] if dry else []
    if dry and len(names) > MOST_LISTED:
        lines.append(f"and {len(names) - MOST_LISTED:,} more: --json lists them")
    counts = ", ".join(f"{len(each):,} {why}" for why, each in report.files.items()) or "nothing"
    lines.append(
        f"{report.location}: {'would remove' if dry else 'removed'} {counts} "
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
