"""Play and record one session: NAME.mp4, NAME.csv with one row per tic, and NAME.toml last of all.

Both files use the engine's own clock. Row i of the log is the action that was held from tic i to
tic i + 1. The frame with time i is the screen at tic i. After the end of a game, the next game
begins two seconds later on that clock, so that `ingest` cuts there and no episode contains two games.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np

from wham_data.files.whole import put_in_place, written_whole
from wham_data.pipelines.collect.engine import Engine, EngineKind, Option, Start, target_shares
from wham_data.pipelines.collect.policies import Pace, Player, Policy
from wham_data.pipelines.video import VideoWriter
from wham_data.schemas.actions import ActionSpace, generic_space, space_names
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import UsageError

PAUSE_S: Final = 2
"""Time between two games of a recording. It is longer than the gaps that `ingest` bridges."""
PROGRESS_EVERY_TICS: Final = 50
PARTIAL: Final = ".partial"


@dataclass(frozen=True, slots=True)
class Session:
    """One recording to make.

    kind      the engine
    start     how the game is started; the seed is used for the player too
    policy    how the player chooses actions
    seconds   duration of play
    fps       frames per second of the video; None: one frame per tic
    hold_s    duration of the shortest and the longest hold
    beat_s    see `Pace.of`
    shares    option -> its share of the time, if it differs from the default
    """

    kind: EngineKind
    start: Start
    policy: Policy
    seconds: Fraction
    fps: Fraction | None
    hold_s: tuple[Fraction, Fraction]
    beat_s: Fraction | None
    shares: Mapping[str, float]

    @property
    def name(self) -> str:
        """Name of its files, without the ending."""
        scenario = "".join(c if c.isalnum() or c in "-._" else "-" for c in self.start.scenario)
        return f"{self.kind.name}_{scenario}_{self.policy}_{self.start.seed:05d}"

    @property
    def settings(self) -> dict[str, str]:
        """The settings that determine the recording, as written in its metadata."""
        size = self.start.size
        return {
            "engine": self.kind.name,
            "scenario": self.start.scenario,
            "seed": str(self.start.seed),
            "policy": self.policy,
            "seconds": f"{float(self.seconds):g}",
            "size": "usual" if size is None else f"{size[0]}x{size[1]}",
            "fps": "engine" if self.fps is None else str(self.fps),
            "hold_s": "-".join(f"{float(each):g}" for each in self.hold_s),
            "beat_s": "auto" if self.beat_s is None else f"{float(self.beat_s):g}",
            "shares": ",".join(f"{name}={share:g}" for name, share in sorted(self.shares.items())),
        }


@dataclass(frozen=True, slots=True)
class Played:
    """How often one action was played.

    share  share of the time that was requested
    tics   count of tics in which it was played, by hands or reflexes
    of     count of all tics
    """

    name: str
    share: float
    tics: int
    of: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recording that was made.

    video    path of the video
    seconds  duration of play
    frames   count of frames in the video
    games    count of games that began in it
    played   how often each action was played
    """

    video: Path
    seconds: Fraction
    frames: int
    games: int
    played: tuple[Played, ...]


def record(session: Session, out: Path, advance: Callable[[float], None]) -> Recorded:
    """Play one session and write its three files to `out`; after an error there is none of them.

    Args:
        session: what to play.
        out: an existing folder.
        advance: called now and then with the seconds that were played since the last call.

    Raises:
        UsageError: the engine does not have the scenario or size, a share names no action, no hold
            fits the beats, or the engine's rate is not a multiple of the frame rate.
    """
    engine = session.kind.start(session.start)
    try:
        script = session.kind.script if session.policy == "scripted" else {}
        shares = target_shares(engine.fingers, {**script, **session.shares})
        pace = Pace.of(engine.rate, session.hold_s, session.beat_s)
        player = Player(session.policy, engine, shares, pace, session.start.seed)
        every = tics_per_frame(engine.rate, session.fps)
        partial = out / PARTIAL
        partial.mkdir(exist_ok=True)
        video, log = (partial / f"{session.name}{ending}" for ending in (".mp4", ".csv"))
        tics = round(session.seconds * engine.rate)
        frames, games, done = _play(engine, player, tics, every, pace.beat, (video, log), advance)
        requested = [
            float(share)
            for finger, each in zip(engine.fingers, shares, strict=True)
            for share in each[: len(finger.options)]
        ]
        played = tuple(
            Played(option.name, share, count, tics)
            for option, share, count in zip(_options(engine), requested, done, strict=True)
        )
        metadata = partial / f"{session.name}.toml"
        metadata.write_text(_metadata(session, engine), encoding="utf-8")
        space = _declaration(engine.space)
        if space is not None:
            name, text = space
            with written_whole(out / name) as declaration:
                declaration.write_text(text, encoding="utf-8")
        for file in (video, log, metadata):
            put_in_place(file, out / file.name)
    finally:
        engine.close()
    return Recorded(out / video.name, session.seconds, frames, games, played)


def _play(
    engine: Engine,
    player: Player,
    tics: int,
    every: int,
    beat: int,
    files: tuple[Path, Path],
    advance: Callable[[float], None],
) -> tuple[int, int, list[int]]:
    """Play and write a video and a log.

    Args:
        engine: with its game started.
        player: chooses the actions.
        tics: count of tics to play.
        every: tics from one frame of the video to the next.
        beat: tics from one beat to the next.
        files: paths of the video and of the log.
        advance: see `record`.

    Returns:
        Count of frames written, count of games begun, and for each option the count of tics in
        which it was played.
    """
    video_path, log_path = files
    fit = math.lcm(every, beat)
    pause = fit * math.ceil(PAUSE_S * engine.rate / fit + 1)
    frames, games, clock = 0, 1, 0
    names = engine.space.names
    place = [names.index(option.dimension) for option in _options(engine)]
    sign = np.sign([option.value for option in _options(engine)])
    done = np.zeros(len(place), np.int64)
    with (
        VideoWriter(video_path, engine.rate, preset="veryfast", reproducible=True) as video,
        log_path.open("w", newline="", encoding="utf-8") as file,
    ):
        log = csv.writer(file, lineterminator="\n")
        log.writerow(["time_ns", *names])
        for tic in range(tics):
            if clock % every == 0:
                video.add(engine.screen(), clock)
                frames += 1
            action = player.action()
            done += sign * action[place] > 0
            log.writerow([_time_ns(clock, engine.rate), *(f"{value:.9g}" for value in action)])
            clock += 1
            if not engine.tic(action) and tic + 1 < tics:
                games += 1
                player.lift()
                clock += pause - clock % fit
            if tic % PROGRESS_EVERY_TICS == PROGRESS_EVERY_TICS - 1:
                advance(float(PROGRESS_EVERY_TICS / engine.rate))
        log.writerow([_time_ns(clock, engine.rate), *("0" for _ in names)])
    advance(float(tics % PROGRESS_EVERY_TICS / engine.rate))
    return frames, games, done.tolist()


def _options(engine: Engine) -> list[Option]:
    """All options of all fingers."""
    return [option for finger in engine.fingers for option in finger.options]


def tics_per_frame(rate: Fraction, fps: Fraction | None) -> int:
    """Tics from one frame of the video to the next.

    Raises:
        UsageError: the engine's rate is not a multiple of `fps`; the message names rates that fit.
    """
    every = Fraction(1) if fps is None else rate / fps
    if every.denominator != 1 or every < 1:
        possible = ", ".join(f"{float(rate / n):g}" for n in (1, 2, 3, 4, 5))
        raise UsageError(
            f"--fps {float(fps or 0):g}: the engine runs at {float(rate):g} tics per second and can "
            f"give {possible}, ..."
        )
    return every.numerator


def _time_ns(tic: int, rate: Fraction) -> int:
    """Start of a tic in ns, rounded up to whole nanoseconds like the times of frames."""
    return -(-tic * SECOND_NS * rate.denominator // rate.numerator)


def _metadata(session: Session, engine: Engine) -> str:
    """The text of NAME.toml."""
    about = engine.about
    declared = _declaration(engine.space)
    table: dict[str, Any] = {
        "game": about.game,
        "map": about.map,
        "match": session.name,
        "player": session.name,
        "license": about.license,
        "actions": engine.space.name if declared is None else declared[0],
    }
    lines = [f"{key} = {_text(value)}" for key, value in table.items() if value is not None]
    lines += ["", "[collect]", *(f"{key} = {_text(v)}" for key, v in session.settings.items())]
    return "\n".join(lines) + "\n"


def _declaration(space: ActionSpace) -> tuple[str, str] | None:
    """Name and text of the file that declares an action space; None if the space needs no file."""
    if space.name in space_names() or generic_space(space.name) is not None:
        return None
    lines = [f"{key} = {_text(getattr(space, key))}" for key in ("name", "title", "source")]
    for each in space.dimensions:
        lines += ["", "[[dimensions]]", f"names = [{_text(each.name)}]"]
        lines += [f"{key} = {_text(getattr(each, key))}" for key in ("kind", "unit", "sign")]
        lines += [f"{key} = {getattr(each, key)!r}" for key in ("low", "high")]
    return f"{space.name}.space.toml", "\n".join(lines) + "\n"


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
