"""Players: what the hands do at every tic. Seeded, and the same at every run.

A hand does one option of a finger after the other and holds each for a drawn time. Which one comes
next is drawn among those that lag behind their share of the time, in proportion to their lag: so
every action gets its share within a few holds, which a blind draw would take hours for. No option
follows itself, so that a hold is as long as it was drawn.

Holds begin and end at *beats*. By default these are the tics that are also whole tenths of a second,
so that a step of a 10 Hz corpus never has two holds of one finger in it, and the shares and hold
times counted there are those that were asked for.
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
    """How long holds last, in tics: one of `choices`, all whole numbers of beats."""

    rate: Fraction
    beat: int
    choices: tuple[int, ...]

    @classmethod
    def of(cls, rate: Fraction, hold_s: tuple[Fraction, Fraction], beat_s: Fraction | None) -> Pace:
        """The pace of an engine.

        Args:
            rate: tics per second.
            hold_s: the shortest and the longest hold.
            beat_s: what holds are whole numbers of; None is the shortest time that is a whole number
                of tics and of tenths of a second, 0 a tic.

        Raises:
            UsageError: no hold fits.
        """
        tics_per_tenth = rate / TEN_HZ
        beat = Fraction(tics_per_tenth.numerator) if beat_s is None else beat_s * rate
        beat_tics = max(1, round(beat))
        low, high = hold_s
        first, last = math.ceil(low * rate / beat_tics), math.floor(high * rate / beat_tics)
        choices = tuple(count * beat_tics for count in range(max(first, 1), last + 1))
        if not choices:
            raise UsageError(
                f"--hold {float(low):g}-{float(high):g}: no such time is a whole number of beats of "
                f"{float(beat_tics / rate):g} s; allow longer holds, or other beats with --beat"
            )
        return cls(rate, beat_tics, choices)


def next_option(
    shares: NDArray[np.float64],
    held: NDArray[np.float64],
    previous: int,
    horizon: int,
    draw: float,
) -> int:
    """The next option of a finger: one of those that lag behind their share, the more the likelier.

    Args:
        shares: float64 [options + 1] of the time; the last is rest, the only one to follow itself.
        held: float64 [options + 1], tics spent on each so far.
        previous: what was held before.
        horizon: tics by which every option may be ahead of its share.
        draw: a uniform draw from [0, 1).

    Returns:
        A position in `shares`, never one whose share is 0 unless all the time is another's.
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
    """The position that a uniform draw from [0, 1) falls on, by weight."""
    edges = np.cumsum(weights)
    return int(np.searchsorted(edges, draw * edges[-1], side="right"))


def stroke(tics: int, fastest: float, rate: Fraction) -> NDArray[np.float64]:
    """A motion that sets out gently and comes to rest gently, per tic, float64 [tics].

    Args:
        tics: how long it takes.
        fastest: its speed half-way, per second; its sign is the direction.
        rate: tics per second.
    """
    phase = (np.arange(tics) + 0.5) / tics
    motion: NDArray[np.float64] = fastest / float(rate) * np.sin(np.pi * phase) ** 2
    return motion


class Hand:
    """One finger, one hold after the other.

    Args:
        finger: of the engine.
        shares: see `target_shares`.
        pace: how long holds last.
        motion: dimensions that are motions: a hold of one is a stroke.
        dice: of this finger alone.
        blind: whether options are drawn by their shares alone, whatever was held before.
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
        """Let go: the next tic begins another hold."""
        self._values = iter(())

    def tic(self) -> tuple[str, float] | None:
        """The dimension that this tic moves, and its value; None at rest."""
        value = next(self._values, None)
        if value is None:
            self._values = iter(self._next_hold())
            value = next(self._values)
        self._held[self._option] += 1
        if self._option == len(self._options):
            return None
        return self._options[self._option].dimension, value

    def _next_hold(self) -> list[float]:
        """Choose an option and a time; its value at each tic of it."""
        draw = self._dice.random()
        if self._blind:
            self._option = drawn(self._shares, draw)
        else:
            horizon = self._pace.choices[-1]
            self._option = next_option(self._shares, self._held, self._option, horizon, draw)
        tics = int(self._dice.choice(self._pace.choices))
        if self._option == len(self._options):
            # A rest is no hold: of a busy finger it may be short, and follow itself.
            busy = self._shares[-1] < self._shares[:-1].max()
            return [0.0] * (self._pace.beat if busy else tics)
        option = self._options[self._option]
        if option.dimension not in self._motion:
            return [option.value] * tics
        fastest = option.value * self._dice.uniform(SLOWEST, 1.0)
        return [float(each) for each in stroke(tics, fastest, self._pace.rate)]


class Player:
    """Plays an engine: `hands` on its fingers, and its reflexes where the policy is scripted.

    Args:
        policy: "random" draws anew at every tic, "held" holds, "scripted" holds what the engine's
            script favours and follows its reflexes.
        engine: to be played.
        shares: see `target_shares`.
        pace: how long holds last; a random player's are one tic.
        seed: of the draws.
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
        """What is done at this tic, float32 [A]."""
        done = dict(filter(None, (hand.tic() for hand in self._hands)))
        if self._scripted:
            done.update(self._engine.reflex())
        action = np.zeros(len(self._place), np.float32)
        for name, value in done.items():
            action[self._place[name]] = value
        return action

    def lift(self) -> None:
        """Let go of everything: a new game begins."""
        for hand in self._hands:
            hand.lift()
