"""Replays movies in stable-retro's emulators.

The emulators are C and C++ code, and a movie gives them a saved state, so this runs only where a reader
opens recordings: in the ingest's decoder process, with limits on memory and time. There may be one
emulator in a process at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.readers.retro_movie.movie import RetroMovie
from wham_data.schemas.actions import ActionSpace, Dimension
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.versions import install_command

Picture = NDArray[np.uint8]
NOT_WRITTEN: Final = frozenset({"RESET", "PAUSE"})
"""Buttons that stable-retro does not write into movies, though games can be played without them."""


@dataclass(frozen=True, slots=True)
class Console:
    """What the emulator of a movie is.

    rate     pictures per second
    size     (width, height) of the first picture
    buttons  of a pad, as stable-retro names them in its own order; None: a place without a button
    version  of stable-retro
    """

    game: str
    system: str
    rate: Fraction
    size: tuple[int, int]
    buttons: tuple[str | None, ...]
    version: str

    @property
    def space(self) -> ActionSpace:
        """The buttons of a pad; the same space as that of `wham-data collect retro:GAME`."""
        return ActionSpace(
            name=f"retro_{self.system.lower()}",
            dimensions=tuple(Dimension(name, "button", 0, 1) for name in self.buttons if name),
            title=f"Buttons of the {self.system} pad, as stable-retro names them",
        )


def console_of(movie: RetroMovie) -> Console:
    """Start the emulator of a movie, look at it, and end it.

    Raises:
        RefusedInput: MISSING_PART, stable-retro or the ROM is not installed; METADATA, the saved state
            is of another emulator; LOG_COLUMN, buttons of the console are not in the movie.
    """
    with _emulator(movie) as env:
        import stable_retro

        screen = env.reset()[0]
        console = Console(
            env.gamename,
            env.system,
            Fraction(env.em.get_screen_rate()).limit_denominator(1_000_000),
            (screen.shape[1], screen.shape[0]),
            tuple(env.buttons),
            stable_retro.__version__.strip(),
        )
    real = [name for name in console.buttons if name]
    for names in movie.players:
        missing = sorted({*real} - {*names} - NOT_WRITTEN)
        unknown = sorted({*names} - {*real})
        if missing or unknown:
            raise RefusedInput(
                Reason.LOG_COLUMN,
                f"the movie has no button {', '.join(missing)} of the {console.system}, so it cannot be "
                "replayed as it was played"
                if missing
                else f"the {console.system} has no button {', '.join(unknown)[:80]}",
            )
    return console


def pictures_of(movie: RetroMovie, picks: Index) -> Iterator[Picture]:
    """The pictures at some positions, uint8 [H, W, 3] RGB each. All before them are made too.

    Args:
        movie: a movie of which `console_of` knows the console.
        picks: int64, strictly increasing, each below `movie.count`.
    """
    wanted = set(picks.tolist())
    with _emulator(movie) as env:
        pads = [
            _places(names, env.buttons, down)
            for names, down in zip(movie.players, movie.down, strict=True)
        ]
        pressed = np.concatenate(pads, axis=1)
        picture = env.reset()[0]
        for k in range(max(wanted, default=-1) + 1):
            if k:
                picture = env.step(pressed[k])[0]
            if k in wanted:
                yield np.array(picture)


def _places(
    names: tuple[str, ...], buttons: list[str | None], down: NDArray[np.bool_]
) -> NDArray[np.int8]:
    """A player's lines in the emulator's order of buttons, int8 [N, places]."""
    table = np.zeros((len(down), len(buttons)), np.int8)
    for place, name in enumerate(buttons):
        if name in names:
            table[:, place] = down[:, names.index(name)]
    return table


@contextmanager
def _emulator(movie: RetroMovie) -> Iterator[Any]:
    """An emulator before its `reset`, with the movie's state, or else just switched on."""
    game = _installed_game(movie.game)
    import stable_retro

    try:
        env = stable_retro.make(
            game,
            state=stable_retro.State.NONE,
            inttype=stable_retro.data.Integrations.STABLE,
            use_restricted_actions=stable_retro.Actions.ALL,
            players=len(movie.players),
            render_mode="rgb_array",
        )
    except FileNotFoundError:
        raise RefusedInput(
            Reason.MISSING_PART,
            f"the ROM of {game} is not imported into stable-retro: `python -m stable_retro.import "
            "FOLDER` with the folder of your ROM, then ingest again",
        ) from None
    except RuntimeError as error:
        raise RefusedInput(
            Reason.MISSING_PART, f"stable-retro cannot start {game}: {str(error)[:200]}"
        ) from None
    try:
        if movie.state is not None:
            if not env.em.set_state(movie.state):
                raise RefusedInput(
                    Reason.METADATA,
                    f"its saved state is not one of the emulator of {game} in this stable-retro",
                )
            env.initial_state = movie.state
        yield env
    finally:
        env.close()


def _installed_game(name: str) -> str:
    """The name of a game that stable-retro knows. It becomes part of a path only if it is one.

    Raises:
        RefusedInput: MISSING_PART, stable-retro is not installed; METADATA, it does not know the game.
    """
    try:
        import stable_retro
    except ImportError:
        raise RefusedInput(
            Reason.MISSING_PART,
            "replaying it needs the package stable-retro, which is not installed: "
            f"`{install_command('retro')}`",
        ) from None
    known = stable_retro.data.list_games(stable_retro.data.Integrations.STABLE)
    found = next((each for each in (name, f"{name}-v0") if each in known), None)
    if found is None:
        raise RefusedInput(
            Reason.METADATA, f"stable-retro knows no game {name[:80]!r}, which the movie names"
        )
    return found
