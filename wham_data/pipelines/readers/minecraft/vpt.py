"""`vpt`: Minecraft as OpenAI's contractors recorded it, and whatever keeps to that layout.

    <version>/<alias>-<session>-<date>-<time>.mp4     640x360, 20 frames/s
    <version>/<alias>-<session>-<date>-<time>.jsonl   a line for each frame
    <version>/<alias>-<session>-<date>-<time>-options.json

Line k belongs to frame k, and what it tells acts after that frame. The recorder split a session
into files of five minutes; those that follow one another without a pause are one recording here.
Its quirks are mended as docs/formats/vpt.md tells: the attack button that starts stuck, the hotbar
that the wheel turns without a key, the cursor that menus show and the video does not, the scale of
the mouse in the menus of some versions, and lines without input.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import sniff
from wham_data.files.json_lines import end_objects, json_lines, read_json, torn_line
from wham_data.pipelines.readers.kit.frame_actions import per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import (
    VideoClip,
    VideoRecording,
    open_clips,
    read_video,
)
from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.readers.kit.placement import Placement
from wham_data.pipelines.readers.minecraft.cursor import draw_cursor
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import load_space
from wham_data.schemas.clock import Index
from wham_data.schemas.declarations import is_number
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Frames, Provenance, Recording

DEGREES_PER_COUNT: Final = 360 / 2400
GAME_HEIGHT: Final = 720
"""The cursor's place is given in pixels of the game's window, 1280x720."""
MENU_SCALE: Final = {"5.7": 0.5, "5.8": 0.5, "6.7": 2.0, "6.8": 2.0, "6.9": 2.0}
LONGEST_PAUSE_MS: Final = 500
MIN_COVERAGE: Final = 0.5
MOST_LINES: Final = 2_000_000
OPTIONS_ENDING: Final = "-options.json"
KEYS: Final = {
    "key.keyboard.escape": "ESC",
    "key.keyboard.s": "back",
    "key.keyboard.q": "drop",
    "key.keyboard.w": "forward",
    **{f"key.keyboard.{n}": f"hotbar.{n}" for n in range(1, 10)},
    "key.keyboard.e": "inventory",
    "key.keyboard.space": "jump",
    "key.keyboard.a": "left",
    "key.keyboard.d": "right",
    "key.keyboard.left.shift": "sneak",
    "key.keyboard.left.control": "sprint",
    "key.keyboard.f": "swapHands",
}
BUTTONS: Final = {0: "attack", 1: "use", 2: "pickItem"}
ATTACK: Final = 0

_NAME: Final = re.compile(r"(?P<alias>.+)-(?P<session>[0-9a-f]{12})-\d{8}-\d{6}", re.ASCII)
_VERSION: Final = re.compile(r"(\d+\.\d+)", re.ASCII)
_PLACE: Final = {name: place for place, name in enumerate(load_space("vpt").names)}


@dataclass(frozen=True, slots=True)
class _Segment:
    """A video with its lines, as listed."""

    files: tuple[Path, ...]
    session: str
    first_ms: float | None
    last_ms: float | None


@dataclass(frozen=True, slots=True)
class Vpt:
    """Reader of VPT's contractor recordings."""

    name: ClassVar[str] = "vpt"
    about: ClassVar[str] = "Minecraft recordings of VPT's contractors: .mp4 beside .jsonl"
    order: ClassVar[int] = 130
    cursor: str = choice("drawn", "none", about="the mouse cursor in menus, absent in the videos")

    def joins(self, stem: str) -> bool:
        """Whether a file is named as a segment of a session."""
        return _NAME.fullmatch(stem) is not None

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every run of segments: videos beside lines that tell of a mouse and a keyboard."""
        present = set(files)
        found = [segment for path in files if (segment := _segment_at(path, present))]
        for _, segments in groupby(found, key=lambda segment: segment.session):
            for run in runs_of(list(segments)):
                video = run[0].files[0]
                named = _NAME.fullmatch(video.stem)
                yield Recording(
                    path=video,
                    files=tuple(path for segment in run for path in segment.files),
                    format=self.name,
                    provenance=Provenance(
                        game="Minecraft",
                        match=video.stem,
                        player=named["alias"] if named else None,
                        license="MIT",
                    ),
                )

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Read the lines and index the videos."""
        clips: list[VideoClip] = []
        inputs: list[Inputs] = []
        notes: list[str] = []
        for video in [path for path in recording.files if path.suffix == ".mp4"]:
            index = read_video(video, limits)
            told = read_inputs(video.with_suffix(".jsonl"), _menu_scale(video, recording.files))
            count = min(len(told.rows), len(index.times_ns))
            if count < MIN_COVERAGE * max(len(told.rows), len(index.times_ns)):
                raise RefusedInput(
                    Reason.LOG_COVERAGE,
                    f"{len(told.rows)} lines for {len(index.times_ns)} frames of {video.name}",
                )
            if len(told.rows) != len(index.times_ns):
                notes.append(
                    f"{len(told.rows)} lines for {len(index.times_ns)} frames: "
                    f"the first {count} of each are taken"
                )
            notes += told.notes
            clip = VideoClip.numbered(index, 0, count)
            start_ns = int(clip.times_ns[0])
            if clips:
                start_ns, said = after_seam(clips[-1], inputs[-1].last_ms(), told.first_ms())
                notes += said
            clips.append(clip.shifted(start_ns - int(clip.times_ns[0])))
            inputs.append(told.first(count))
        times_ns, end_ns = np.concatenate([clip.times_ns for clip in clips]), clips[-1].end_ns
        if len(clips) > 1:
            notes.append(f"{len(clips)} segments joined")
        cursors = np.concatenate([each.cursors for each in inputs])

        def draw(frames: Frames, picks: Index, placement: Placement) -> None:
            height = clips[0].index.picture.display_size[1]
            for frame, (x, y) in zip(frames, cursors[picks] * (height / GAME_HEIGHT), strict=True):
                if np.isfinite(x):
                    draw_cursor(frame, int(x), int(y), placement)

        values = np.concatenate([each.rows for each in inputs])
        return open_clips(
            tuple(clips),
            FrameData(actions=per_frame_track(load_space("vpt"), times_ns, end_ns, values)),
            notes=tuple(notes),
            retouch=draw if self.cursor == "drawn" and np.isfinite(cursors).any() else None,
        )


def _segment_at(video: Path, present: set[Path]) -> _Segment | None:
    """The segment of a video with VPT's lines beside it."""
    log = video.with_suffix(".jsonl")
    if video.suffix != ".mp4" or log not in present or sniff(video) != "video":
        return None
    ends = end_objects(log)
    if ends is None or not {"mouse", "keyboard", "isGuiOpen"} <= set(ends[0]):
        return None
    options = video.with_name(f"{video.stem}{OPTIONS_ENDING}")
    files = (video, log, *([options] if options in present else []))
    named = _NAME.fullmatch(video.stem)
    session = f"{video.parent}/{named['alias']}-{named['session']}" if named else str(video)
    first, last = (end.get("milli") for end in ends)
    return _Segment(
        files, session, first if is_number(first) else None, last if is_number(last) else None
    )


def runs_of(segments: Sequence[_Segment]) -> list[list[_Segment]]:
    """The segments of a session, in runs without a pause, by the wall clock of their lines."""
    runs: list[list[_Segment]] = []
    for segment in segments:
        last_ms = runs[-1][-1].last_ms if runs else None
        if (
            last_ms is not None
            and segment.first_ms is not None
            and 0 < segment.first_ms - last_ms <= LONGEST_PAUSE_MS
        ):
            runs[-1].append(segment)
        else:
            runs.append([segment])
    return runs


def after_seam(before: VideoClip, last_ms: float, first_ms: float) -> tuple[int, tuple[str, ...]]:
    """When the first frame of a segment comes after the last one of the segment before it.

    By the wall clock of their lines: where pictures were dropped at the end of a segment, its frames
    alone would have the next one come too early. What the wall clock jitters within half a frame
    interval is none.

    Args:
        before: the frames of the segment before that have a line.
        last_ms, first_ms: the wall clock at the last of them and at the first of the next segment;
            NaN where it is not told.

    Returns:
        The instant on the clock of `before`, and what to tell of it.
    """
    last_ns = int(before.times_ns[-1])
    interval_ns = before.end_ns - last_ns
    apart_ms = first_ms - last_ms
    if not np.isfinite(apart_ms):
        return before.end_ns, ("no wall clock (`milli`) at the seam of two segments",)
    apart_ns = round(apart_ms * 1e6)
    if apart_ns <= 1.5 * interval_ns:
        return before.end_ns, ()
    note = f"{apart_ms:.0f} ms without a frame where two segments meet, by `milli`"
    return last_ns + apart_ns, (note,)


def _menu_scale(video: Path, files: tuple[Path, ...]) -> float:
    """What the mouse's motion in menus is multiplied by: it depends on the recorder's version."""
    options = video.with_name(f"{video.stem}{OPTIONS_ENDING}")
    said = read_json(options) if options in files else None
    version = said.get("version") if isinstance(said, dict) else None
    found = _VERSION.match(str(version or video.parent.name))
    return MENU_SCALE.get(found[1], 1.0) if found else 1.0


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the lines of a segment tell.

    rows     float64 [N, 25]  actions in the space `vpt`, NaN where a line has no sound input
    cursors  float64 [N, 2]   the cursor in pixels of the game's window, NaN where none is shown
    millis   float64 [N]      the wall clock, NaN where a line does not tell
    """

    rows: NDArray[np.float64]
    cursors: NDArray[np.float64]
    millis: NDArray[np.float64]
    notes: tuple[str, ...]

    def first(self, count: int) -> Inputs:
        """Of the first lines only."""
        return Inputs(self.rows[:count], self.cursors[:count], self.millis[:count], self.notes)

    def first_ms(self) -> float:
        """The wall clock of the first line that was taken."""
        return float(self.millis[0])

    def last_ms(self) -> float:
        """The wall clock of the last line that was taken."""
        return float(self.millis[-1])


@dataclass(slots=True)
class _Quirks:
    """What the recorder's quirks depend on from one line to the next."""

    stuck: bool = False
    hotbar: int | None = None
    stuck_lines: int = 0
    unknown_lines: int = 0
    wheel_turns: int = 0
    notes: list[str] = field(default_factory=list)


def read_inputs(path: Path, menu_scale: float) -> Inputs:
    """Actions and cursor, line by line.

    Args:
        path: a file of JSON lines.
        menu_scale: what the mouse's motion in menus is multiplied by.

    Raises:
        RefusedInput: it is no such file, or a line is damaged.
    """
    rows: list[NDArray[np.float64]] = []
    cursors: list[tuple[float, float]] = []
    millis: list[float] = []
    quirks = _Quirks()
    for number, line in enumerate(json_lines(path)):
        if number >= MOST_LINES:
            raise RefusedInput(Reason.TOO_LARGE, f"{path.name}: over {MOST_LINES} lines")
        rows.append(_action(line, number == 0, menu_scale, quirks))
        cursors.append(_cursor(line))
        milli = line.get("milli")
        millis.append(float(milli) if is_number(milli) else np.nan)
    if not rows:
        raise RefusedInput(Reason.LOG_EMPTY, f"{path.name}: no lines")
    notes = [
        f"{count} {what}"
        for count, what in (
            (quirks.stuck_lines, "lines with attack stuck from the start: taken as not pressed"),
            (quirks.wheel_turns, "changes of the hotbar by wheel: taken as its keys"),
            (quirks.unknown_lines, "lines without input: action not known"),
        )
        if count
    ]
    torn = torn_line(path)
    if torn is not None:
        notes.append(f"{torn} is torn: left out")
    at = np.array(cursors, np.float64)
    return Inputs(np.stack(rows), at, np.array(millis, np.float64), tuple(notes))


def _action(
    line: Mapping[str, Any], is_first: bool, menu_scale: float, quirks: _Quirks
) -> NDArray[np.float64]:
    """The action of one line."""
    row = np.zeros(len(_PLACE))
    mouse, keyboard = line.get("mouse"), line.get("keyboard")
    keys = keyboard.get("keys") if isinstance(keyboard, dict) else None
    pressed = mouse.get("buttons") if isinstance(mouse, dict) else None
    newly = mouse.get("newButtons") if isinstance(mouse, dict) else None
    motion = [mouse.get(axis) for axis in ("dy", "dx")] if isinstance(mouse, dict) else [None]
    sound = all(isinstance(each, list) for each in (keys, pressed, newly))
    if not sound or not all(is_number(each) for each in motion):
        quirks.unknown_lines += 1
        row[:] = np.nan
        return row
    assert keys is not None
    assert pressed is not None
    assert newly is not None

    if is_first:
        quirks.stuck = newly == [ATTACK]
    elif ATTACK in newly:
        quirks.stuck = False
    if quirks.stuck and ATTACK in pressed:
        quirks.stuck_lines += 1
        pressed = [button for button in pressed if button != ATTACK]
    down = {KEYS[key] for key in keys if isinstance(key, str) and key in KEYS}
    down |= {BUTTONS[b] for b in pressed if isinstance(b, int) and b in BUTTONS}
    hotbar = line.get("hotbar")
    if isinstance(hotbar, int) and 0 <= hotbar < 9:
        slot = f"hotbar.{hotbar + 1}"
        if quirks.hotbar is not None and hotbar != quirks.hotbar and slot not in down:
            quirks.wheel_turns += 1
            down.add(slot)
        quirks.hotbar = hotbar
    row[[_PLACE[name] for name in down]] = 1.0
    scale = DEGREES_PER_COUNT * (menu_scale if line.get("isGuiOpen") is True else 1.0)
    row[-2:] = [scale * float(each or 0.0) for each in motion]
    return row


def _cursor(line: Mapping[str, Any]) -> tuple[float, float]:
    """Where the cursor is shown; NaN where there is none."""
    mouse = line.get("mouse")
    if line.get("isGuiOpen") is True and isinstance(mouse, dict):
        x, y = mouse.get("x"), mouse.get("y")
        if is_number(x) and is_number(y) and max(abs(x), abs(y)) < 1e6:
            return float(x), float(y)
    return np.nan, np.nan
