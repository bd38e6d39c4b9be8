"""Which steps are not play: decisions on what pictures and hands do. Arrays in, arrays out.

    black      one colour
    loading    nearly still, unlike the pictures before and after: plain, or the HUD is gone or unknown
    menu       the HUD is covered or gone
    cutscene   the HUD is gone, much of the picture moves, and no control is in use
    frozen     still, and it is not known what the hands did
    paused     still, while controls are in use, or in a world that moves by itself
    idle       no control is beyond its rest band
    mirrored   the HUD is in its place in the mirror
    letterbox  other black bars than in most of the episode

A step is of the first of these kinds that applies. What cannot be judged is not flagged, and said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.curate.not_play.motion import Motion
from wham_data.pipelines.curate.not_play.rules import KINDS, Rules
from wham_data.schemas.clock import runs_of

STILL: Final = 5.0
"""In a still picture no cell changes by more than this, of 255: compression alone does as much."""
NEARLY_STILL: Final = 0.04
"""Share of the cells that a spinner or a growing bar may change."""
ONE_COLOUR: Final = 3.0
"""Standard deviation of the cells' colours in a picture of one colour, at most."""
UNLIKE: Final = 0.6
"""Two pictures whose blurred correlation is below this may not follow one another."""
PLAIN: Final = 0.5
"""Share of the cells that have the background's brightness on a loading screen, at least."""
MOVING: Final = 0.4
"""Share of the cells that change in a step of a cutscene, in the mean."""
HANDS: Final = 0.1
"""Share of the steps of a stretch in which controls are in use, from which on the player is at it."""
ALIVE_STEPS: Final = 20
"""Steps with hands at rest from which it is learnt whether the world moves by itself."""
OTHER_BARS: Final = 2
"""Cells by which bars must differ from the usual ones."""
MIRRORED: Final = 0.8

Mask = NDArray[np.bool_]
Part = tuple[int, int, str]
NEED_HUD: Final = ("menu", "cutscene", "mirrored")
NEED_PICTURES: Final = tuple(kind for kind in KINDS if kind != "idle")


@dataclass(frozen=True, slots=True)
class Hands:
    """What the player's hands do, per step.

    busy   bool [T]  a control is beyond its rest band
    known  bool [T]  the action is known
    """

    busy: Mask
    known: Mask


@dataclass(frozen=True, slots=True)
class Flags:
    """What is not play in an episode.

    parts     (start, end, kind), in order; none overlap
    unjudged  kinds that could not be judged
    """

    parts: tuple[Part, ...]
    unjudged: tuple[str, ...] = ()


def flags_of(motion: Motion | None, hands: Hands, rate: float, rules: Rules) -> Flags:
    """Decide for all steps of an episode.

    Args:
        motion: of its pictures; None: there are no pictures, so only hands are judged.
        hands: what they do.
        rate: steps per second.
        rules: lengths and shares.
    """
    masks = {"idle": ~hands.busy & hands.known}
    if motion is not None:
        masks |= _of_pictures(motion, hands, rate, rules)
    kinds = np.full(len(hands.busy), -1)
    for number, kind in reversed([*enumerate(KINDS)]):
        for start, stop in long_runs(masks.get(kind, np.zeros(0, np.bool_)), kind, rate, rules):
            kinds[start:stop] = number
    parts = tuple(
        (start, stop, KINDS[kinds[start]]) for start, stop in _pieces(kinds) if kinds[start] >= 0
    )
    return Flags(parts, _unjudged(motion, hands))


def long_runs(mask: Mask, kind: str, rate: float, rules: Rules) -> Iterator[tuple[int, int]]:
    """The runs of True that are as long as the rule of their kind asks, [start, stop)."""
    least = max(rules.of[kind].longer_than_s * rate, 1)
    return ((start, stop) for start, stop in runs_of(mask) if stop - start >= least - 1e-6)


def _pieces(kinds: NDArray[np.int64]) -> list[tuple[int, int]]:
    edges = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
    return list(pairwise(edges))


def _unjudged(motion: Motion | None, hands: Hands) -> tuple[str, ...]:
    unknown: set[str] = set() if hands.known.any() else {"idle"}
    if motion is None:
        unknown |= {*NEED_PICTURES}
    elif np.isnan(motion.hud).all():
        unknown |= {*NEED_HUD}
    return tuple(kind for kind in KINDS if kind in unknown)


def _of_pictures(motion: Motion, hands: Hands, rate: float, rules: Rules) -> dict[str, Mask]:
    black = motion.spread <= ONE_COLOUR
    gone = motion.hud < rules.hud_share  # False for NaN: unknown is not gone
    mirrored = gone & (motion.flipped > MIRRORED)
    loading = _loading(motion, gone, rate, rules) & ~black
    cutscene = _cutscene(motion, hands, gone & ~mirrored, rate, rules)
    return {
        "black": black,
        "loading": loading,
        "menu": gone & ~mirrored & ~cutscene,
        "cutscene": cutscene,
        "mirrored": mirrored,
        "letterbox": _other_bars(motion.bars),
        **_still(motion, hands, rate),
    }


def _loading(motion: Motion, gone: Mask, rate: float, rules: Rules) -> Mask:
    """Nearly still and plain pictures between two others; the episode may begin or end with them.

    What was there before does not go on after them: else a plain menu was open meanwhile.
    """
    found = np.zeros(motion.n_steps, np.bool_)
    no_hud = bool(np.isnan(motion.hud).all())
    for start, stop in _equal(motion.share <= NEARLY_STILL):
        if stop - start < rules.of["loading"].longer_than_s * rate:
            continue
        apart = _jumps(motion, start) and _jumps(motion, stop)
        plain = motion.plain[start:stop].mean() >= PLAIN
        hudless = no_hud or gone[start:stop].mean() > 0.5
        found[start:stop] = apart and plain and hudless and not _goes_on(motion, start, stop)
    return found


def _goes_on(motion: Motion, start: int, stop: int) -> bool:
    """Whether the picture after a stretch follows from the one before it."""
    inside = start > 0 and stop < motion.n_steps
    return inside and motion.alike(start - 1, stop) >= UNLIKE


def _still(motion: Motion, hands: Hands, rate: float) -> dict[str, Mask]:
    """Pictures without any change, by what the hands do meanwhile."""
    frozen, paused = np.zeros((2, motion.n_steps), np.bool_)
    alive = moves_by_itself(motion, hands, rate)
    for start, stop in _equal(motion.most <= STILL):
        known = hands.known[start:stop].mean() > 0.5
        at_it = (hands.busy & hands.known)[start:stop].mean() >= HANDS
        # In a world that waits for the player, a still picture may be but an idle player.
        frozen[start:stop], paused[start:stop] = not known, known and (at_it or alive)
    return {"frozen": frozen, "paused": paused}


def moves_by_itself(motion: Motion, hands: Hands, rate: float) -> bool:
    """Whether pictures change while hands are at rest, so that a still one means a pause.

    Long stretches without any change do not count: they may be pauses themselves. False where there is
    too little to tell.
    """
    rest = hands.known & ~hands.busy
    second = max(round(rate), 1)
    since = np.convolve(~rest, np.ones(second), "full")[: len(rest)] < 0.5  # at rest for a second
    judged = since & ~_long(_equal(motion.most <= STILL), len(rest), second)
    moving = judged & (motion.most > STILL)
    return bool(judged.sum() >= ALIVE_STEPS and moving.sum() > 0.8 * judged.sum())


def _long(runs: list[tuple[int, int]], n_steps: int, least: int) -> Mask:
    mask = np.zeros(n_steps, np.bool_)
    for start, stop in runs:
        mask[start:stop] = stop - start >= least
    return mask


def _equal(as_before: Mask) -> list[tuple[int, int]]:
    """Runs of pictures that are each as the one before; the first picture of a run belongs to it."""
    return [(max(start - 1, 0), stop) for start, stop in runs_of(as_before)]


def _jumps(motion: Motion, step: int) -> bool:
    """Whether the picture of a step does not follow from the one before; True at both ends."""
    return step in (0, motion.n_steps) or motion.alike(step - 1, step) < UNLIKE


def _cutscene(motion: Motion, hands: Hands, gone: Mask, rate: float, rules: Rules) -> Mask:
    found = np.zeros(motion.n_steps, np.bool_)
    for start, stop in long_runs(gone, "cutscene", rate, rules):
        off = 1 - hands.busy[start:stop].mean() if hands.known[start:stop].all() else 0.0
        found[start:stop] = off >= 1 - HANDS and motion.share[start:stop].mean() >= MOVING
    return found


def _other_bars(bars: NDArray[np.int16]) -> Mask:
    usual = np.median(bars, axis=0)
    return np.asarray((np.abs(bars - usual) >= OTHER_BARS).any(axis=1))
