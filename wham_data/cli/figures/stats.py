"""`wham-data stats`: how each control was used, which tokens, how good the clocks, how even all is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wham_data.cli.console import emit
from wham_data.cli.corpus_commands import write_apart
from wham_data.cli.figures.balance import balance_lines
from wham_data.cli.options import AsOf, Json, Location
from wham_data.cli.play.lines import play_lines
from wham_data.schemas.errors import UsageError, printable

if TYPE_CHECKING:
    from wham_data.corpus import Corpus
    from wham_data.corpus.stats import Amount, AxisUse, ButtonUse, CorpusStats

BARS = " ▁▂▃▄▅▆▇█"
WIDEST = 24
MOST_KINDS = 20
Flatten = Literal["action", "game", "map", "player"]


def stats(
    corpus: Location,
    balance: Annotated[
        bool,
        typer.Option(
            "--balance",
            help="Show how evenly the corpus is spread: controls alone and together, holds, games, "
            "maps, players.",
        ),
    ] = False,
    split: Annotated[
        str | None, typer.Option(help="With --balance: count only train, val or test.")
    ] = None,
    target: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="With --balance: the shares that you want, to compare with. docs/balance.md "
            "describes the file.",
        ),
    ] = None,
    flatten: Annotated[
        Flatten | None,
        typer.Option(help="With --balance: what weights should even out, and what they cost."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.parquet", help="With --flatten: write the weight of each episode here."
        ),
    ] = None,
    version: AsOf = None,
    json: Json = False,
) -> None:
    """Count over all steps: how each control was used, which tokens, how good the clocks were.

    \b
    Examples:
      wham-data stats corpus
      wham-data stats corpus --balance
      wham-data stats corpus --balance --split train --flatten action --out weights.parquet
    """
    from wham_data.corpus import Corpus
    from wham_data.corpus.stats import corpus_stats

    if not balance and any(each is not None for each in (split, target, flatten, out)):
        raise UsageError("--split, --target, --flatten and --out go with --balance")
    if out is not None and flatten is None:
        raise UsageError(f"--out {out}: say with --flatten what the weights should even out")
    opened = Corpus.open(corpus, version)
    if balance:
        _balance(opened, split, target, flatten, out, as_json=json)
        return
    found = corpus_stats(opened)
    emit(found.to_dict(), "\n".join(_stats_lines(found)), as_json=json)


def _balance(
    corpus: Corpus,
    split: str | None,
    target: Path | None,
    flatten: Flatten | None,
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    import pyarrow.parquet as pq

    from wham_data.corpus.balance import count, weights

    counted = count.count_balance(corpus, split)
    found = count.balance_of(counted)
    wanted = None if target is None else weights.read_target(target, counted)
    made = None if flatten is None else weights.weights_of(counted, flatten, wanted)
    if made is not None and out is not None:
        write_apart(corpus, out, partial(pq.write_table, weights.weights_table(counted, made)))
    emit(
        {
            **found.to_dict(),
            "target": wanted,
            "weights": None if made is None else made.to_dict(),
            "out": None if out is None else str(out),
        },
        "\n".join(balance_lines(found, wanted, made)),
        as_json=as_json,
    )


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


def _note_lines(notes: Mapping[str, int]) -> Iterable[str]:
    if notes:
        yield "\nepisodes  with the note (N: a number)"
    for kind, count in [*notes.items()][:MOST_KINDS]:
        yield f"{count:>8,}  {printable(kind)}"
    if len(notes) > MOST_KINDS:
        yield f"and {len(notes) - MOST_KINDS:,} more kinds"
