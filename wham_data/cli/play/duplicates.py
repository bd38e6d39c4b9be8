"""`wham-data duplicates`: the same play in two recordings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit
from wham_data.cli.options import Device, Json, Location, Quiet
from wham_data.cli.play.filter import Decoding

if TYPE_CHECKING:
    from wham_data.pipelines.curate.same_play.job import DuplicateReport

MOST_LISTED: Final = 40


def duplicates(
    corpus: Location,
    least: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=2.0, help="Report only stretches of at least this long."
        ),
    ] = 20.0,
    tokenizer: Decoding = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find play that is in two recordings: re-encoded, cut, or recorded twice. Nothing is changed.

    Copies of the same bytes never enter a corpus; this compares what the pictures show. It misses some:
    after a cut at any moment, pictures of fast turns differ. docs/filter.md says how.

    \b
    Example:
      wham-data duplicates corpus
    """
    from wham_data.corpus import Corpus
    from wham_data.pipelines.curate.same_play.job import find_duplicates

    opened = Corpus.open(corpus)
    with progress.shown("duplicates", quiet=quiet, verbose=False) as watch:
        report = find_duplicates(
            opened, least_s=least, tokenizer=tokenizer, device=device, watch=watch
        )
    emit(report.to_dict(), "\n".join(_lines(report)), as_json=json)


def _lines(report: DuplicateReport) -> Iterable[str]:
    hours = sum(each.hours for each in report.twice)
    yield (
        f"{report.episodes:,} episodes ({report.hours:.2f} h) compared: {len(report.twice):,} stretches "
        f"({hours:.2f} h) are there twice"
    )
    for each in report.twice[:MOST_LISTED]:
        apart = "; in different splits" if each.across_splits else ""
        yield (
            f"  {each.episode} steps {each.start} to {each.stop} = {each.other} steps "
            f"{each.other_start} to {each.other_stop} ({each.near:.0%} near{apart})"
        )
    if len(report.twice) > MOST_LISTED:
        yield f"  and {len(report.twice) - MOST_LISTED:,} more: --json lists them"
