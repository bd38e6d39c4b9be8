"""`p2p`: Elefant's Pixels2Play recordings, each a small video and protobuf annotations.

    <id>/192x192.mp4          20 frames per second; or video.mp4
    <id>/annotation.proto     a binary VideoAnnotation, an annotation for each frame

Annotation i is the input that led to frame i, so annotation i + 1 acts after frame i. The action is
that of the system (an agent or a script) if there is one, otherwise that of the user. If neither is
known, the action is unknown.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import open_regular, read_whole, sniff
from wham_data.files.messages.protobuf import Message, fields_of
from wham_data.files.wire_format import BYTES, VARINT
from wham_data.pipelines.readers.kit.frame_actions import even_times, per_frame_track
from wham_data.pipelines.readers.kit.keys.names import key_named
from wham_data.pipelines.readers.kit.open_recordings import (
    PicturelessRecording,
    VideoClip,
    VideoRecording,
    audit_clock,
    check_length,
    read_video,
)
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Provenance, Recording, RefusedFile

METADATA, FRAMES, VERSION = 2, 3, 6
USER_ACTION, FRAME_TEXTS, SYSTEM_ACTION = 1, 7, 6
HEAD_BYTES: Final = 1 << 16
MOST_BYTES: Final = 256 << 20
MOST_TEXT: Final = 1000
MIN_COVERAGE: Final = 0.5
RATE: Final = 20.0
SPACE: Final = load_space("p2p")
MOUSE_BUTTONS: Final = {
    "0": "mouse_left",
    "1": "mouse_right",
    "2": "mouse_middle",
    "3": "mouse_back",
    "4": "mouse_forward",
}
PAD_BUTTONS: Final = dict(
    enumerate(
        ("pad_south", "pad_north", "pad_east", "pad_west", "pad_up", "pad_down", "pad_left",
         "pad_right", "pad_start", "pad_select", "pad_left_bumper", "pad_right_bumper"),
        start=1,
    )
)  # fmt: skip
_PLACE: Final = {name: place for place, name in enumerate(SPACE.names)}
_SMALL: Final = re.compile(r"\d{2,4}x\d{2,4}\.mp4", re.ASCII)


@dataclass(frozen=True, slots=True)
class P2p:
    """Reader of Pixels2Play recordings."""

    name: ClassVar[str] = "p2p"
    about: ClassVar[str] = "Elefant's P2P recordings: .mp4 beside annotation.proto"
    order: ClassVar[int] = 200

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every file of annotations, with the video in its folder if there is one."""
        videos: dict[Path, list[Path]] = {}
        for path in files:
            if _SMALL.fullmatch(path.name) or path.name == "video.mp4":
                videos.setdefault(path.parent, []).append(path)
        for path in files:
            metadata = _metadata(path) if path.suffix == ".proto" else None
            if metadata is None:
                continue
            beside = [video for video in videos.get(path.parent, []) if sniff(video) == "video"]
            try:
                provenance = _provenance(metadata)
            except RefusedInput as why:
                yield RefusedFile(path, why)
                continue
            yield Recording(
                path=(beside or [path])[0],
                files=(*beside[:1], path),
                format=self.name,
                provenance=provenance,
                companions=tuple(beside[1:]),
            )

    def open(
        self, recording: Recording, limits: VideoLimits
    ) -> VideoRecording | PicturelessRecording:
        """Read the annotations and index the video."""
        *videos, path = recording.files
        annotation = Message.parse(read_whole(path, MOST_BYTES))
        rate = annotation.message(METADATA).real(5) or RATE
        if not 1 <= rate <= 1000:
            raise RefusedInput(Reason.METADATA, f"{path.name}: {rate:g} frames per second")
        labels = _Labels.read(annotation, rate)
        count = len(labels.rows)
        if not count:
            raise RefusedInput(Reason.LOG_EMPTY, f"{path.name}: no frame is annotated")
        if not videos:
            times_ns, end_ns = even_times(count, Fraction(rate).limit_denominator(1001))
            check_length(count, end_ns, limits)
            return PicturelessRecording(
                frame_times_ns=times_ns,
                frame_end_ns=end_ns,
                clock=audit_clock(times_ns),
                data=FrameData(
                    actions=per_frame_track(SPACE, times_ns, end_ns, labels.rows, leads=True),
                    texts=labels.texts,
                ),
                notes=(*labels.notes, "no video: actions only"),
            )
        clip = VideoClip.whole(read_video(videos[0], limits))
        frames = len(clip.times_ns)
        if min(frames, count) < MIN_COVERAGE * max(frames, count):
            raise RefusedInput(Reason.LOG_COVERAGE, f"{count} annotations for {frames} frames")
        notes = list(labels.notes)
        if frames != count:
            notes.append(f"{count} annotations for {frames} frames: counted from the first")
        rows = np.full((frames, SPACE.size), np.nan)
        rows[:count] = labels.rows[:frames]
        texts = [*labels.texts[:frames], *[None] * (frames - count)]
        return clip.opened(
            FrameData(
                actions=per_frame_track(SPACE, clip.times_ns, clip.end_ns, rows, leads=True),
                texts=texts if any(texts) else None,
            ),
            notes=tuple(notes),
        )


def _metadata(path: Path) -> Message | None:
    """The metadata of a file that begins like a VideoAnnotation; None for any other file.

    The metadata is at the beginning of the file, so only that part is read.
    """
    try:
        with open_regular(path) as file:
            head = memoryview(file.read(HEAD_BYTES))
        number, wire, value = next(fields_of(head))
        if (number, wire) == (METADATA, BYTES) and not isinstance(value, int):
            return Message.parse(value)
    except (RefusedInput, StopIteration):
        return None
    known = (number, wire) in ((FRAMES, BYTES), (VERSION, VARINT))
    return Message.parse(b"") if known else None


def _provenance(metadata: Message) -> Provenance:
    env = metadata.message(6)
    game = "/".join(filter(None, (env.text(1), env.text(2))))
    return Provenance(game=game[:MOST_TEXT] or None, player=metadata.text(3)[:MOST_TEXT] or None)


@dataclass(frozen=True, slots=True)
class _Labels:
    """The content of the annotations.

    rows   float64 [N, A]  the action that led to each frame, NaN if it is unknown
    texts  the instruction to the player at each frame
    """

    rows: NDArray[np.float64]
    texts: list[str | None]
    notes: tuple[str, ...]

    @classmethod
    def read(cls, annotation: Message, rate: float) -> _Labels:
        """All annotations, one after the other."""
        rows: list[NDArray[np.float64]] = []
        spans: list[tuple[int, float, str]] = []
        strange: Counter[str] = Counter()
        unknown = by_system = 0
        for frame in annotation.messages(FRAMES):
            user, system = frame.message(USER_ACTION), frame.message(SYSTEM_ACTION)
            by_system += _is_known(system)
            if _is_known(system) or _is_known(user):
                rows.append(_action(system if _is_known(system) else user, strange))
            else:
                unknown += 1
                rows.append(np.full(SPACE.size, np.nan))
            for instruction in frame.messages(FRAME_TEXTS):
                if instruction.text(1):
                    spans.append(
                        (len(rows) - 1, instruction.real(3), instruction.text(1)[:MOST_TEXT])
                    )
                    break
        texts: list[str | None] = [None] * len(rows)
        for start, seconds, text in spans:
            lasts = int(seconds * rate) if math.isfinite(seconds) else 0
            stop = min(len(rows), start + max(1, lasts))
            texts[start:stop] = [text] * (stop - start)
        notes = [f"{unknown} frames without a known action"] if unknown else []
        notes += [f"{by_system} actions by the system, not the user"] if by_system else []
        if strange:
            names = ", ".join(name[:20] for name, _ in strange.most_common(5))
            notes.append(f"{strange.total()} presses of keys that have no place here: {names}")
        return cls(np.stack(rows) if rows else np.zeros((0, SPACE.size)), texts, tuple(notes))


def _is_known(action: Message) -> bool:
    return bool(action.integer(3))


def _action(action: Message, strange: Counter[str]) -> NDArray[np.float64]:
    """A LowLevelAction in the space `p2p`. `strange` counts keys that the space does not have."""
    row = np.zeros(SPACE.size)

    def put(name: str, value: float) -> None:
        row[_PLACE[name]] = value

    for key in action.message(2).texts(1):
        if name := key_named(key):
            put(name, 1.0)
        else:
            strange[key] += 1
    mouse, pad = action.message(4), action.message(5)
    for button in mouse.texts(9):
        if button in MOUSE_BUTTONS:
            put(MOUSE_BUTTONS[button], 1.0)
        else:
            strange[f"mouse {button}"] += 1
    for number, prefix in ((3, "mouse_d"), (4, "scroll_")):
        moved = mouse.message(number)
        put(f"{prefix}x", moved.integer(1))
        put(f"{prefix}y", moved.integer(2))
    buttons = pad.message(1)
    for number, name in PAD_BUTTONS.items():
        put(name, bool(buttons.integer(number)))
    for number, side in ((2, "left"), (3, "right")):
        stick = pad.message(number)
        put(f"pad_{side}_x", stick.real(1))
        put(f"pad_{side}_y", stick.real(2))
        put(f"pad_{side}_thumb", bool(stick.integer(3)))
        put(f"pad_{side}_trigger", pad.real(number + 2))
    return row
