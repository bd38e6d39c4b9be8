"""`owl-control`: what Wayfarer Labs' recorder writes: a video, a log of input events, and metadata.

    <session>/recording.mp4
    <session>/inputs.csv        timestamp,event_type,event_args
    <session>/metadata.json

Times are seconds since 1970; the event VIDEO_START is when the first frame was. What is logged at t acts
after the frame on screen at t. Keyboard and mouse are in the space `desktop`, a pad in `xinput`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Final

from wham_data.files.found import VIDEO_ENDINGS, sniff
from wham_data.files.json_lines import read_json
from wham_data.pipelines.readers.kit.open_recordings import VideoClip, VideoRecording, read_video
from wham_data.pipelines.readers.kit.options import choice, milliseconds_option
from wham_data.pipelines.readers.owl_events import (
    GAMEPAD,
    KEYBOARD_MOUSE,
    Events,
    is_owl_log,
    keyboard_mouse_track,
    pad_track,
    read_events,
    unfocused,
    without,
)
from wham_data.pipelines.video import VideoIndex, VideoLimits
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import Reason, RefusedInput, plain_number
from wham_data.schemas.recording import ActionTrack, FrameData, Provenance, Recording, RefusedFile

LOG, METADATA, VIDEO = "inputs.csv", "metadata.json", "recording"
FURTHEST_APART: Final = 0.1
"""Share by which the length of the video and what the log says of it may differ."""
MOST_LENGTHS_NS: Final = SECOND_NS // 2


@dataclass(frozen=True, slots=True)
class OwlControl:
    """Reader of owl-control's sessions."""

    name: ClassVar[str] = "owl-control"
    about: ClassVar[str] = "sessions of owl-control: recording.mp4 beside inputs.csv"
    order: ClassVar[int] = 215
    device: str = choice(
        "auto",
        "keyboard_mouse",
        "pad",
        about="which device's input is taken; auto: the one in use for longer",
    )
    offset_ms: Fraction = milliseconds_option(
        about="the log's time, in ms after VIDEO_START, at which the first frame was on screen",
        most_s=60,
    )

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every log of owl-control's with the video in its folder."""
        present = frozenset(files)
        for log in files:
            if log.name.lower() != LOG or not is_owl_log(log):
                continue
            video = _video_beside(log, files)
            if video is None:
                yield RefusedFile(
                    log,
                    RefusedInput(Reason.NOT_A_VIDEO, "a log of owl-control without recording.mp4"),
                )
                continue
            metadata = log.with_name(METADATA)
            there = metadata in present
            yield Recording(
                path=video,
                files=(video, log, *([metadata] if there else [])),
                format=self.name,
                provenance=_provenance(metadata) if there else Provenance(),
            )

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Index the video and read the events."""
        video, log, *_ = recording.files
        events = read_events(log)
        index = read_video(video, limits)
        start_ns, end_ns = _clock(events, index)
        track = self._track(events, end_ns)
        spans = unfocused(events, end_ns)
        away = list(without(track.values, track.times_ns, spans))
        offset_ns = round(self.offset_ms * 1_000_000)
        shift_ns = int(index.times_ns[0]) - start_ns - offset_ns
        track = replace(track, times_ns=track.times_ns + shift_ns, end_ns=track.end_ns + shift_ns)
        notes = list(events.notes)
        if away:
            lost_s = sum(stop - start for start, stop in spans) / SECOND_NS
            notes.append(
                f"another window had the input for {plain_number(lost_s)} s: actions not known"
            )
        if events.strange:
            names = ", ".join(name for name, _ in events.strange.most_common(5))
            notes.append(f"{events.strange.total()} events that have no place here: {names}")
        clip = VideoClip.whole(index)
        return clip.opened(
            FrameData(actions=track),
            notes=tuple(notes),
            offset_ns=round(self.offset_ms * 1_000_000),
        )

    def _track(self, events: Events, end_ns: int) -> ActionTrack:
        """The input of the device that is asked for, or in use for longer."""
        pad, keys = events.bins_of(GAMEPAD), events.bins_of(KEYBOARD_MOUSE)
        use_pad = pad > keys if self.device == "auto" else self.device == "pad"
        if pad and keys:
            taken, other = (
                ("pad", "keyboard and mouse") if use_pad else ("keyboard and mouse", "pad")
            )
            counts = (pad, keys) if use_pad else (keys, pad)
            notes = (
                f"input of {taken} ({counts[0] / 10:g} s of use) is taken, that of {other} "
                f"({counts[1] / 10:g} s) left out: --option device=NAME takes the other"
            )
            events.notes.append(notes)
        return pad_track(events, end_ns) if use_pad else keyboard_mouse_track(events, end_ns)


def _clock(events: Events, index: VideoIndex) -> tuple[int, int]:
    """When the first frame was and when the log ends, on the log's clock.

    Raises:
        RefusedInput: LOG_CLOCK, there are several starts, none at all, or the log speaks of a video
            of another length.
    """
    starts, ends = events.times_of("VIDEO_START"), events.times_of("VIDEO_END")
    if len(starts) > 1 or len(ends) > 1:
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"{len(starts)} VIDEO_START and {len(ends)} VIDEO_END for one video: which is its?",
        )
    end_ns = max([*events.times_of("END"), *ends, events.rows[-1].time_ns])
    if not starts:
        begun = events.times_of("START")
        if not begun:
            raise RefusedInput(
                Reason.LOG_CLOCK, "neither VIDEO_START nor START: when the video began is not known"
            )
        events.notes.append("no VIDEO_START: the video is taken to begin at START (a guess)")
        return begun[0], end_ns
    if ends:
        said_ns, video_ns = ends[0] - starts[0], index.end_ns - int(index.times_ns[0])
        apart_ns = abs(said_ns - video_ns)
        if apart_ns > max(FURTHEST_APART * video_ns, MOST_LENGTHS_NS):
            raise RefusedInput(
                Reason.LOG_CLOCK,
                f"VIDEO_START to VIDEO_END are {said_ns / SECOND_NS:.2f} s, the video lasts "
                f"{video_ns / SECOND_NS:.2f} s: do they belong together?",
            )
        if apart_ns > MOST_LENGTHS_NS:
            events.notes.append(
                f"VIDEO_START to VIDEO_END and the video differ by {apart_ns / SECOND_NS:.2f} s"
            )
    return starts[0], end_ns


def _video_beside(log: Path, files: tuple[Path, ...]) -> Path | None:
    """The video of a log: the one called recording, else the only one in its folder."""
    beside = [
        path
        for path in files
        if path.parent == log.parent
        and path.suffix.lower() in VIDEO_ENDINGS
        and sniff(path) == "video"
    ]
    named = [path for path in beside if path.stem.lower() == VIDEO]
    chosen = named or beside
    return chosen[0] if len(chosen) == 1 else None


def _provenance(metadata: Path) -> Provenance:
    """Game, player and session, as far as the metadata tell."""
    try:
        said: Any = read_json(metadata)
    except RefusedInput:
        return Provenance()
    if not isinstance(said, dict):
        return Provenance()

    def text(name: str) -> str | None:
        value = said.get(name)
        return value[:200] if isinstance(value, str) and value.strip() else None

    game = text("game_exe") or text("game")
    if game is not None and game.lower().endswith(".exe"):
        game = game[:-4]
    return Provenance(game=game, match=text("session_id"), player=text("hardware_id"))
