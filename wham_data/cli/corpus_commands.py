"""`wham-data info | stats | query | verify | compact | quarantine`: look at a corpus, and tidy it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wham_data.cli.console import emit, say
from wham_data.cli.help import Command, Group
from wham_data.cli.options import AsOf, Json, Location
from wham_data.cli.play.lines import play_lines
from wham_data.files.whole import written_whole
from wham_data.schemas.errors import UsageError, printable
from wham_data.schemas.player_key import SETTING
from wham_data.versions import versions

if TYPE_CHECKING:
    import polars as pl

    from wham_data.corpus import Corpus
    from wham_data.corpus.stats import Amount, AxisUse, ButtonUse, CorpusStats, CorpusSummary

BARS = " ▁▂▃▄▅▆▇█"
WIDEST = 24
MOST_KINDS = 20
MOST_CELL = 40
MOST_WIDTH = 10_000
"""Most characters of a line, if the output is not a terminal."""
MOST_JSON_ROWS = 100_000

quarantine_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=Group,
    help="Inputs that were refused, and why.",
)


def info(corpus: Location, version: AsOf = None, json: Json = False) -> None:
    """Show on one screen what a corpus is: rate, sizes, action space, tokenizer, amounts, licences.

    \b
    Example:
      wham-data info corpus
    """
    from wham_data.corpus import Corpus
    from wham_data.corpus.stats import summarize

    opened = Corpus.open(corpus, version)
    found = summarize(opened)
    agreed = opened.info
    tokenizer = agreed.tokenizer
    rate = "native rate" if agreed.rate == "native" else f"{agreed.rate} Hz"
    rows = [
        ("corpus", f"{opened.location}, version {opened.version}, {agreed.layout}"),
        (
            "amount",
            f"{found.steps:,} steps at {rate}, {found.hours:.2f} hours, {found.episodes:,} episodes "
            f"of {found.recordings:,} recordings",
        ),
        ("frames", f"{agreed.size[0]}x{agreed.size[1]}, {agreed.fit}, stored: {agreed.frames}"),
        ("actions", f"{agreed.action_space.name}: {', '.join(agreed.action_space.names)}"),
        (
            "tokenizer",
            f"{tokenizer.name}, {tokenizer.grid[0]}x{tokenizer.grid[1]} tokens of "
            f"{tokenizer.vocab_size}, fingerprint {tokenizer.fingerprint}"
            if tokenizer
            else "none",
        ),
        ("on disk", f"{found.shards:,} shards, {size_text(found.n_bytes)}"),
        *((kind + "s", _amounts(found.by[kind])) for kind in ("split", "game", "license")),
        ("players", _players(opened)),
        ("refused", f"{found.quarantined:,} inputs{_reasons(found.reasons)}"),
        ("captions", "; ".join(found.captions)),
        ("notes", _notes(found)),
        ("settings", ", ".join(f"{name} {value}" for name, value in agreed.settings.items())),
    ]
    result = {
        "location": opened.location,
        "version": opened.version,
        **asdict(found),
        "info": agreed.to_dict(),
        "settings_hash": agreed.settings_hash,
    }
    emit(result, _table(rows), as_json=json)


def stats(corpus: Location, version: AsOf = None, json: Json = False) -> None:
    """Count over all steps: how each control was used, which tokens, how good the clocks were.

    \b
    Example:
      wham-data stats corpus
    """
    from wham_data.corpus import Corpus
    from wham_data.corpus.stats import corpus_stats

    found = corpus_stats(Corpus.open(corpus, version))
    emit(found.to_dict(), "\n".join(_stats_lines(found)), as_json=json)


def query(
    corpus: Location,
    sql: Annotated[
        str,
        typer.Argument(
            metavar="SQL",
            help="One SELECT over the tables episodes and steps. Odd names go in double quotes.",
        ),
    ],
    csv: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write all rows to this CSV file; -: to stdout."),
    ] = None,
    parquet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write all rows to this Parquet file.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="Print at most this many rows.")] = 40,
    version: AsOf = None,
    json: Json = False,
) -> None:
    """Ask a corpus in SQL, such as for the hours of each player. docs/query.md lists the columns.

    \b
    Examples:
      wham-data query corpus "SELECT player, SUM(hours) AS hours FROM episodes GROUP BY player"
      wham-data query corpus "SELECT AVG(a) AS share FROM steps WHERE split = 'train'"
      wham-data query corpus "SELECT episode, step, a, left_x FROM steps" --csv steps.csv
    """
    from wham_data.corpus import Corpus
    from wham_data.corpus import query as queries

    if json + (csv is not None) + (parquet is not None) > 1:
        raise UsageError("--json, --csv and --parquet: give only one of them")
    opened = Corpus.open(corpus, version)
    found = queries.query(opened, sql)
    if csv == Path("-"):
        queries.write_csv(found, sys.stdout.buffer)
    elif csv is not None:
        _write_apart(opened, csv, partial(queries.write_csv, found))
    elif parquet is not None:
        _write_apart(opened, parquet, partial(queries.write_parquet, found))
    elif json:
        most = queries.first_rows(found, MOST_JSON_ROWS + 1)
        if len(most) > MOST_JSON_ROWS:
            raise UsageError(f"--json: more than {MOST_JSON_ROWS} rows; write them with --parquet")
        types = {name: str(kind) for name, kind in most.schema.items()}
        emit({"columns": types, "rows": queries.plain_rows(most)}, "", as_json=True)
    else:
        _print_rows(queries.first_rows(found, rows + 1), rows)


def _write_apart(corpus: Corpus, path: Path, write: Callable[[Path], None]) -> None:
    """Write a file as a whole, outside the corpus. A file of that name is replaced."""
    location = corpus.location
    if "://" not in location and path.resolve().is_relative_to(Path(location).resolve()):
        raise UsageError(f"{path}: lies inside the corpus; write to another folder")
    if not path.parent.is_dir():
        raise UsageError(f"{path}: there is no folder {path.parent}; make it first")
    from wham_data.corpus.storage.contract import one_line

    with one_line(path), written_whole(path) as target:
        write(target)


def _print_rows(found: pl.DataFrame, most: int) -> None:
    """Print a table that fits the terminal, and say what was left out."""
    columns, shown = rows_table(found.head(most), get_terminal_size((MOST_WIDTH, 24)).columns)
    print("\n".join(shown))
    if columns < found.width:
        say(f"the first {columns} of {found.width} columns; --csv or --parquet write all")
    if len(found) > most:
        say(f"the first {most} rows; --rows prints more, --csv or --parquet write all")


def rows_table(found: pl.DataFrame, width: int) -> tuple[int, list[str]]:
    """A table as lines: as many of its columns as fit into the width, but at least one.

    Args:
        found: the rows.
        width: most characters of a line.

    Returns:
        Count of the columns shown, and the lines.
    """
    shown: list[list[str]] = []
    for name, values in zip(found.columns, found.iter_columns(), strict=True):
        cells = [_cell(name), *map(_cell, values)]
        wide = max(map(len, cells))
        right = values.dtype.is_numeric()
        column = [cell.rjust(wide) if right else cell.ljust(wide) for cell in cells]
        if shown and sum(len(each[0]) + 2 for each in shown) + wide > width:
            break
        shown.append(column)
    return len(shown), ["  ".join(cells).rstrip() for cells in zip(*shown, strict=True)]


def _cell(value: Any) -> str:
    """A value on one short line; an unknown one is an empty text."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        return size_text(len(value))
    text = f"{value:.6g}" if isinstance(value, float) else value
    text = str(text.to_list() if hasattr(text, "to_list") else text)[:MOST_CELL]
    return printable(text if len(text) < MOST_CELL else f"{text[: MOST_CELL - 3]}...")


def verify(
    corpus: Location,
    version: AsOf = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare no hashes, so not every byte is read.")
    ] = False,
    json: Json = False,
) -> None:
    """Check a corpus: every byte, and every promise of docs/corpus.md. Exit with 4 if one is broken.

    Each problem is a line on stdout with its place, what was found and what was expected.

    \b
    Example:
      wham-data verify corpus
    """
    from wham_data.corpus import Corpus

    report = Corpus.open(corpus, version).verify(hashes=not quick)
    looked_at = (
        f"{report.shards:,} shards, {report.episodes:,} episodes, {report.steps:,} steps, "
        f"{size_text(report.n_bytes)}"
    )
    lines = [
        *(f"problem: {printable(line)}" for line in report.problems),
        *(f"note: {printable(line)}" for line in report.notes),
        f"{'ok' if report.ok else f'{len(report.problems)} problems'}: {looked_at}",
    ]
    emit({"ok": report.ok, **asdict(report)}, "\n".join(lines), as_json=json)
    if not report.ok:
        raise typer.Exit(4)


def compact(
    corpus: Location,
    target_mb: Annotated[
        int, typer.Option(min=1, help="Largest size of a merged shard, in MB.")
    ] = 256,
    out: Annotated[
        Path | None, typer.Option(help="Write a new corpus here. Default: change this one.")
    ] = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="Compress the shards (zstd), for storage. Needs --out.")
    ] = False,
    json: Json = False,
) -> None:
    """Merge small shards into large ones. Older versions of the corpus stay readable.

    A cold corpus takes about half the space. Compacting it without --cold brings it back.

    \b
    Examples:
      wham-data compact corpus
      wham-data compact corpus --cold --out corpus-cold
    """
    from wham_data.corpus import Corpus
    from wham_data.corpus.compact import compact as compact_in_place
    from wham_data.corpus.compact import compact_to

    if cold and out is None:
        raise UsageError("--cold writes a corpus of its own: say where with --out")
    opened = Corpus.open(corpus)
    target = target_mb * 1_000_000
    if out is None:
        report = compact_in_place(opened, target)
    else:
        report = compact_to(opened, out, "cold" if cold else "mapped", target)
    if report.episodes:
        account = {"command": "compact", "versions": versions(), "report": asdict(report)}
        Corpus.open(report.location).record_run({**account, "exit_code": 0})
    text = (
        f"{report.shards_before:,} shards ({size_text(report.bytes_before)}) are now "
        f"{report.shards_after:,} ({size_text(report.bytes_after)}) in {report.location}, "
        f"version {report.version}; {report.episodes:,} episodes rewritten"
    )
    emit(asdict(report), text, as_json=json)


@quarantine_app.command("list", cls=Command)
def list_quarantine(
    corpus: Location,
    reason: Annotated[
        str | None,
        typer.Option(help="List only what was refused for this reason, such as truncated."),
    ] = None,
    json: Json = False,
) -> None:
    """List the refused inputs, one per line: reason, path, message. docs/quarantine.md explains them.

    \b
    Example:
      wham-data quarantine list corpus --reason truncated
    """
    rows = _quarantined(corpus)
    found = [row for row in rows if reason is None or row["reason"] == reason]
    lines = [
        f"{printable(row['reason']):<20} {printable(row['path'])}: {printable(row['message'])}"
        for row in found
    ]
    text = "\n".join([*lines, f"{len(found):,} of {len(rows):,} refused inputs"])
    emit({"quarantined": found, "total": len(rows)}, text, as_json=json)


@quarantine_app.command("show", cls=Command)
def show_quarantine(
    corpus: Location,
    what: Annotated[
        str,
        typer.Argument(
            metavar="INPUT", help="Its path, the end of its path, or the start of its SHA-256."
        ),
    ],
    json: Json = False,
) -> None:
    """Show everything that is known about one refused input.

    \b
    Example:
      wham-data quarantine show corpus match7.mp4
    """
    rows = _quarantined(corpus)
    found = [
        row
        for row in rows
        if row["path"].endswith(what) or (what and row["sha256"].startswith(what))
    ]
    if not found:
        raise UsageError(
            f"{corpus}: no refused input is called {what!r}; `quarantine list` shows all"
        )
    text = "\n\n".join(_table(_shown(row)) for row in found)
    emit({"quarantined": found}, text, as_json=json)


def _shown(row: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """The fields of a refused input, and a line for each of its notes."""
    yield from ((name, value) for name, value in row.items() if name != "notes")
    yield from (("note", note) for note in row["notes"] or ())


def _quarantined(location: Path) -> list[dict[str, Any]]:
    """The refused inputs, by path; also where no recording could be read, so that no corpus was begun."""
    from wham_data.corpus import Corpus
    from wham_data.corpus.corpus import INFO
    from wham_data.corpus.quarantine import Quarantine
    from wham_data.corpus.storage.locations import open_storage

    storage = open_storage(location)
    quarantine = Quarantine(storage)
    if storage.exists(INFO) or not quarantine.is_there:
        quarantine = Corpus.open(location).refused
    return sorted(quarantine.read().to_pylist(), key=lambda row: str(row["path"]))


def _stats_lines(found: CorpusStats) -> Iterable[str]:
    yield (
        f"{found.hours:.2f} hours, {found.steps:,} steps, {found.episodes:,} episodes of "
        f"{found.recordings:,} recordings"
    )
    yield from play_lines(found.hours, found.play)
    yield (
        f"{found.steps - found.known_steps:,} steps without an action, {found.clamped:,} values clamped"
    )
    for kind, each in found.by.items():
        yield f"\n{kind:<{WIDEST}} {'episodes':>9} {'steps':>12} {'hours':>9}"
        yield from _amount_lines(each, found.steps)
    if found.buttons:
        yield f"\n{'button':<{WIDEST}} {'down':>7} {'presses':>9} {'mean hold':>10}   shortest to longest"
        yield from (_button_line(button) for button in found.buttons)
    if found.axes:
        yield f"\n{'axis':<{WIDEST}} {'mean':>7}  low to high"
        for axis in found.axes:
            yield _axis_line(axis)
            yield from _direction_lines(axis)
    if found.tokens is not None:
        yield (
            f"\ntokens: {found.tokens.distinct:,} of {found.tokens.vocab_size:,} codes in use "
            f"({found.tokens.share:.1%}), entropy {found.tokens.entropy_bits:.2f} bits, "
            f"perplexity {found.tokens.perplexity:.0f}"
        )
    clock = found.clock
    yield (
        f"\nclocks: {clock.variable_rate:.0%} of episodes at a variable rate, {clock.gaps:,} gaps, "
        f"{clock.duplicates:,} duplicate and {clock.lost:,} lost frames, "
        f"longest interval {clock.longest_interval_ms:.0f} ms"
    )
    yield from _note_lines(found.notes)


def _amount_lines(amounts: Sequence[Amount], all_steps: int) -> Iterable[str]:
    for each in amounts[:20]:
        name = printable(each.name) or "not said"
        share = each.steps / all_steps if all_steps else 0.0
        yield (
            f"{name[:WIDEST]:<{WIDEST}} {each.episodes:>9,} {each.steps:>12,} {each.hours:>9.2f} "
            f"{_bar(share)}"
        )
    if len(amounts) > 20:
        yield f"and {len(amounts) - 20:,} more"


def _button_line(button: ButtonUse) -> str:
    hold = "" if button.mean_hold_s is None else f"{button.mean_hold_s:.2f} s"
    return (
        f"{button.name[:WIDEST]:<{WIDEST}} {button.share:>7.1%} {button.presses:>9,} {hold:>10}   "
        f"{_range(button.shortest_hold_s, button.longest_hold_s):<19} {_bar(button.share)}"
    ).rstrip()


def _direction_lines(axis: AxisUse) -> Iterable[str]:
    for name, use in (("below rest", axis.down), ("above rest", axis.up)):
        if use is not None and use.share:
            yield (
                f"  {name:<{WIDEST - 2}} {use.share:>7.1%} {use.holds:>9,} holds        "
                f"{_range(use.shortest_hold_s, use.longest_hold_s):<19} {_bar(use.share)}"
            ).rstrip()


def _range(shortest_s: float | None, longest_s: float | None) -> str:
    return "" if shortest_s is None else f"{shortest_s:.2f} to {longest_s:.2f} s"


def _axis_line(axis: AxisUse) -> str:
    most = max(axis.counts) or 1
    # The square root lets a person see the rare bins beside the one in the middle.
    heights = [round((n / most) ** 0.5 * (len(BARS) - 1)) for n in axis.counts]
    bars = "".join(BARS[max(height, n > 0)] for height, n in zip(heights, axis.counts, strict=True))
    return f"{axis.name[:WIDEST]:<{WIDEST}} {axis.mean:>7.3f}  {axis.low:g} |{bars}| {axis.high:g}"


def _bar(share: float) -> str:
    return "█" * round(share * 20)


def _players(corpus: Corpus) -> str:
    count = corpus.episodes["player"].drop_nulls().n_unique()
    key = corpus.info.settings.get(SETTING)
    how = "stored by name" if key is None else f"stored as pseudonyms of the key {key}"
    return f"{count:,}, {how}" if count else "not said"


def _amounts(amounts: Sequence[Amount]) -> str:
    told = [
        f"{printable(each.name) or 'not said'} {each.episodes:,} episodes ({each.hours:.2f} h)"
        for each in amounts[:6]
    ]
    return ", ".join([*told, *([f"and {len(amounts) - 6:,} more"] if len(amounts) > 6 else [])])


def _notes(found: CorpusSummary) -> str:
    if not found.noted:
        return "none"
    most = "; ".join(f"{kind[:80]} ({count:,})" for kind, count in [*found.notes.items()][:3])
    more = f"; {len(found.notes) - 3:,} more kinds, see stats" if len(found.notes) > 3 else ""
    return f"{found.noted:,} of {found.episodes:,} episodes: {most}{more}"


def _note_lines(notes: Mapping[str, int]) -> Iterable[str]:
    if notes:
        yield "\nepisodes  with the note (N: a number)"
    for kind, count in [*notes.items()][:MOST_KINDS]:
        yield f"{count:>8,}  {printable(kind)}"
    if len(notes) > MOST_KINDS:
        yield f"and {len(notes) - MOST_KINDS:,} more kinds"


def _reasons(reasons: Mapping[str, int]) -> str:
    told = ", ".join(f"{printable(reason)} {count:,}" for reason, count in reasons.items())
    return f": {told}" if told else ""


def _table(rows: Iterable[tuple[str, Any]]) -> str:
    return "\n".join(
        f"{name:<16} {printable(str(value))}" for name, value in rows if value not in (None, "")
    )


def size_text(n_bytes: int) -> str:
    """Bytes in the unit a person would choose."""
    size = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
