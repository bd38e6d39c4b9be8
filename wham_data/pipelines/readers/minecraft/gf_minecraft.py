"""`gf-minecraft`: the GameFactory dataset, Minecraft played by a random agent.

    <root>/video/seed_S_part_P.mp4
    <root>/metadata/seed_S_part_P.json     {"biome": ..., "actions": {"0": {...}, "1": {...}, ...}}
    <root>/annotation.csv                  captions of stretches of the videos

Entry i of `actions` led to frame i, and tells where the player then is; entry 0 means nothing. The
keys are texts, so "10" stands before "2" in a file that was sorted by them: they are read as numbers.
Micro-World keeps to the same layout, so its reader shares all of this.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.files.found import Listing, open_regular, read_whole, sniff
from wham_data.files.json_lines import read_json
from wham_data.pipelines.readers.kit.frame_actions import per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import VideoClip, VideoRecording, read_video
from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.readers.minecraft.minerl import MIN_COVERAGE
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import load_space
from wham_data.schemas.declarations import is_number
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Provenance, Recording

DEGREES_PER_DELTA: Final = 15.0
METADATA_FOLDERS: Final = ("metadata", "metadata-detection")
CAPTIONS: Final = "annotation.csv"
CAPTION_FILES: Final = (CAPTIONS, "video_captions_v0.csv")
"""GameFactory's and Micro-World's; the latter has its names in lower case, and one column more."""
CAPTION_COLUMNS: Final = ("Original video name", "Start frame index", "End frame index", "Prompt")
HEAD_BYTES: Final = 64 << 10
MOST_CSV_BYTES: Final = 16 << 20
MOST_TABLE_BYTES: Final = 16 << 20
MOST_CAPTIONS: Final = 10_000

SPACE: Final = load_space("microworld9")
KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "ws": ("", "w", "s"),
    "ad": ("", "a", "d"),
    "scs": ("", "space", "shift", "ctrl"),
}
MOTIONS: Final = {"yaw_delta": "camera_yaw", "pitch_delta": "camera_pitch"}
_FRAME: Final = re.compile(r"0|[1-9]\d{0,6}", re.ASCII)
_PART: Final = re.compile(r"frames_(\d+)_(\d+)", re.ASCII)
_BIOME: Final = re.compile(rb'"biome"\s*:\s*"([\w \-]{1,80})"')


def recordings_option() -> Any:
    """The option that says what a recording is."""
    return choice(
        "videos", "captions", about="a recording is a whole video, or each captioned stretch of one"
    )


@dataclass(frozen=True, slots=True)
class GfMinecraft:
    """Reader of the GameFactory dataset."""

    name: ClassVar[str] = "gf-minecraft"
    about: ClassVar[str] = "GameFactory's Minecraft: video/NAME.mp4 and metadata/NAME.json"
    order: ClassVar[int] = 160
    recordings: str = recordings_option()

    def spans(self, folder: Path, listing: Listing) -> bool:  # noqa: ARG002  by the names alone
        """Whether there is a folder of tables beside those of the videos."""
        return not set(METADATA_FOLDERS).isdisjoint(listing.folders)

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every video with a table of GF-Minecraft's actions."""
        for clip in clips_in(files):
            yield from clip.recordings(self.name, self.recordings)

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Read actions and captions and index the video."""
        return open_clip(recording, limits)


@dataclass(frozen=True, slots=True)
class GameClip:
    """A video with its table of actions, as found.

    captions  the file of captions; None where there is none
    head      the first bytes of the table
    """

    video: Path
    metadata: Path
    captions: Path | None
    head: bytes

    def recordings(
        self, format: str, divided: str, license: str | None = None
    ) -> Iterator[Recording]:
        """The clip as one recording, or its captioned stretches if `divided` is "captions"."""
        biome = _BIOME.search(self.head)
        stretches: list[Caption] = []
        if divided == "captions" and self.captions is not None:
            with suppress(RefusedInput):  # said when it is opened
                stretches = read_captions(self.captions, self.video.name)
        for part in dict.fromkeys(f"frames_{s.first}_{s.last}" for s in stretches) or ("",):
            yield Recording(
                path=self.video,
                files=(self.video, self.metadata, *([self.captions] if self.captions else ())),
                format=format,
                provenance=Provenance(
                    game="Minecraft",
                    map=biome[1].decode("ascii") if biome else None,
                    match=self.video.stem,
                    license=license,
                ),
                part=part,
            )


def clips_in(files: tuple[Path, ...]) -> Iterator[GameClip]:
    """Every video with a table of actions, in a folder beside its own or in its own."""
    present = set(files)
    for video in files:
        if video.suffix != ".mp4":
            continue
        root = video.parent.parent
        tables = [root / folder / f"{video.stem}.json" for folder in METADATA_FOLDERS]
        for metadata in (*tables, video.with_suffix(".json")):
            if metadata in present and (head := _head(metadata)) and sniff(video) == "video":
                beside = metadata.parent == video.parent
                folder = video.parent if beside else root
                captions = [folder / name for name in CAPTION_FILES if folder / name in present]
                yield GameClip(video, metadata, next(iter(captions), None), head)
                break


def _head(metadata: Path) -> bytes:
    """The first bytes of a table of GF-Minecraft's actions, b"" for another file."""
    try:
        with open_regular(metadata) as file:
            head = file.read(HEAD_BYTES)
    except RefusedInput:
        return b""
    return head if all(f'"{key}"'.encode() in head for key in ("actions", *KEYS)) else b""


def open_clip(recording: Recording, limits: VideoLimits) -> VideoRecording:
    """Open what `GameClip.recordings` gave.

    Raises:
        RefusedInput: with the reason it goes to quarantine for.
    """
    video, metadata, *captions = recording.files
    index = read_video(video, limits)
    frames = len(index.times_ns)
    entries = read_entries(metadata)
    states = states_of(entries, frames)
    said = read_captions(captions[0], video.name) if captions else []
    part = _PART.fullmatch(recording.part)
    first, last = (int(part[1]), int(part[2])) if part else (0, frames - 1)
    if part:
        said = [caption for caption in said if (caption.first, caption.last) == (first, last)]
    clip = VideoClip.numbered(index, first, last + 1)
    here = slice(first, first + len(clip.times_ns))
    # Entry k + 1 is what was done after frame k; after the last frame nothing is known.
    after = np.vstack([actions_of(entries, frames)[1:], np.full(SPACE.size, np.nan)])
    opened = clip.opened(
        FrameData(
            actions=per_frame_track(SPACE, clip.times_ns, clip.end_ns, after[here]),
            states=states[here],
            texts=captions_per_frame(said, frames)[here] if captions else None,
        ),
        notes=_coverage(entries, frames),
    )
    if first + len(clip.times_ns) == frames:
        # Entries beyond the video's end speak of frames that are not there.
        beyond = sum(1 for number in entries if number >= frames)
        expected = opened.clock.frames_expected + beyond
        opened.clock = replace(opened.clock, frames_expected=expected)
    return opened


def _coverage(entries: Mapping[int, Any], frames: int) -> tuple[str, ...]:
    """Notes on frames without an entry and entries without a frame.

    Raises:
        RefusedInput: LOG_COVERAGE, they do not belong together.
    """
    matched = sum(1 for number in entries if number < frames)
    if matched < MIN_COVERAGE * max(frames, len(entries)):
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"{len(entries)} entries for {frames} frames: do they belong together?",
        )
    notes = []
    if matched < frames:
        notes.append(f"{frames - matched} frames without an entry: what led to them is not known")
    if matched < len(entries):
        notes.append(f"{len(entries) - matched} entries beyond the last frame: not taken")
    return tuple(notes)


def read_entries(path: Path) -> dict[int, dict[str, Any]]:
    """The entries of a table by the number of their frame.

    Raises:
        RefusedInput: LOG_SYNTAX, LOG_TYPE or LOG_EMPTY.
    """
    content = read_json(path, MOST_TABLE_BYTES)
    actions = content.get("actions") if isinstance(content, dict) else None
    if not isinstance(actions, dict):
        raise RefusedInput(Reason.LOG_TYPE, f"{path.name}: no table `actions`")
    entries = {}
    for key, entry in actions.items():
        if not _FRAME.fullmatch(key) or not isinstance(entry, dict):
            raise RefusedInput(
                Reason.LOG_TYPE, f"{path.name}: actions has {key[:40]!r}, no table of a frame"
            )
        entries[int(key)] = entry
    if not entries:
        raise RefusedInput(Reason.LOG_EMPTY, f"{path.name}: no actions")
    return entries


def actions_of(entries: Mapping[int, Mapping[str, Any]], frames: int) -> NDArray[np.float64]:
    """What led to each frame, in the space `microworld9`, float64 [frames, 9]; NaN: not known.

    Raises:
        RefusedInput: LOG_COLUMN, LOG_TYPE or LOG_RANGE, naming the entry.
    """
    rows = np.full((frames, SPACE.size), np.nan)
    for number, entry in entries.items():
        if not 0 < number < frames:
            continue
        rows[number] = 0.0
        for name, keys in KEYS.items():
            code = entry.get(name)
            if not is_number(code) or code not in range(len(keys)):
                raise RefusedInput(
                    Reason.LOG_RANGE,
                    f"entry {number}: {name} is {str(code)[:40]}, expected 0 to {len(keys) - 1}",
                )
            if code:
                rows[number, SPACE.index(keys[int(code)])] = 1.0
        for name, dimension in MOTIONS.items():
            # The keyboard-only part of the dataset need not have them: nothing moved.
            motion = entry.get(name, 0.0)
            if not is_number(motion):
                raise RefusedInput(
                    Reason.LOG_TYPE, f"entry {number}: {name} is {str(motion)[:40]}, no number"
                )
            rows[number, SPACE.index(dimension)] = motion * DEGREES_PER_DELTA
    return rows


def states_of(entries: Mapping[int, Mapping[str, Any]], frames: int) -> NDArray[np.float32]:
    """Where the player is at each frame, float32 [frames, 5 or 7]; NaN where the source has nothing.

    x, y, z, pitch and yaw in degrees; then, where the table has them, collision and jump_invalid.
    """
    found = any("collision" in entry or "jump_invalid" in entry for entry in entries.values())
    more = ("collision", "jump_invalid") if found else ()
    states = np.full((frames, 5 + len(more)), np.nan, np.float32)
    for number, entry in entries.items():
        if not 0 < number < frames:
            continue
        place = entry.get("pos")
        place = place if isinstance(place, list) and len(place) == 3 else [None] * 3
        told = [*place, *(entry.get(name) for name in ("pitch", "yaw", *more))]
        numbers = [value if is_number(value) else np.nan for value in told]
        states[number] = np.clip(numbers, -1e30, 1e30)
    return states


@dataclass(frozen=True, slots=True)
class Caption:
    """The text of frames first to last, both included."""

    first: int
    last: int
    text: str


def read_captions(path: Path, video: str) -> list[Caption]:
    """The captions of one video, by their first frame.

    Raises:
        RefusedInput: METADATA, the file is damaged; LOG_ENCODING, it is no UTF-8.
    """
    try:
        text = read_whole(path, MOST_CSV_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RefusedInput(Reason.LOG_ENCODING, f"{path.name}: not UTF-8") from None
    found: list[Caption] = []
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows.fieldnames = [name.lower() for name in rows.fieldnames or ()]
        columns = [column.lower() for column in CAPTION_COLUMNS]
        if not set(columns) <= set(rows.fieldnames):
            raise ValueError(f"expected the columns {', '.join(CAPTION_COLUMNS)}")
        for row in rows:
            name, first, last, prompt = (row[column] for column in columns)
            if name != video:
                continue
            if not (_FRAME.fullmatch(first or "") and _FRAME.fullmatch(last or "")):
                raise ValueError(f"frames {first!r} to {last!r} of {video}")
            found.append(Caption(int(first), int(last), prompt or ""))
            if len(found) > MOST_CAPTIONS:
                raise ValueError(f"over {MOST_CAPTIONS} captions of {video}")
    except (csv.Error, ValueError) as error:
        raise RefusedInput(Reason.METADATA, f"{path.name}: {str(error)[:200]}") from None
    return sorted(found, key=lambda caption: (caption.first, caption.last))


def captions_per_frame(captions: list[Caption], frames: int) -> list[str | None]:
    """The caption of each frame; where several hold, the one that began last."""
    texts: list[str | None] = [None] * frames
    for caption in captions:
        stop = min(caption.last + 1, frames)
        texts[caption.first : stop] = [caption.text] * max(0, stop - caption.first)
    return texts
