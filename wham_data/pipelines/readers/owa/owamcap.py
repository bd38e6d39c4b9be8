"""`owamcap`: desktop recordings of Open World Agents: an .mcap, and often a video beside it.

    <session>.mcap    JSON messages: screens, keyboard, mouse, raw mouse, states once a second
    <session>.mkv     the screens, at the times that their messages name; or pictures in the messages

The clock of everything is the messages' log_time. A message of a screen names a time of the video;
its frame is the one at that time, never the one of that number. What is logged at t acts after the
frame on screen at t. All generations of the schemas are read.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np

from wham_data.files.found import VIDEO_ENDINGS, sniff
from wham_data.files.json_lines import json_value
from wham_data.files.mcap import MessagesAgain, profile_of, read_messages
from wham_data.pipelines.readers.kit.open_recordings import (
    Picture,
    PicturelessRecording,
    PictureRecording,
    VideoClip,
    VideoRecording,
    audit_clock,
    check_length,
    open_clips,
    read_video,
)
from wham_data.pipelines.readers.owa.inputs import Event, Sources, input_track
from wham_data.pipelines.readers.owa.start import by_time
from wham_data.pipelines.video import VideoIndex, VideoLimits, decode_image
from wham_data.schemas.clock import Index
from wham_data.schemas.errors import Reason, RefusedInput, plain_number
from wham_data.schemas.recording import ActionTrack, FrameData, Recording

PROFILE: Final = "owa"
SCREENS: Final = frozenset({"ScreenCaptured", "ScreenEmitted"})
INPUTS: Final = frozenset(
    {"KeyboardEvent", "KeyboardState", "MouseEvent", "MouseState", "RawMouseEvent"}
)
TOLERANCE_NS: Final = 2_000_000
"""Containers round times to a millisecond."""
MIN_COVERAGE: Final = 0.5
MOST_SCREENS: Final = 2_000_000
MOST_VIDEOS: Final = 1_000
_PICTURE: Final = re.compile(r"data:image/(?:png|jpe?g);base64,", re.ASCII)


@dataclass(frozen=True, slots=True)
class Screen:
    """A message of a screen.

    pts_ns   when its frame is shown in the video; None where it is in no video
    uri      what it says of where the picture is; "" for one that lies in the message
    place    of the message
    """

    time_ns: int
    pts_ns: int | None
    uri: str
    place: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Owamcap:
    """Reader of OWAMcap recordings."""

    name: ClassVar[str] = "owamcap"
    about: ClassVar[str] = "desktop recordings of Open World Agents: .mcap, often beside .mkv"
    order: ClassVar[int] = 210

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every MCAP file of the profile, with the videos that its screens name."""
        present = frozenset(files)
        for path in files:
            if profile_of(path) != PROFILE:
                continue
            yield Recording(path=path, files=(path, *_videos_of(path, present)), format=self.name)

    def open(
        self, recording: Recording, limits: VideoLimits
    ) -> VideoRecording | PictureRecording | PicturelessRecording:
        """Read all messages, and index the video."""
        path, *videos = recording.files
        log = _Log.read(path)
        actions, notes = log.track()
        if log.screens and videos:
            clips, more = clips_of(log.screens, videos, limits)
            return open_clips(clips, FrameData(actions=actions), notes=(*notes, *more))
        screens = _in_order(log.screens)
        embedded = [screen for screen in screens if not screen.uri]
        if actions is None and not embedded:
            raise RefusedInput(Reason.NO_FRAMES, f"{path.name}: neither pictures nor input")
        shown = embedded or screens
        times_ns = np.array([screen.time_ns for screen in shown], np.int64)
        if not len(times_ns) and actions is not None:
            times_ns = actions.times_ns
        last_ns = int(np.median(np.diff(times_ns))) if len(times_ns) > 1 else 1
        end_ns = int(times_ns[-1]) + last_ns
        check_length(len(times_ns), end_ns - int(times_ns[0]), limits)
        clock = audit_clock(times_ns)
        if not embedded:
            return PicturelessRecording(
                frame_times_ns=times_ns,
                frame_end_ns=end_ns,
                clock=clock,
                data=FrameData(actions=actions),
                notes=(*notes, "no video: actions only"),
            )

        def pictures(picks: Index) -> Iterator[Picture | None]:
            messages = MessagesAgain(path)
            for pick in picks.tolist():
                yield _embedded_picture(messages.data(embedded[pick].place))

        return PictureRecording(
            frame_times_ns=times_ns,
            frame_end_ns=end_ns,
            clock=clock,
            data=FrameData(actions=actions),
            notes=notes,
            pictures=pictures,
            limits=limits,
        )


@dataclass(frozen=True, slots=True)
class _Log:
    """What a first pass over the messages finds."""

    path: Path
    screens: list[Screen]
    sources: Sources
    start_ns: int
    end_ns: int
    lateness_ns: int

    @classmethod
    def read(cls, path: Path) -> _Log:
        screens: list[Screen] = []
        start_ns, end_ns, lateness_ns = 1 << 63, -1, 0

        def inputs() -> Iterator[Event]:
            nonlocal start_ns, end_ns, lateness_ns
            for event, place in _events(path):
                lateness_ns = max(lateness_ns, end_ns - event.time_ns)
                start_ns, end_ns = min(start_ns, event.time_ns), max(end_ns, event.time_ns)
                if event.kind in INPUTS:
                    yield event
                    continue
                screens.append(_screen(event, place))
                if len(screens) > MOST_SCREENS:
                    raise RefusedInput(
                        Reason.TOO_LARGE, f"{path.name}: over {MOST_SCREENS} screens"
                    )

        sources = Sources.of(inputs())
        if end_ns < 0:
            raise RefusedInput(Reason.LOG_EMPTY, f"{path.name}: no screens, keys or mouse in it")
        # MCAP promises no order in the file: log_time tells when each message was.
        screens.sort(key=lambda screen: screen.time_ns)
        return cls(path, screens, sources, start_ns, end_ns, lateness_ns)

    def track(self) -> tuple[ActionTrack | None, tuple[str, ...]]:
        """A second pass: the input, and what to tell of it; None where none was recorded."""
        if not self.sources.events:
            return None, ("no input was recorded",)
        written = (event for event, _ in _events(self.path) if event.kind in INPUTS)
        events = by_time(written, self.lateness_ns)
        actions, notes = input_track(events, self.sources, self.start_ns, self.end_ns)
        if self.lateness_ns:
            late = f"messages lie up to {plain_number(self.lateness_ns / 1e9)} s late in the file"
            notes = (*notes, f"{late}: taken by their log_time")
        return actions, notes


def _events(path: Path) -> Iterator[tuple[Event, tuple[int, int]]]:
    """The messages of screens and input, and where each lies."""
    for message in read_messages(path):
        kind = re.split(r"[./]", message.schema)[-1]
        if kind in SCREENS or kind in INPUTS:
            content = json_value(message.data, f"{path.name}, {kind}")
            if not isinstance(content, dict):
                raise RefusedInput(Reason.LOG_SYNTAX, f"{path.name}: a {kind} that is no object")
            yield Event(kind, message.log_time_ns, content), message.place


def _screen(event: Event, place: tuple[int, int]) -> Screen:
    """A screen as any generation tells it: `media_ref`, or `path` and `pts`."""
    media = event.content.get("media_ref")
    media = media if isinstance(media, dict) else {}
    uri = media.get("uri") or media.get("path") or event.content.get("path")
    uri = uri if isinstance(uri, str) else ""
    pts_ns = media.get("pts_ns", event.content.get("pts"))
    sound = isinstance(pts_ns, int) and 0 <= pts_ns < 1 << 62
    within = bool(_PICTURE.match(uri)) or isinstance(media.get("data"), str)
    return Screen(event.time_ns, pts_ns if sound else None, "" if within else uri[:4096], place)


def _videos_of(path: Path, present: frozenset[Path]) -> tuple[Path, ...]:
    """The videos beside a recording: those which its screens name, or that of its name.

    Of the name that a message holds only the last part counts: nothing outside the folder is read.
    """
    names: dict[str, None] = {}
    try:
        for event, place in _events(path):
            if event.kind in SCREENS:
                uri = _screen(event, place).uri
                if not uri:
                    break
                names[file_name(uri)] = None
                if len(names) > MOST_VIDEOS:
                    break
    except RefusedInput:
        pass  # `open` says why
    named = [path.parent / name for name in names]
    found = tuple(video for video in named if video in present and sniff(video) == "video")
    if found or not names:
        return found
    beside = (path.with_name(path.stem + ending) for ending in sorted(VIDEO_ENDINGS))
    return tuple(
        next(([video] for video in beside if video in present and sniff(video) == "video"), [])
    )


def file_name(uri: str) -> str:
    """The last part of the name that a message holds."""
    return re.split(r"[\\/]", uri)[-1]


def clips_of(
    screens: list[Screen], videos: list[Path], limits: VideoLimits
) -> tuple[tuple[VideoClip, ...], tuple[str, ...]]:
    """The frames of the videos that screens name, one video after the other.

    Args:
        screens: by time.
        videos: those that are there. A single one that no screen names is that of all screens.
        limits: what they may claim.

    Raises:
        RefusedInput: LOG_CLOCK, the screens of two videos lie between one another; as `on_log_clock`.
    """
    by_name: dict[str, list[Screen]] = {}
    for screen in screens:
        if screen.uri:
            by_name.setdefault(file_name(screen.uri), []).append(screen)
    if not by_name.keys() & {video.name for video in videos}:
        by_name = {videos[0].name: screens}
    notes: list[str] = []
    clips: list[VideoClip] = []
    there = {video.name: video for video in videos}
    for name, mine in by_name.items():
        if name not in there:
            notes.append(f"{len(mine)} screens are in {name}, which is not there: left out")
            continue
        clip, told = on_log_clock(read_video(there[name], limits), mine)
        notes += told
        if clips and int(clip.times_ns[0]) <= int(clips[-1].times_ns[-1]):
            raise RefusedInput(
                Reason.LOG_CLOCK,
                f"the screens of {clips[-1].index.path.name} and {name} lie between one another",
            )
        if clips:  # the last frame of a video stays until the next one begins
            end_ns = min(clips[-1].end_ns, int(clip.times_ns[0]))
            clips[-1] = replace(clips[-1], end_ns=end_ns)
        clips.append(clip)
    if len(clips) > 1:
        notes.append(f"{len(clips)} videos joined by log_time")
    return tuple(clips), tuple(notes)


def _in_order(screens: list[Screen]) -> list[Screen]:
    """Screens whose time is later than that of all before them."""
    kept: list[Screen] = []
    for screen in screens:
        if not kept or screen.time_ns > kept[-1].time_ns:
            kept.append(screen)
    return kept


def on_log_clock(index: VideoIndex, screens: list[Screen]) -> tuple[VideoClip, tuple[str, ...]]:
    """The frames of a video that messages tell of, each at the log_time of its message.

    A frame between them without a message is timed as its neighbours are; those before the first
    and after the last (a recorder's stray last frame) are left out.

    Raises:
        RefusedInput: LOG_COVERAGE, most messages have no frame in the video.
    """
    known = [screen for screen in screens if screen.pts_ns is not None]
    pts_ns = np.array([screen.pts_ns for screen in known], np.int64)
    logged_ns = np.array([screen.time_ns for screen in known], np.int64)
    after = np.searchsorted(index.times_ns, pts_ns)
    last = len(index.times_ns) - 1
    nearest = np.stack([np.maximum(after - 1, 0), np.minimum(after, last)])
    away = np.abs(index.times_ns[nearest] - pts_ns)
    places = np.where(away[0] < away[1], nearest[0], nearest[1])
    found = away.min(axis=0) <= TOLERANCE_NS
    if not found.any() or found.sum() < MIN_COVERAGE * len(screens):
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"{found.sum()} of {len(screens)} screens have their frame in {index.path.name}",
        )
    kept: list[tuple[int, int]] = []
    for place, time_ns in sorted(
        zip(places[found].tolist(), logged_ns[found].tolist(), strict=True)
    ):
        if not kept or (place > kept[-1][0] and time_ns - kept[-1][1] >= place - kept[-1][0]):
            kept.append((place, time_ns))
    frames, times_ns = (np.array(column, np.int64) for column in zip(*kept, strict=True))
    first, stop = int(frames[0]), int(frames[-1]) + 1
    inside = index.times_ns[first:stop]
    between = np.interp(inside, index.times_ns[frames], times_ns - times_ns[0])
    all_ns = times_ns[0] + np.round(between).astype(np.int64)
    all_ns[frames - first] = times_ns
    missing, spare = len(screens) - len(kept), len(index.times_ns) - (stop - first)
    notes = [f"{missing} screens without a frame of their own: left out"] if missing else []
    notes += [f"{spare} frames at the ends of the video that no message tells of"] if spare else []
    between_count = stop - first - len(kept)
    notes += [f"{between_count} frames timed by their neighbours"] if between_count else []
    end_ns = int(all_ns[-1]) + (int(np.median(np.diff(all_ns))) if len(all_ns) > 1 else 1)
    return VideoClip(index, first, all_ns, end_ns), tuple(notes)


def _embedded_picture(data: bytes) -> Picture | None:
    """The picture in a message; None for one that cannot be decoded."""
    content: Any = json_value(data, "a screen")
    media = content.get("media_ref") or {}
    text = media.get("data") or _PICTURE.sub("", str(media.get("uri")), count=1)
    try:
        return decode_image(base64.b64decode(str(text), validate=True))
    except (RefusedInput, binascii.Error, ValueError):
        return None
