"""Players: they choose the action of every tic. The same seed gives the same actions.

For each finger a hand chooses one option after another, and holds each for a random time. The next
option is drawn from those that have had less than their share of the time, in proportion to what
they lack. So every action reaches its share after a few holds; with independent draws that would
take hours. An option never follows itself, so that each hold has the duration that was drawn.

Holds begin and end at *beats*. By default a beat is a tic that is also a whole tenth of a second.
So a step of a 10 Hz corpus never contains two holds of one finger, and the shares and durations
that are counted in such a corpus equal those that were requested.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.collect.engine import Action, Engine, Finger
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import UsageError

Policy = Literal["random", "held", "scripted"]
SLOWEST: Final = 0.25
"""Speed of the slowest motion, as a part of the fastest."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The possible durations of holds.

    rate     tics per second
    beat     tics from one beat to the next
    choices  the durations in tics, all multiples of `beat`
    """

    rate: Fraction
    beat: int
    choices: tuple[int, ...]

    @classmethod
    def of(cls, rate: Fraction, hold_s: tuple[Fraction, Fraction], beat_s: Fraction | None) -> Pace:
        """The pace of an engine.

        Args:
            rate: tics per second.
            hold_s: duration of the shortest and the longest hold in seconds.
            beat_s: seconds from one beat to the next; holds last whole numbers of beats. None: the
                shortest time that is a whole number of tics and of tenths of a second. 0: one tic.

        Raises:
            UsageError: no whole number of beats is in the range of `hold_s`.
        """
        tics_per_tenth = rate / TEN_HZ
        beat = Fraction(tics_per_tenth.numerator) if beat_s is None else beat_s * rate
        beat_tics = max(1, round(beat))
        low, high = hold_s
        first, last = math.ceil(low * rate / beat_tics), math.floor(high * rate / beat_tics)
        choices = tuple(count * beat_tics for count in range(max(first, 1), last + 1))
        if not choices:
            raise UsageError(
                f"--hold {float(low):g}-{float(high):g}: no time in this range is a whole number of "
                f"beats of {float(beat_tics / rate):g} s; allow longer holds, or change --beat"
            )
        return cls(rate, beat_tics, choices)


def next_option(
    shares: NDArray[np.float64],
    held: NDArray[np.float64],
    previous: int,
    horizon: int,
    draw: float,
) -> int:
    """Choose the next option of a finger, from those that have had less than their share of the time.

    The more time an option lacks, the likelier it is.

    Args:
        shares: share of the time for each option, float64 [options + 1]; the last is rest, which
            alone may follow itself.
        held: tics spent on each option so far, float64 [options + 1].
        previous: position of the option that was held before.
        horizon: tics by which an option may be ahead of its share.
        draw: a uniform draw from [0, 1).

    Returns:
        A position in `shares`; never one with share 0, unless another option has the share 1.
    """
    lag = np.maximum(shares * (held.sum() + horizon) - held, 0.0)
    rest = len(shares) - 1
    if previous != rest:
        lag[previous] = 0.0
    if not lag.any():
        lag = shares.copy()
        if previous != rest and np.count_nonzero(shares) > 1:
            lag[previous] = 0.0
    return drawn(lag, draw)


def drawn(weights: NDArray[np.float64], draw: float) -> int:
    """The position that a uniform draw from [0, 1) selects, in proportion to the weights."""
    edges = np.cumsum(weights)
    return int(np.searchsorted(edges, draw * edges[-1], side="right"))


def stroke(tics: int, fastest: float, rate: Fraction) -> NDArray[np.float64]:
    """A motion that starts and stops smoothly: the distance in each tic, float64 [tics].

    Args:
        tics: duration.
        fastest: speed in the middle, per second; its sign is the direction.
        rate: tics per second.
    """
    phase = (np.arange(tics) + 0.5) / tics
    motion: NDArray[np.float64] = fastest / float(rate) * np.sin(np.pi * phase) ** 2
    return motion


class Hand:
    """Moves one finger, one hold after another.

    Args:
        finger: of the engine.
        shares: share of the time for each option, see `target_shares`.
        pace: the durations of holds.
        motion: names of the dimensions that are motions; a hold of a motion is a `stroke`.
        dice: random generator for this finger only.
        blind: draw options by their shares alone, independently of earlier holds.
    """

    def __init__(
        self,
        finger: Finger,
        shares: NDArray[np.float64],
        pace: Pace,
        motion: frozenset[str],
        dice: np.random.Generator,
        *,
        blind: bool = False,
    ) -> None:
        self._options, self._shares, self._pace = finger.options, shares, pace
        self._motion, self._dice, self._blind = motion, dice, blind
        self._held = np.zeros(len(shares))
        self._option = len(finger.options)
        self._values: Iterator[float] = iter(())

    def lift(self) -> None:
        """End the present hold: the next tic begins another one."""
        self._values = iter(())

    def tic(self) -> tuple[str, float] | None:
        """Play one tic: the dimension that the finger changes, and its value; None at rest."""
        value = next(self._values, None)
        if value is None:
            self._values = iter(self._next_hold())
            value = next(self._values)
        self._held[self._option] += 1
        if self._option == len(self._options):
            return None
        return self._options[self._option].dimension, value

    def _next_hold(self) -> list[float]:
        """Choose an option and a duration. Returns the value of the option at each tic."""
        draw = self._dice.random()
        if self._blind:
            self._option = drawn(self._shares, draw)
        else:
            horizon = self._pace.choices[-1]
            self._option = next_option(self._shares, self._held, self._option, horizon, draw)
        tics = int(self._dice.choice(self._pace.choices))
        if self._option == len(self._options):
            # A rest is not a hold. For a busy finger it may be short, and may follow itself.
            busy = self._shares[-1] < self._shares[:-1].max()
            return [0.0] * (self._pace.beat if busy else tics)
        option = self._options[self._option]
        if option.dimension not in self._motion:
            return [option.value] * tics
        fastest = option.value * self._dice.uniform(SLOWEST, 1.0)
        return [float(each) for each in stroke(tics, fastest, self._pace.rate)]


class Player:
    """Plays an engine: one hand for each finger; for policy "scripted" also the engine's reflexes.

    Args:
        policy: "random" draws new options at every tic; "held" holds each option for some time;
            "scripted" does too, with the shares of the engine's script, and obeys its reflexes.
        engine: to be played.
        shares: for each finger the share of the time for each option, see `target_shares`.
        pace: the durations of holds; not used for "random", where each lasts one tic.
        seed: seed of the draws.
    """

    def __init__(
        self,
        policy: Policy,
        engine: Engine,
        shares: Sequence[NDArray[np.float64]],
        pace: Pace,
        seed: int,
    ) -> None:
        self._engine, self._scripted = engine, policy == "scripted"
        self._place = {name: place for place, name in enumerate(engine.space.names)}
        blind = policy == "random"
        if blind:
            pace = Pace(pace.rate, 1, (1,))
        motion = frozenset(d.name for d in engine.space.dimensions if d.kind == "delta")
        dice = np.random.default_rng(seed).spawn(len(engine.fingers))
        self._hands = [
            Hand(finger, share, pace, motion, each, blind=blind)
            for finger, share, each in zip(engine.fingers, shares, dice, strict=True)
        ]

    def action(self) -> Action:
        """The action of this tic, float32 [A]."""
        values = dict(filter(None, (hand.tic() for hand in self._hands)))
        if self._scripted:
            values.update(self._engine.reflex())
        action = np.zeros(len(self._place), np.float32)
        for name, value in values.items():
            action[self._place[name]] = value
        return action

    def lift(self) -> None:
        """End all holds, because a new game begins."""
        for hand in self._hands:
            hand.lift()
