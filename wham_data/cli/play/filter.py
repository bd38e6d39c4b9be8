"""`wham-data filter`: find what is not play, and leave it out of `keep`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit
from wham_data.cli.options import MODEL, Device, Json, Location, Quiet
from wham_data.schemas.errors import UsageError
from wham_data.versions import versions

if TYPE_CHECKING:
    from wham_data.pipelines.curate.not_play.job import FilterReport, GameHud

WHY_NOT: Final = {
    "few": "too little of it to learn its HUD (hud_minutes in the rules)",
    "none": "no HUD: no edges that stay in their place",
    "scene": "no HUD to tell apart: nearly the whole scene stays in its place",
    "pictures": "no pictures",
}


Decoding = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        rich_help_panel=MODEL,
        help="Decodes the tokens if the corpus stores no pictures. Default: the bundled one, if it made "
        "them.",
    ),
]


def filter(
    corpus: Location,
    rules: Annotated[
        Path | None,
        typer.Option(metavar="RULES.toml", help="What to leave out. Default: the bundled rules."),
    ] = None,
    apply: Annotated[
        bool, typer.Option("--apply", help="Leave it out of `keep`: a new version of the corpus.")
    ] = False,
    undo: Annotated[
        bool, typer.Option("--undo", help="Put back all that this command left out.")
    ] = False,
    print_rules: Annotated[
        bool, typer.Option("--print-rules", help="Print the bundled rules, to start from.")
    ] = False,
    tokenizer: Decoding = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find the steps that are not play (menus, pauses, loading, idle hands, ...), and leave them out.

    Without --apply nothing is changed. What cannot be judged is kept, and said. Training, dreams and
    exports use only what is kept; `stats` counts the rest by its reason. docs/filter.md describes the
    kinds, and how to write rules.

    \b
    Examples:
      wham-data filter corpus
      wham-data filter corpus --apply
      wham-data filter corpus --rules mine.toml --apply
      wham-data filter corpus --undo
    """
    from wham_data.corpus import Corpus
    from wham_data.pipelines.curate.not_play.job import filter_corpus, undo_filter
    from wham_data.pipelines.curate.not_play.rules import bundled_rules, read_rules

    if apply + undo + print_rules > 1:
        raise UsageError("--apply, --undo and --print-rules: give only one of them")
    if print_rules:
        print(bundled_rules(), end="")
        return
    wanted = read_rules(rules)
    opened = Corpus.open(corpus)
    if undo:
        changed = undo_filter(opened)
        result = {"location": opened.location, "version": opened.version, "changed": changed}
        text = f"{opened.location}: version {opened.version}, put back in {changed:,} episodes"
        emit(result, text, as_json=json)
        return
    with progress.shown("filter", quiet=quiet, verbose=False) as watch:
        report = filter_corpus(
            opened, wanted, apply=apply, tokenizer=tokenizer, device=device, watch=watch
        )
    if apply:
        account = {**report.to_dict(), "episodes": len(report.episodes)}
        opened.record_run(
            {"command": "filter", "versions": versions(), "report": account, "exit_code": 0}
        )
    emit(report.to_dict(), "\n".join(_lines(report)), as_json=json)


def _lines(report: FilterReport) -> Iterable[str]:
    out = sum(hours for kind, hours in report.flagged.items() if kind in report.left_out)
    would = "is" if report.applied else "would be"
    yield f"{report.hours:.2f} h, of which {report.hours - out:.2f} h {would} kept"
    for kind, hours in sorted(report.flagged.items(), key=lambda each: -each[1]):
        done = "left out" if kind in report.left_out else "only counted"
        yield f"  {kind:<10} {hours:>8.3f} h  {done}"
    for kind, hours in report.unjudged.items():
        yield f"  {kind:<10} {hours:>8.3f} h  not judged, so kept"
    yield from (f"  game {_game(each)}" for each in report.games if each.why)
    if report.applied:
        yield (
            f"{report.location}: version {report.version}, {report.changed:,} episodes changed; "
            "back: wham-data filter CORPUS --undo"
        )
    else:
        yield "nothing was changed; --apply leaves it out"


def _game(game: GameHud) -> str:
    return f"{game.game or 'not said'} ({game.hours * 60:.1f} min): {WHY_NOT[game.why]}"
