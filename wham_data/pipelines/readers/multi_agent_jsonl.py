"""`multi-agent-jsonl`: a video beside a line of JSON for each of its frames, of one agent or several.

    NAME.mp4   NAME.actions.jsonl         or, alone in its folder,   video.mp4   actions.jsonl

    {"step": 0, "players": {"1": {"move": 2, "turn": 0, "fireZap": 1}, "2": ...}, "reward": {"1.REWARD": 0.0, ...}}
    {"step": 0, "action": 3, "reward": 0.0, ...}

The line of step k belongs to frame k and acts after it. Players of one video are recordings of one
match, all with its frames. DeepMind Lab2D's named actions become those that its games declare;
numbered ones are Procgen's where lines name the buttons (`combo`), else Atari's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import VIDEO_ENDINGS, sniff
from wham_data.files.json_lines import end_objects, json_lines
from wham_data.pipelines.readers.diamond_atari import ATARI_ACTIONS
from wham_data.pipelines.readers.kit.agents import agents_of, parts_of, said_of
from wham_data.pipelines.readers.kit.declared_actions import ActionPart, space_of, values_of
from wham_data.pipelines.readers.kit.frame_actions import per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import VideoClip, VideoRecording, read_video
from wham_data.pipelines.readers.kit.options import names_option
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.declarations import is_number
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Provenance, Recording

LOG: Final = "actions.jsonl"
VIDEO: Final = "video"
MOST_PLAYERS: Final = 64
MOST_LINES: Final = 2_000_000
MIN_COVERAGE: Final = 0.5


@dataclass(frozen=True, slots=True)
class MultiAgentJsonl:
    """Reader of videos with a line for each frame."""

    name: ClassVar[str] = "multi-agent-jsonl"
    about: ClassVar[str] = "a video beside an actions.jsonl, a line for each frame and its players"
    order: ClassVar[int] = 120
    action_names: tuple[str, ...] = names_option(
        about="an Atari game's actions in order, as ALE's get_action_meanings() names them",
        allowed=ATARI_ACTIONS,
    )

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every player of the videos that have such lines beside them."""
        present = set(files)
        for log in files:
            video = _video_of(log, present)
            ends = end_objects(log) if video else None
            if video is None or ends is None or not is_number(ends[0].get("step")):
                continue
            if isinstance(ends[0].get("players"), dict):
                subjects = _agents(log)
                if not 1 <= len(subjects) <= MOST_PLAYERS:
                    continue
            elif is_number(ends[0].get("action")):
                subjects = [""]
            else:
                continue
            spare = log.with_suffix(".csv")
            for subject in subjects:
                yield Recording(
                    path=video,
                    files=(video, log),
                    format=self.name,
                    provenance=Provenance(
                        match=f"{video.parent.name}/{video.stem}" if subject else None,
                        subject=subject or None,
                    ),
                    companions=(spare,) if spare in present else (),
                    part=f"player_{subject}" if subject else "",
                )

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Index the video and read the lines."""
        video, log = recording.files
        clip = VideoClip.whole(read_video(video, limits))
        count = len(clip.times_ns)
        subject = recording.part.removeprefix("player_")
        first = next(_numbered(log))
        every = (line for _, line in _numbered(log))
        parts = parts_of(every, subject) if subject else [ActionPart.choice("", [1])]
        taken = np.full((count, len(parts)), np.nan)
        rewards = np.zeros(count, np.float32)
        told = 0
        for step, line in _numbered(log):
            told += 1
            said = said_of(line, subject)
            if step < count and said is not None:
                taken[step] = [_number(said.get(part.path), part.path, step) for part in parts]
                rewards[step] = _reward(line, subject)
            if 0 < step <= count and is_number(line.get("prev_reward")):
                rewards[step - 1] = line["prev_reward"]
        if told < MIN_COVERAGE * count or count < MIN_COVERAGE * told:
            raise RefusedInput(
                Reason.LOG_COVERAGE, f"{told} lines for {count} frames: do they belong together?"
            )
        if subject:
            space, values = space_of(parts, "dmlab2d"), _values(parts, taken)
        else:
            space, values = self._numbered_actions("combo" in first[1], taken[:, 0])
        return clip.opened(
            FrameData(
                actions=per_frame_track(space, clip.times_ns, clip.end_ns, values),
                rewards=rewards,
            ),
            notes=_notes(told, count, np.isnan(taken).all(axis=1)),
        )

    def _numbered_actions(
        self, is_procgen: bool, codes: NDArray[np.float64]
    ) -> tuple[ActionSpace, NDArray[np.float64]]:
        """The space of a single agent's numbers, and the actions in it."""
        if is_procgen:
            space, places = load_space("procgen15"), np.arange(15)
        elif self.action_names:
            space = load_space("atari18")
            places = np.array([space.index(name) for name in self.action_names], np.int64)
        else:
            space, places = load_space("discrete18"), np.arange(18)
        numbered = _values([ActionPart.choice("", [len(places)])], codes[:, None])
        values = np.zeros((len(codes), space.size))
        values[:, places] = numbered
        values[np.isnan(codes)] = np.nan
        return space, values


def _video_of(log: Path, present: set[Path]) -> Path | None:
    """The video that a file of lines belongs to by its name."""
    if log.name == LOG:
        stem = VIDEO
    elif log.name.endswith(f".{LOG}"):
        stem = log.name.removesuffix(f".{LOG}")
    else:
        return None
    for ending in sorted(VIDEO_ENDINGS):
        video = log.with_name(f"{stem}{ending}")
        if video in present and sniff(video) == "video":
            return video
    return None


def _numbered(log: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines with the numbers of their steps.

    Raises:
        RefusedInput: LOG_EMPTY, no lines; LOG_CLOCK, steps that do not grow; TOO_LARGE.
    """
    last = -1
    for number, line in enumerate(json_lines(log)):
        step = line.get("step")
        if not isinstance(step, int) or isinstance(step, bool) or step <= last:
            raise RefusedInput(
                Reason.LOG_CLOCK, f"{log.name}: step {str(step)[:40]} after step {last}"
            )
        if number >= MOST_LINES:
            raise RefusedInput(Reason.TOO_LARGE, f"{log.name}: over {MOST_LINES} lines")
        last = step
        yield step, line
    if last < 0:
        raise RefusedInput(Reason.LOG_EMPTY, f"{log.name}: no lines")


def _agents(log: Path) -> list[str]:
    """Everybody in a log; of one that is damaged, those before the damage: `open` says where."""

    def lines() -> Iterator[dict[str, Any]]:
        try:
            yield from json_lines(log)
        except RefusedInput:
            return

    return agents_of(lines(), MOST_PLAYERS)


def _notes(told: int, count: int, unknown: NDArray[np.bool_]) -> tuple[str, ...]:
    """What a person should know: lines and frames that differ in number, and who was gone."""
    notes = [] if told == count else [f"{told} lines for {count} frames"]
    gone = int(unknown[:told].sum())
    if gone:
        notes.append(f"nothing is told of the player in {gone} frames: its actions are not known")
    return tuple(notes)


def _number(value: object, name: str, step: int) -> float:
    if value is None:
        return np.nan
    if not is_number(value):
        raise RefusedInput(
            Reason.LOG_TYPE, f"step {step}: {name or 'action'} is no number: {ascii(value)[:40]}"
        )
    return float(value)


def _values(parts: list[ActionPart], taken: NDArray[np.float64]) -> NDArray[np.float64]:
    """Actions in the space of the parts, float64 [N, A]: a row of NaN where one is not known.

    Raises:
        RefusedInput: LOG_TYPE, a choice that is no whole number; LOG_RANGE, one that there is not.
    """
    known = ~np.isnan(taken).any(axis=1)
    arrays: dict[str, NDArray[Any]] = {}
    for part, column in zip(parts, taken[known].T, strict=True):
        if part.kind == "choice" and (np.abs(column) < 1e9).all() and (column % 1 == 0).all():
            arrays[part.path] = column.astype(np.int64)
        else:
            arrays[part.path] = column
    values = np.full((len(taken), sum(part.size for part in parts)), np.nan)
    values[known] = values_of(parts, arrays)
    return values


def _reward(line: Mapping[str, Any], subject: str) -> float:
    """The reward of a player in a step; 0 where there is none."""
    said = line.get("reward")
    if isinstance(said, dict):
        said = said.get(f"{subject}.REWARD", said.get(subject))
    return float(said) if is_number(said) else 0.0
