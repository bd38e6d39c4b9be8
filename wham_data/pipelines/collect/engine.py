"""The protocol of a game that `collect` can play, and the actions that a player has in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import MissingPartError, UsageError
from wham_data.schemas.recording import Frames, Provenance
from wham_data.versions import install_command

NO_SHARES: Final[Mapping[str, float]] = MappingProxyType({})
Action = NDArray[np.float32]
"""One number for each dimension of the engine's action space, float32 [A]."""


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that a finger can do.

    name       its name in `--share` and in the report
    dimension  the dimension of the action space that it changes
    value      value of the dimension while it is held; for a motion, its highest speed per second
    useful     whether players do it by default
    """

    name: str
    dimension: str
    value: float = 1.0
    useful: bool = True


@dataclass(frozen=True, slots=True)
class Finger:
    """Options of which a player does one at a time.

    rests  whether it may do none of them. An engine that needs an action at every tic has one finger
           that never rests
    """

    name: str
    options: tuple[Option, ...]
    rests: bool = True


class Engine(Protocol):
    """One running game.

    Attributes:
        space: the action space.
        rate: tics per second of the game's own clock.
        about: game, map and licence.
        fingers: what a player can do. No two of them move one dimension.
    """

    @property
    def space(self) -> ActionSpace: ...  # noqa: D102

    @property
    def rate(self) -> Fraction: ...  # noqa: D102

    @property
    def about(self) -> Provenance: ...  # noqa: D102

    @property
    def fingers(self) -> tuple[Finger, ...]: ...  # noqa: D102

    def screen(self) -> Frames:
        """The picture on screen now, uint8 [H, W, 3] RGB, always of the same size."""
        ...

    def tic(self, action: Action) -> bool:
        """Play one tic with the action held.

        Returns:
            Whether the game continues. If not, a new game has begun: the next screen is its first.
        """
        ...

    def reflex(self) -> Mapping[str, float]:
        """The values that a scripted player must use now, by dimension; hands move the others."""
        ...

    def close(self) -> None:
        """End the game."""
        ...


@dataclass(frozen=True, slots=True)
class Start:
    """How to start a game.

    scenario  map, level or game, as the engine names it
    seed      seed of the game; each seed gives another game
    size      width and height of the picture in pixels; None: the engine's default
    scripted  whether `reflex` will be called, which may slow the engine down
    """

    scenario: str
    seed: int
    size: tuple[int, int] | None = None
    scripted: bool = False


@dataclass(frozen=True, slots=True)
class EngineKind:
    """An engine that can be started.

    name       its name on the command line, before the colon
    about      one line for the help text
    scenarios  examples of scenarios, the part after the colon
    package    Python package that must be installed
    extra      extra of wham-data that installs it
    start      starts a game, and imports the engine; raises UsageError for a scenario or size that
               the engine does not have
    script     option -> share of the time for the scripted player
    """

    name: str
    about: str
    scenarios: tuple[str, ...]
    package: str
    extra: str
    start: Callable[[Start], Engine]
    script: Mapping[str, float] = field(default_factory=dict)

    def no_such(self, what: str, given: str, known: Iterable[str]) -> UsageError:
        """The error for a scenario or size that the engine does not have."""
        return UsageError(f"{self.name}: no {what} {given[:60]!r}; known: {', '.join(known)}")

    def check_installed(self) -> None:
        """Check that the engine is installed.

        Raises:
            MissingPartError: it is not; the message contains the command that installs it.
        """
        if find_spec(self.package) is None:
            raise MissingPartError(
                f"{self.name} needs the package {self.package}, which is not installed: "
                f"`{install_command(self.extra)}`"
            )


def target_shares(
    fingers: tuple[Finger, ...], requested: Mapping[str, float] = NO_SHARES
) -> tuple[NDArray[np.float64], ...]:
    """The share of the time for each option of each finger.

    By default all useful options have the same share, 1 / (n + 1): n is the largest number of useful
    options that one finger has, and the 1 stands for rest. A finger that never rests divides all its
    time between its useful options. An option with a requested share gets it. The other options of
    its finger then divide the time that is left, but get no more than their default.

    Args:
        fingers: of an engine.
        requested: option -> share of the time.

    Returns:
        For each finger float64 [options + 1] with the sum 1; the last is rest.

    Raises:
        UsageError: there is no such option, or the requested shares of a finger exceed 1.
    """
    known = {option.name for finger in fingers for option in finger.options}
    for name, share in requested.items():
        if name not in known:
            raise UsageError(f"no action {name[:60]!r}; known: {', '.join(sorted(known))}")
        if not 0 <= share <= 1:
            raise UsageError(f"share of {name}: {share:g}, expected 0 to 1")
    useful = [[option.useful for option in finger.options] for finger in fingers]
    most = max([sum(each) for each, f in zip(useful, fingers, strict=True) if f.rests], default=0)
    shares = []
    for finger, uses in zip(fingers, useful, strict=True):
        fixed = [requested.get(option.name) for option in finger.options]
        left = 1 - sum(share for share in fixed if share is not None)
        others = sum(use for use, share in zip(uses, fixed, strict=True) if share is None)
        if left < -1e-9 or (not finger.rests and not others and left > 1e-9):
            names = ", ".join(option.name for option in finger.options)
            bound = "at most" if finger.rests else "exactly"
            raise UsageError(f"shares of {names} add to {1 - left:g}, expected {bound} 1")
        each = max(left, 0.0) / max(others, 1)
        each = min(each, 1 / (most + 1)) if finger.rests else each
        row = [
            each * use if share is None else share for use, share in zip(uses, fixed, strict=True)
        ]
        shares.append(np.array([*row, max(1 - sum(row), 0.0) if finger.rests else 0.0]))
    return tuple(shares)
