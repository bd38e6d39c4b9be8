"""Divide a recording in time: a block of steps for each split, with a gap between two blocks.

Two pictures a moment apart look alike, so blocks that touch would test a model on what it has nearly
seen. Train comes first, then val, then test: a model is judged on what was played later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from wham_data.pipelines.align import EpisodePlan
from wham_data.schemas.clock import SECOND_NS, Nanos
from wham_data.schemas.manifest import SPLITS

GAP_NS: Final = 5 * SECOND_NS
MOST_GAP: Final = 0.05
"""Largest share of a recording in one gap."""
FEWEST_STEPS: Final = 10
"""Smallest block. A recording that is too short for it is not divided."""


@dataclass(frozen=True, slots=True)
class Block:
    """The steps of a recording in [start_ns, end_ns) are in `split`."""

    start_ns: int
    end_ns: int
    split: str


def time_blocks(plans: Sequence[EpisodePlan], fractions: Sequence[float]) -> tuple[Block, ...]:
    """A block for each split that has a share, in order of time.

    Args:
        plans: the steps of one recording, in order, at least one.
        fractions: shares of train, val and test; only their ratios matter.

    Returns:
        Blocks that do not touch. If one would have fewer than FEWEST_STEPS steps: a single block for
        the first split that has a share.
    """
    starts_ns = np.concatenate([plan.edges_ns[:-1] for plan in plans])
    ends_ns = np.concatenate([plan.edges_ns[1:] for plan in plans])
    asked = [(name, share) for name, share in zip(SPLITS, fractions, strict=True) if share]
    counts, gap = _counts(starts_ns, ends_ns, [share for _, share in asked])
    if min(counts) < FEWEST_STEPS:
        return (Block(int(starts_ns[0]), int(ends_ns[-1]), asked[0][0]),)
    blocks, first = [], 0
    for (name, _), count in zip(asked, counts, strict=True):
        blocks.append(Block(int(starts_ns[first]), int(ends_ns[first + count - 1]), name))
        first += count + gap
    return tuple(blocks)


def undivided(blocks: Sequence[Block], fractions: Sequence[float]) -> tuple[str, ...]:
    """A note on a recording that is too short for a block for each split."""
    if not blocks or len(blocks) == sum(1 for share in fractions if share):
        return ()
    return (
        f"not divided in time: a block would have fewer than {FEWEST_STEPS} steps, so all of it is in "
        f"{blocks[0].split}",
    )


def within(plans: Sequence[EpisodePlan], blocks: Sequence[Block]) -> tuple[EpisodePlan, ...]:
    """The plans, cut to the steps that lie in a block; a plan never reaches into two."""
    cut = []
    for plan in plans:
        for block in blocks:
            first = int(np.searchsorted(plan.edges_ns[:-1], block.start_ns))
            stop = int(np.searchsorted(plan.edges_ns[1:], block.end_ns, side="right"))
            if first < stop:
                cut.append(EpisodePlan(plan.edges_ns[first : stop + 1], plan.picks[first:stop]))
    return tuple(cut)


def split_at(blocks: Sequence[Block], time_ns: int) -> str:
    """The split of a step that begins at this time; `blocks` holds one with it."""
    return next(each.split for each in blocks if each.start_ns <= time_ns < each.end_ns)


def _counts(
    starts_ns: Nanos, ends_ns: Nanos, shares: Sequence[float]
) -> tuple[tuple[int, ...], int]:
    """Steps of each block, by largest remainder, and steps of a gap, at least one."""
    long_ns = (ends_ns - starts_ns).sum()
    gap_ns = min(GAP_NS, MOST_GAP * long_ns)
    gap = int(np.ceil(gap_ns / long_ns * len(starts_ns)))
    usable = len(starts_ns) - gap * (len(shares) - 1)
    exact = np.array(shares) / sum(shares) * max(usable, 0)
    counts = np.floor(exact).astype(np.int64)
    rest = int(max(usable, 0) - counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:rest]] += 1
    return tuple(counts.tolist()), gap
