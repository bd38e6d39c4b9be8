"""`nitrogen`: NVIDIA's NitroGen labels, with videos that the user has downloaded.

    <video id>/<video id>_chunk_0000/metadata.json           the video, and the chunk's place in it
    <video id>/<video id>_chunk_0000/actions_raw.parquet     a row for each of its frames
    <video id>/<video id>_chunk_0000/<any name>.mp4          a clip of the chunk, or
    anywhere/<video id>.mp4                                  the whole video

Each row was read from a picture of the pad that the streamer shows in the frame. The row gives the
input that was already in effect when the frame began, so row i led to frame i. The picture of the
pad reveals the action, and is blackened. Videos may have any frame rate: rows are placed by time.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.corpus.storage.sources.folders import is_file, listed
from wham_data.files.found import VIDEO_ENDINGS, Listing, sniff
from wham_data.files.json_lines import read_json
from wham_data.files.parquet import (
    columns_of,
    numbers_of,
    opened_parquet,
    read_columns,
)
from wham_data.pipelines.readers.kit.open_recordings import (
    PicturelessRecording,
    Retouch,
    VideoClip,
    VideoRecording,
    audit_clock,
    check_length,
    open_clips,
    read_video,
)
from wham_data.pipelines.readers.kit.options import choice
from wham_data.pipelines.readers.kit.placement import Placement
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.actions import clamp, load_space
from wham_data.schemas.clock import SECOND_NS, Index, Nanos
from wham_data.schemas.declarations import is_number
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.paths import is_in_store
from wham_data.schemas.recording import (
    ActionTrack,
    FrameData,
    Frames,
    Provenance,
    Recording,
    RefusedFile,
)

LICENSE: Final = "CC-BY-NC-4.0"
LONGEST_S: Final = 1e6
MOST_RATE: Final = 1000
MOST_ROWS: Final = 1 << 20
MOST_PIXELS: Final = 1 << 20
SPACE: Final = load_space("nitrogen21")
BUTTONS: Final = SPACE.names[:17]
STICKS: Final = ("j_left", "j_right")
MOST_FOLDERS: Final = 64
"""So many folders are looked into for chunks."""
MOST_ENTRIES: Final = 1000
"""In the folders between there is little else than folders."""
DEEPEST_CHUNK: Final = 4
TABLES: Final = {"raw": "actions_raw.parquet", "processed": "actions_processed.parquet"}


@dataclass(frozen=True, slots=True)
class LabelledChunk:
    """The content of `metadata.json`.

    rows      number of frames that have labels
    overlay   left, top, right and bottom of the pad's picture, as fractions of the frame's size
    """

    video: str
    start_ns: int
    stop_ns: int
    rows: int
    game: str | None
    overlay: tuple[float, float, float, float] | None

    @classmethod
    def read(cls, path: Path) -> LabelledChunk | None:
        """The chunk of a `metadata.json`; None if the file describes something else.

        Raises:
            RefusedInput: METADATA, a value is invalid; and as for `read_json`.
        """
        metadata = read_json(path, 1 << 20)
        video = metadata.get("original_video") if isinstance(metadata, dict) else None
        if not isinstance(video, dict) or "chunk_size" not in metadata:
            return None
        start_s, stop_s = video.get("start_time"), video.get("end_time")
        rows, name, game = metadata["chunk_size"], video.get("video_id"), metadata.get("game")
        if not (is_number(start_s) and is_number(stop_s) and 0 <= start_s < stop_s < LONGEST_S):
            raise RefusedInput(
                Reason.METADATA, f"a chunk from {str(start_s)[:40]} to {str(stop_s)[:40]} s"
            )
        if not isinstance(rows, int) or not 0 < rows <= MOST_RATE * (stop_s - start_s):
            raise RefusedInput(
                Reason.METADATA, f"a chunk_size of {str(rows)[:40]} in {stop_s - start_s:g} s"
            )
        if not isinstance(name, str):
            raise RefusedInput(Reason.METADATA, "video_id is no text")
        return cls(
            video=name,
            start_ns=round(start_s * SECOND_NS),
            stop_ns=round(stop_s * SECOND_NS),
            rows=rows,
            game=game if isinstance(game, str) else None,
            overlay=_overlay(metadata, video),
        )

    @property
    def interval_ns(self) -> float:
        """Time from one row to the next."""
        return (self.stop_ns - self.start_ns) / self.rows


@dataclass(frozen=True, slots=True)
class NitroGen:
    """Reader of NitroGen's labels."""

    name: ClassVar[str] = "nitrogen"
    about: ClassVar[str] = "NVIDIA's NitroGen labels, beside videos of your own"
    order: ClassVar[int] = 190
    labels: str = choice("raw", "processed", about="which of the two tables of a chunk")
    overlay: str = choice("masked", "shown", about="the pad's picture that gives the action away")

    def spans(self, folder: Path, listing: Listing) -> bool:
        """Whether there are chunks below: the videos may be in any other folder."""
        looked_at = sorted(listing.folders)[:MOST_FOLDERS]
        return any(_leads_to_chunk(folder / name) for name in looked_at)

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every chunk with a table. Its video is found by name."""
        videos: dict[str, list[Path]] = {}
        for path in files:
            if path.suffix.lower() in VIDEO_ENDINGS:
                videos.setdefault(path.stem, []).append(path)
                videos.setdefault(str(path.parent), []).append(path)
        present = frozenset(files)
        for path in files:
            tables = {name: path.with_name(table) for name, table in TABLES.items()}
            if path.name != "metadata.json" or present.isdisjoint(tables.values()):
                continue
            try:
                chunk = LabelledChunk.read(path)
            except RefusedInput as why:
                yield RefusedFile(path, why)
                continue
            there = {n: t for n, t in tables.items() if t in present and "j_left" in columns_of(t)}
            if chunk is not None and there:
                yield self._recording(chunk, path, there, videos)

    def _recording(
        self,
        chunk: LabelledChunk,
        metadata: Path,
        tables: Mapping[str, Path],
        videos: Mapping[str, list[Path]],
    ) -> Recording:
        table = tables.get(self.labels, next(iter(tables.values())))
        folder = metadata.parent
        clips = videos.get(str(folder), []) or videos.get(folder.name, [])
        video = next(filter(_is_video, clips or videos.get(chunk.video, [])), None)
        return Recording(
            path=video or table,
            files=(*((video,) if video else ()), table, metadata),
            format=self.name,
            provenance=Provenance(game=chunk.game, match=chunk.video, license=LICENSE),
            companions=tuple(other for other in tables.values() if other != table),
            part=folder.name if video and not _is_clip(video, chunk) else "",
        )

    def open(
        self, recording: Recording, limits: VideoLimits
    ) -> VideoRecording | PicturelessRecording:
        """Read the labels, and index the video if there is one."""
        *videos, table, metadata = recording.files
        chunk = LabelledChunk.read(metadata)
        assert chunk is not None
        rows = _rows(table)
        notes = [] if table.name == TABLES[self.labels] else [f"labels of {table.name}"]
        if len(rows) != chunk.rows:
            notes.append(f"{len(rows)} rows, the metadata promise {chunk.rows}")
        times_ns = chunk.start_ns + np.ceil(np.arange(len(rows) + 1) * chunk.interval_ns)
        times_ns = times_ns.astype(np.int64)
        check_length(len(rows), int(times_ns[-1] - times_ns[0]), limits)
        if not videos:
            return PicturelessRecording(
                frame_times_ns=times_ns[:-1],
                frame_end_ns=int(times_ns[-1]),
                clock=audit_clock(times_ns[:-1]),
                data=FrameData(actions=_track(rows, times_ns)),
                notes=(*notes, "no video: actions only"),
            )
        index, half_ns = read_video(videos[0], limits), int(chunk.interval_ns / 2)
        clip = (
            VideoClip.whole(index).shifted(chunk.start_ns)
            if _is_clip(videos[0], chunk)
            else VideoClip.between(index, chunk.start_ns, chunk.stop_ns, slack_ns=half_ns)
        )
        masked = self.overlay == "masked"
        if masked and chunk.overlay is None:
            notes.append("the metadata name no overlay: nothing is painted over")
        return open_clips(
            (clip,),
            FrameData(actions=_track(rows, snapped(times_ns, clip.times_ns, half_ns))),
            notes=tuple(notes),
            retouch=_mask(chunk.overlay, index.picture.display_size)
            if masked and chunk.overlay is not None
            else None,
        )


def _is_clip(video: Path, chunk: LabelledChunk) -> bool:
    """Whether a video is a clip of the chunk, not the whole video."""
    return video.stem != chunk.video


def _leads_to_chunk(folder: Path) -> bool:
    """Whether a folder, or the first folder in it, and so on, is that of a chunk."""
    for _ in range(DEEPEST_CHUNK):
        if is_file(folder / "metadata.json"):
            return any(is_file(folder / table) for table in TABLES.values())
        folders = _folders_in(folder)
        if not folders:
            return False
        folder /= folders[0]
    return False


def _folders_in(folder: Path) -> Sequence[str]:
    """Names of the first folders in a folder, sorted."""
    if is_in_store(folder):
        return listed(folder).folders
    try:
        with os.scandir(folder) as entries:
            looked_at = islice(entries, MOST_ENTRIES)
            return sorted(
                e.name for e in looked_at if e.is_dir(follow_symlinks=False) and e.name[0] != "."
            )
    except OSError:
        return ()


def _is_video(path: Path) -> bool:
    return sniff(path) == "video"


def _overlay(
    metadata: Mapping[str, Any], video: Mapping[str, Any]
) -> tuple[float, float, float, float] | None:
    """The box of the pad's picture. In the file it is x, y, width, height in pixels of the video.

    Raises:
        RefusedInput: METADATA, the box is invalid, or the video's size is unknown.
    """
    box, size = metadata.get("bbox_controller_overlay"), video.get("resolution")
    if box is None:
        return None
    numbers = [*box, *size] if isinstance(box, list) and isinstance(size, list) else []
    if (
        len(numbers) != 6
        or not all(is_number(number) and abs(number) < MOST_PIXELS for number in numbers)
        or min(numbers[4:]) < 1
    ):
        raise RefusedInput(
            Reason.METADATA, "bbox_controller_overlay is no [x, y, w, h] in a known resolution"
        )
    x, y, w, h, height, width = map(float, numbers)
    return x / width, y / height, (x + w) / width, (y + h) / height


def _mask(box: tuple[float, float, float, float], shown: tuple[int, int]) -> Retouch:
    """Blackens a box in every frame, and one more pixel around it, because scaling spreads colours."""

    def paint(frames: Frames, picks: Index, placement: Placement) -> None:
        del picks
        scales = (placement.scale_x * shown[0], placement.scale_y * shown[1])
        height, width = frames.shape[1:3]
        left = placement.left + math.floor(box[0] * scales[0]) - 1
        top = placement.top + math.floor(box[1] * scales[1]) - 1
        right = placement.left + math.ceil(box[2] * scales[0]) + 1
        bottom = placement.top + math.ceil(box[3] * scales[1]) + 1
        rows = slice(min(max(top, 0), height), min(max(bottom, 0), height))
        frames[:, rows, min(max(left, 0), width) : min(max(right, 0), width)] = 0

    return paint


def _rows(table: Path) -> NDArray[np.float64]:
    """The labels in the space `nitrogen21`, float64 [N, 21].

    Raises:
        RefusedInput: a column is missing or has another type, or a value is out of range.
    """
    with opened_parquet(table) as file:
        if file.metadata.num_rows > MOST_ROWS:
            raise RefusedInput(Reason.TOO_LARGE, f"{table.name}: over {MOST_ROWS} rows")
    columns = read_columns(table, [*BUTTONS, *STICKS])
    found = [numbers_of(columns[name], name) for name in (*BUTTONS, *STICKS)]
    if not len(columns):
        raise RefusedInput(Reason.LOG_EMPTY, f"{table.name} has no rows")
    widths = [each.shape[1] for each in found]
    if widths != [1] * len(BUTTONS) + [2, 2]:
        raise RefusedInput(Reason.LOG_TYPE, f"{table.name}: a stick is no pair of x and y")
    return np.concatenate(found, axis=1).astype(np.float64)


def snapped(times_ns: Nanos, frame_times_ns: Nanos, half_ns: int) -> Nanos:
    """Times of rows, each moved to its frame: the frame that is less than half a row away.

    Args:
        times_ns: int64 [N], with at least 2 * half_ns from one row to the next.
        frame_times_ns: int64 [K], strictly increasing.
        half_ns: half the time between rows.

    Returns:
        int64 [N], strictly increasing; a row without a frame keeps its time.
    """
    after = np.searchsorted(frame_times_ns, times_ns)
    nearest = np.stack([np.maximum(after - 1, 0), np.minimum(after, len(frame_times_ns) - 1)])
    away = np.abs(frame_times_ns[nearest] - times_ns)
    best = np.where(away[0] < away[1], nearest[0], nearest[1])
    return np.where(away.min(axis=0) < half_ns, frame_times_ns[best], times_ns)


def _track(rows: NDArray[np.float64], times_ns: Nanos) -> ActionTrack:
    """The track of the labels. Row i led to frame i: it acted from row i - 1 to row i.

    Args:
        rows: float64 [N, 21].
        times_ns: int64 [N + 1], the times of the rows and of the end.
    """
    actions = np.full_like(rows, np.nan)
    actions[:-1] = rows[1:]
    values, clamped = clamp(SPACE, actions)
    return ActionTrack(SPACE, times_ns[:-1], values, int(times_ns[-1]), None, clamped)
