"""The text of `wham-data stats --balance`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from wham_data.schemas.errors import printable

if TYPE_CHECKING:
    from wham_data.corpus.balance.count import CorpusBalance
    from wham_data.corpus.balance.weights import Target, Weights

WIDEST = 24
MOST_GROUPS = 20
MOST_COMBINATIONS = 10


def balance_lines(
    found: CorpusBalance, target: Target | None, weights: Weights | None
) -> Iterator[str]:
    """The figures as tables; `target` and `weights` add columns."""
    yield (
        f"{found.hours:.2f} hours, {found.steps:,} steps that count; {found.left_out:,} left out: "
        "outside `keep`, or their action not known"
    )
    wanted = target or {}
    for kind, each in found.by.items():
        yield f"\n{kind:<{WIDEST}} {'hours':>9} {'share':>7}{_head(wanted, kind)}"
        for amount in each[:MOST_GROUPS]:
            name = printable(amount.name)[:WIDEST] or "not said"
            share = amount.steps / found.steps if found.steps else 0.0
            yield f"{name:<{WIDEST}} {amount.hours:>9.2f} {share:>7.1%}{_wanted(wanted, kind, amount.name)}"
        if len(each) > MOST_GROUPS:
            yield f"and {len(each) - MOST_GROUPS:,} more"
    weighted = "" if weights is None else f" {'weighted':>9}"
    yield (
        f"\n{'control':<{WIDEST}} {'held':>7} {'alone':>7} {'holds':>9} {'median':>8}"
        f"{weighted}{_head(wanted, 'control')}"
    )
    for control in found.controls:
        median = "" if control.median_hold_s is None else f"{control.median_hold_s:.2f} s"
        after = "" if weights is None else f" {weights.shares[control.name]:>9.1%}"
        yield (
            f"{control.name[:WIDEST]:<{WIDEST}} {control.share:>7.1%} {control.alone:>7.1%} "
            f"{control.holds:>9,} {median:>8}{after}{_wanted(wanted, 'control', control.name)}"
        ).rstrip()
    yield from _together(found)
    if weights is not None:
        yield (
            f"\nweights that even out {weights.flatten}: {weights.kept:.1%} effective sample size, as "
            f"if {weights.effective_steps:,.0f} of {found.steps:,} steps were left; "
            f"{weights.limited:,} episodes at a limit"
        )


def _together(found: CorpusBalance) -> Iterator[str]:
    if found.pairs:
        yield f"\n{'held at once':<{2 * WIDEST}} {'share':>7}  times as often as by chance"
    for pair in found.pairs[:MOST_COMBINATIONS]:
        names = f"{pair.first} {pair.second}"
        yield f"{names[: 2 * WIDEST]:<{2 * WIDEST}} {pair.share:>7.1%} {pair.lift:>6.1f}"
    if found.combinations:
        yield f"\n{'all that was held':<{2 * WIDEST}} {'share':>7}"
    for each in found.combinations[:MOST_COMBINATIONS]:
        names = " ".join(each.controls) or "nothing"
        yield f"{names[: 2 * WIDEST]:<{2 * WIDEST}} {each.share:>7.1%}"
    bits = found.entropy_bits
    if bits is not None:
        yield (
            f"\nentropy of what was held, per recording: {bits.lowest:.2f} to {bits.highest:.2f} bits, "
            f"median {bits.median:.2f}, of {bits.count:,} recordings; the lowest "
            f"{found.monotonous[0][0][:12]}"
        )


def _head(wanted: Target, kind: str) -> str:
    return f" {'target':>7}" if kind in wanted else ""


def _wanted(wanted: Target, kind: str, name: str) -> str:
    share = wanted.get(kind, {}).get(name)
    return "" if share is None else f" {share:>7.1%}"
