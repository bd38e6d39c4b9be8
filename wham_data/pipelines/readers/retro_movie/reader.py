"""`retro-movie`: stable-retro's `.bk2` movies, whose pictures are made again by its emulators.

Line k of a movie's log led to its picture k, so line k + 1 acts after picture k; the action after the
last picture is not known. Each player of a movie is a recording, on one clock.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from wham_data.pipelines.readers.kit.fixed_rate import open_fixed_rate
from wham_data.pipelines.readers.kit.not_downloaded import not_there
from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.readers.retro_movie.movie import ENDING, STATE, RetroMovie, beginning_of
from wham_data.pipelines.readers.retro_movie.replay import console_of, pictures_of
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, OpenRecording, Provenance, Recording, RefusedFile

_GAME: Final = re.compile(r"[ -~]{1,200}")


@dataclass(frozen=True, slots=True)
class RetroMovies:
    """Reader of stable-retro's movies."""

    name: ClassVar[str] = "retro-movie"
    about: ClassVar[str] = "stable-retro's .bk2 movies, replayed with the game's imported ROM"
    order: ClassVar[int] = 97
    without_state: str = choice(
        "refuse",
        "switched_on",
        about="a movie without a saved state: refuse it, or take it as begun when the console was "
        "switched on",
    )

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every player of the movies."""
        for path in files:
            if path.suffix.lower() != ENDING:
                continue
            try:
                game, players = beginning_of(path)
            except RefusedInput as why:
                yield RefusedFile(path, not_there(path) or why)
                continue
            for player in range(1, players + 1):
                together = players != 1
                yield Recording(
                    path,
                    (path,),
                    self.name,
                    Provenance(
                        game=game if _GAME.fullmatch(game) else None,
                        match=path.stem if together else None,
                        subject=str(player) if together else None,
                    ),
                    part=f"player_{player}" if together else "",
                )

    def open(self, recording: Recording, limits: VideoLimits) -> OpenRecording:
        """Read the buttons, and start the emulator once for its rate and its pad."""
        movie = RetroMovie.read(recording.path)
        if movie.state is None and self.without_state == "refuse":
            raise RefusedInput(
                Reason.METADATA,
                f"no {STATE} in it: nothing says where the game stood when the movie began. If it was "
                "the first movie since the console was switched on: --option without_state=switched_on",
            )
        console = console_of(movie)
        player = int(recording.part.removeprefix("player_") or 1) - 1
        names, down = movie.players[player], movie.down[player]
        space = console.space
        values = np.zeros((movie.count - 1, space.size))
        for place, name in enumerate(space.names):
            if name in names:
                values[:, place] = down[1:, names.index(name)]
        unwritten = [name for name in space.names if name not in names]
        notes = [f"replayed by stable-retro {console.version}, at the emulator's rate"]
        if unwritten:
            notes.append(f"not in the movie, taken as never pressed: {', '.join(unwritten)}")
        return open_fixed_rate(
            movie.count,
            console.rate,
            limits,
            FrameData(),
            space=space,
            values=values,
            pictures=lambda picks: pictures_of(movie, picks),
            size=console.size,
            notes=tuple(notes),
        )
