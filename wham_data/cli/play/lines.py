"""Lines that say how much of a corpus is play."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wham_data.corpus.stats import PlayUse


def play_lines(hours: float, play: PlayUse) -> Iterable[str]:
    """What of some hours is play, what was left out and why, and what nobody knows."""
    if play.never < hours:
        out = [f"{value:.2f} {reason}" for reason, value in play.left_out.items()]
        if play.before > 0.005:
            out.append(f"{play.before:.2f} left out when it was read")
        yield f"{hours:.2f} h, of which {play.kept:.2f} h play: {', '.join(out) or 'all of it'}"
    if play.unjudged:
        told = ", ".join(f"{kind} in {value:.2f} h" for kind, value in play.unjudged.items())
        yield f"not judged: {told}"
    if 0 < play.never < hours:
        yield f"no filter has looked at {play.never:.2f} h: wham-data filter CORPUS --apply"
