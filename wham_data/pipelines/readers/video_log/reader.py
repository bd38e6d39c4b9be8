"""`video-log`: a video beside a controller log of the same stem.

    NAME.mp4 (any container)   NAME.csv | .tsv | .jsonl | .parquet   and, optionally, NAME.toml | .json
    the only video of a folder   actions.csv | .jsonl | .parquet

Without any of these, a NAME.json that holds a list of objects is the log.

docs/formats/video-log.md describes the log and the metadata in full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from wham_data.files.found import VIDEO_ENDINGS, sniff
from wham_data.files.links import is_plain_file
from wham_data.files.npz import array_shapes
from wham_data.pipelines.align import typical_interval
from wham_data.pipelines.readers.kit.gaps import seconds_text
from wham_data.pipelines.readers.kit.open_recordings import VideoRecording, open_clips
from wham_data.pipelines.readers.kit.suspicions import suspicious
from wham_data.pipelines.readers.video_log.controller_log import ControllerLog, read_controller_log
from wham_data.pipelines.readers.video_log.devices import (
    DEVICE_NAME,
    MOST_DEVICES,
    Streams,
    device_streams,
    may_name_devices,
)
from wham_data.pipelines.readers.video_log.film.clips import More, film_of, more_of, retimed, seams
from wham_data.pipelines.readers.video_log.film.dash import PIECE_ENDING
from wham_data.pipelines.readers.video_log.film.sessions import check_fit
from wham_data.pipelines.readers.video_log.frame_numbers import (
    MIN_COVERAGE,
    frame_times_by_log,
    frames_at_tics,
    misfit,
)
from wham_data.pipelines.readers.video_log.log_format import UNIT_NAMES
from wham_data.pipelines.readers.video_log.log_metadata import (
    LogMetadata,
    load_named_space,
    read_metadata,
    space_file,
)
from wham_data.pipelines.readers.video_log.log_rows import as_understood, open_log
from wham_data.pipelines.readers.video_log.log_table import TIME_DIGITS
from wham_data.pipelines.readers.video_log.log_text import is_json_log
from wham_data.pipelines.readers.video_log.log_words import listed
from wham_data.pipelines.readers.video_log.neighbours import (
    JSON_LOG_ENDINGS,
    LOG_ENDINGS,
    beside,
    by_folded_ending,
    metadata_among,
    rename_hint,
    session_message,
)
from wham_data.pipelines.readers.video_log.time_column import (
    is_unix,
    offset_line,
    offset_words,
    shown_date,
)
from wham_data.pipelines.video import VideoLimits
from wham_data.pipelines.video.created import created_ns
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.errors import Reason, RefusedInput, noted, plain_number, printable
from wham_data.schemas.recording import ActionTrack, FrameData, Recording

METADATA_ENDINGS: Final = (".toml", ".json")
UNREAD_LOG_ENDINGS: Final = (".npz", ".npy", ".pkl", ".pickle", ".txt", ".xlsx")

SHARED_LOG: Final = "actions"
WITHOUT_LOG: Final = " (--actions none takes it without actions)"
MIN_ROW_HZ, MAX_ROW_HZ = 0.5, 10_000.0


@dataclass(frozen=True, slots=True)
class LogFiles:
    """The files of a `video-log` recording by what they are.

    metadata  None: there are none
    film      more files of the video
    """

    video: Path
    log: Path
    metadata: Path | None
    film: tuple[Path, ...]

    @classmethod
    def of(cls, recording: Recording) -> LogFiles:
        """The files of a recording that `VideoLog` found."""
        video, log, *rest = recording.files
        settings = [path for path in rest if path.suffix.lower() in METADATA_ENDINGS]
        film = tuple(path for path in rest if path not in settings)
        return cls(video, log, settings[0] if settings else None, film)

    def read_metadata(self) -> LogMetadata:
        """The metadata; without any, nothing is said.

        Raises:
            RefusedInput: METADATA, they are wrong.
        """
        return LogMetadata() if self.metadata is None else read_metadata(self.metadata)


@dataclass(frozen=True, slots=True)
class VideoLog:
    """Reader of a video beside a controller log.

    space  name of the action space of logs whose metadata name none; None works it out from the
           log's columns
    target  the space of the corpus, taken where a log fits several; None: not known
    """

    name: ClassVar[str] = "video-log"
    about: ClassVar[str] = "a video beside a .csv, .jsonl or .parquet controller log of its name"
    order: ClassVar[int] = 1000
    space: str | None = None
    target: ActionSpace | None = None

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording]:
        """Every video that has a log, or a file in a log format that we do not read, beside it."""
        endings = LOG_ENDINGS + JSON_LOG_ENDINGS + METADATA_ENDINGS + UNREAD_LOG_ENDINGS
        folded = by_folded_ending(files, endings)
        shared = _shared_logs(files)
        more = _more(files)
        shared |= {video: [each.log] for video, each in more.items() if each.log is not None}
        claimed = {path for each in more.values() if each.log for path in each.files}
        for video in files:
            own = more.get(video, More())
            named = video if own.log is None else _named_as(own.log, video)
            logs = beside(video, LOG_ENDINGS, folded) or shared.get(video, [])
            of_json = beside(video, JSON_LOG_ENDINGS, folded)
            unread = beside(video, UNREAD_LOG_ENDINGS, folded)
            if video in claimed or not (logs or of_json or unread) or not is_video(video):
                continue
            logs = logs or [path for path in of_json if is_json_log(path)] or unread
            if not logs:
                continue
            there = [p for p in beside(named, METADATA_ENDINGS, folded) if p not in logs]
            metadata_files, strays, metadata = metadata_among(there)
            files_read = [video, logs[0], *metadata_files[:1]]
            if metadata_files and (space := _space_file_or_nothing(metadata_files[0], metadata)):
                files_read.append(space)
            files_read += own.files
            recording = Recording(
                path=video,
                files=tuple(files_read),
                format=self.name,
                provenance=metadata.provenance,
                companions=(*logs[1:], *metadata_files[1:], *strays, *own.companions),
            )
            yield from each_device(recording, _devices_or_none(logs[0], metadata))

    def open(self, recording: Recording, limits: VideoLimits) -> VideoRecording:
        """Read the log, index the video, and check that the two belong together."""
        files = LogFiles.of(recording)
        video, log_path = files.video, files.log
        of_json = log_path.name.lower().endswith(JSON_LOG_ENDINGS)
        if not (of_json or log_path.name.lower().endswith(LOG_ENDINGS)):
            raise _unread_log(log_path)
        metadata = files.read_metadata()
        space_name = metadata.actions or self.space
        space = load_named_space(files.metadata, space_name) if space_name else None
        film, guessed, film_notes = film_of(video, files.film, metadata.starts_ns, limits)
        times_ns = np.concatenate([clip.times_ns for clip in film])
        first, end_ns = 0, film[-1].end_ns
        try:
            log = read_controller_log(
                log_path, metadata, space, times_ns, end_ns, recording.part, self.target
            )
        except RefusedInput as why:
            taken = f"{log_path.name}, taken for the log: " if of_json else ""
            understood = (*as_understood(log_path, metadata), *why.notes)
            message = f"{taken}{why.message}"
            raise RefusedInput(why.reason, message, notes=understood) from None
        notes = [*film_notes, *metadata.notes, *log.notes]
        if of_json:
            notes.append(printable(f"{log_path.name} is taken for the log, as there is no other"))
        notes += [
            printable(f"{path.name} not used beside {log_path.name}")
            for path in recording.companions
            if path.suffix.lower() != PIECE_ENDING
        ]

        if log.tics is not None and files.metadata is None:
            shown = frames_at_tics(log.tics, log.track.times_ns, times_ns)
            log = replace(log, frames=shown)
            if shown is None:
                notes.append("column tick does not number the video's frames: its own clock counts")
        elif log.frames is not None and not metadata.declares("frame"):
            other = misfit(log.frames, log.track.times_ns, times_ns, end_ns)
            if other is not None:
                log = replace(log, frames=None)
                notes.append(
                    f'{other}: the container\'s clock counts (under [columns], frame = "frame" '
                    'says otherwise; ignore = ["frame"] says that it means nothing)'
                )
        if log.frames is not None:
            duplicates = sum(clip.index.duplicates for clip in film)
            first, times_ns = frame_times_by_log(
                log.frames, log.track.times_ns, len(times_ns), duplicates
            )
            end_ns = int(times_ns[-1]) + typical_interval(times_ns)
            column = "frame" if log.tics is None else "tick"
            notes.append(f"frame times taken from the log's {column} column")
        offset_ns = metadata.offset_ns
        if not offset_ns and counts_from_first_frame(log.track, int(times_ns[0]), end_ns):
            offset_ns = -int(times_ns[0])
            log = replace(log, track=shifted(log.track, -offset_ns))
            notes.append(
                f"the log counts from the video's first frame, whose timestamp is "
                f"{seconds_text(-offset_ns)} s: taken as offset_ms = {offset_ns // 1_000_000}"
            )
        created = partial(created_ns, video, limits)
        with noted(notes):
            check_clock(log, int(times_ns[0]), end_ns, offset_ns, created)
        notes += suspicious(log.track, metadata.scales)
        film = retimed(film, first, times_ns, end_ns)
        if len(film) > 1:
            span = int(log.track.times_ns[0]), log.track.end_ns
            starts = [int(clip.times_ns[0]) for clip in film]
            check_fit(span, starts, end_ns, guessed=guessed and log.frames is None)
        opened = open_clips(
            film,
            FrameData(actions=replace(log.track, sampled=log.sampled)),
            notes=tuple(notes),
            offset_ns=offset_ns,
            drift_ppm=metadata.drift_ppm,
        )
        opened.cuts = np.union1d(opened.cuts, seams(film))
        opened.masks = metadata.masks
        opened.min_coverage = MIN_COVERAGE
        return opened


def is_video(path: Path) -> bool:
    """Whether a file is a video by its first bytes, or claims to be one by its ending."""
    return path.suffix.lower() in VIDEO_ENDINGS or (
        not path.name.lower().endswith(LOG_ENDINGS + METADATA_ENDINGS) and sniff(path) == "video"
    )


def log_missing(video: Path, session: Path | None = None) -> RefusedInput:
    """Why a video without a log is refused.

    Args:
        video: the video.
        session: the log of several videos, of which this is one.
    """
    wanted = ", ".join(f"{video.stem}{ending}" for ending in LOG_ENDINGS[:3])
    other = video.with_suffix(".json")
    unlike = f" ({printable(other.name)} holds no list of rows, so it is no log)"
    return RefusedInput(
        Reason.LOG_MISSING,
        f"no controller log beside it; looked for {wanted}{unlike if other.is_file() else ''}"
        f"{session_message(video, session) if session else rename_hint(video) + WITHOUT_LOG}",
    )


def _shared_logs(files: tuple[Path, ...]) -> dict[Path, list[Path]]:
    """The `actions.*` logs of folders in which there is one video, by that video."""
    names = [f"{SHARED_LOG}{ending}" for ending in LOG_ENDINGS]
    logs: dict[Path, list[Path]] = {}
    videos: dict[Path, list[Path]] = {}
    for path in files:
        if path.name.lower() in names:
            logs.setdefault(path.parent, []).append(path)
        elif path.suffix.lower() in VIDEO_ENDINGS:
            videos.setdefault(path.parent, []).append(path)
    return {
        videos[folder][0]: sorted(found, key=lambda log: names.index(log.name.lower()))
        for folder, found in logs.items()
        if len(videos.get(folder, ())) == 1
    }


def _more(files: tuple[Path, ...]) -> dict[Path, More]:
    """The recordings whose video is in several files, by main file."""
    videos = [path for path in files if path.suffix.lower() in VIDEO_ENDINGS]
    logs: dict[Path, Path] = {}
    for_all: dict[Path, Path] = {}
    by_ending = sorted(
        (LOG_ENDINGS.index(ending), path, path.with_name(path.name[: -len(ending)]))
        for path in files
        for ending in LOG_ENDINGS
        if path.name.lower().endswith(ending)
    )
    for _, path, stem in by_ending:
        logs.setdefault(stem, path)
        if stem.name.lower() == SHARED_LOG:
            for_all.setdefault(path.parent, path)
    return more_of(files, videos, logs, for_all)


def _named_as(log: Path, video: Path) -> Path:
    """A video that would be called as the log is."""
    ending = next(e for e in LOG_ENDINGS if log.name.lower().endswith(e))
    return log.with_name(log.name[: -len(ending)] + video.suffix)


def _devices_or_none(log: Path, metadata: LogMetadata) -> Streams | None:
    """The devices whose rows lie over one another in a log, if its columns have such a name."""
    if metadata.only or not log.name.lower().endswith(LOG_ENDINGS + JSON_LOG_ENDINGS):
        return None
    try:
        if not may_name_devices(log):
            return None
        file = open_log(log, metadata)
        if not any(DEVICE_NAME.fullmatch(name.strip()) for name in file.columns):
            return None
        streams = device_streams(file, metadata.columns, metadata.ignore)
    except (RefusedInput, OSError):
        return None
    return streams if streams is not None and streams.mixed else None


def each_device(recording: Recording, streams: Streams | None) -> Iterator[Recording]:
    """A recording for each device of a log; they belong to one match, so to one split."""
    if streams is None:
        yield recording
        return
    parts = [streams.part(name) for name in streams.names]
    if len(parts) > MOST_DEVICES or len(set(parts)) < len(parts):
        yield recording
        return
    video = recording.path
    match = recording.provenance.match or f"{video.parent.name}/{video.stem}"
    for name, part in zip(streams.names, parts, strict=True):
        player = recording.provenance.player
        provenance = replace(
            recording.provenance,
            match=match,
            subject=recording.provenance.subject or part,
            player=f"{player} {name}" if player else None,
        )
        yield replace(recording, part=part, provenance=provenance)


def _space_file_or_nothing(metadata_file: Path, metadata: LogMetadata) -> Path | None:
    """The recording's own action space, if it is there; refused, if need be, when opened."""
    try:
        path = space_file(metadata_file, metadata.actions)
    except RefusedInput:
        return None
    return path if path is not None and is_plain_file(path) else None


def _unread_log(path: Path) -> RefusedInput:
    """Why a log in a form that we do not read is refused."""
    forms = ", ".join(LOG_ENDINGS[:3])
    if path.suffix.lower() in (".pkl", ".pickle"):
        return RefusedInput(
            Reason.PICKLED_OBJECTS,
            f"{path.name} holds pickled objects, which are never loaded; save the log as {forms}",
        )
    if path.suffix.lower() == ".npz":
        array_shapes(path)
    return RefusedInput(
        Reason.FORMAT_NOT_ALLOWED,
        f"{path.name} is no log in a form we read ({forms})",
    )


def counts_from_first_frame(track: ActionTrack, start_ns: int, end_ns: int) -> bool:
    """Whether a log without any overlap counts from zero where the video's stamps start late.

    So it is for a clip cut from a long stream that kept its timestamps: the log ends before the
    video starts, and would cover most of it if both were counted from the first frame.

    Args:
        track: the log.
        start_ns, end_ns: the video covers [start_ns, end_ns).
    """
    first_ns, last_ns, length_ns = int(track.times_ns[0]), track.end_ns, end_ns - start_ns
    covered_ns = min(last_ns, length_ns) - first_ns
    return 0 <= first_ns < last_ns < start_ns and covered_ns >= MIN_COVERAGE * length_ns


def shifted(track: ActionTrack, by_ns: int) -> ActionTrack:
    """The log on a clock that is `by_ns` ahead of its own."""
    return replace(track, times_ns=track.times_ns + by_ns, end_ns=track.end_ns + by_ns)


def check_clock(
    log: ControllerLog,
    start_ns: int,
    end_ns: int,
    offset_ns: int,
    created: Callable[[], int | None],
) -> None:
    """Refuse a log whose clock cannot be that of the video, and guess what it is instead.

    Args:
        log: with its clock corrected.
        start_ns, end_ns: the video covers [start_ns, end_ns).
        offset_ns: what the correction took from its times.
        created: gives the video's own time of creation; asked only where it helps.

    Raises:
        RefusedInput: LOG_CLOCK.
    """
    first_ns, last_ns = int(log.track.times_ns[0]), log.track.end_ns
    guess = _guess_clock(log, first_ns, last_ns, end_ns - start_ns)
    if first_ns >= end_ns or last_ns <= start_ns:
        kind, raw_ns = log.format.time_kind, first_ns + offset_ns
        if is_unix(first_ns) and kind:
            unit = UNIT_NAMES.get(kind, kind)
            what = "dates" if "dates" in kind else f"times since the Unix epoch in {unit}"
            raise RefusedInput(
                Reason.LOG_CLOCK,
                f"no overlap: column {listed([log.format.time_column])} holds {what}, from "
                f"{shown_date(raw_ns, kind)} on, and the video runs from {seconds_text(start_ns)} to "
                f"{seconds_text(end_ns)} s; {offset_words(raw_ns, start_ns, kind, created())}",
            )
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"no overlap: the log runs from {seconds_text(first_ns)} to {seconds_text(last_ns)} s, the "
            f"video from {seconds_text(start_ns)} to {seconds_text(end_ns)} s"
            + (
                guess
                or f"; if the clocks differ, set offset_ms: {offset_line(raw_ns - start_ns)} would put its "
                "first row at the video's first frame"
            ),
        )
    interval_ns = typical_interval(log.track.times_ns)
    if log.sampled and interval_ns:
        row_hz = SECOND_NS / interval_ns
        if not MIN_ROW_HZ <= row_hz <= MAX_ROW_HZ:
            raise RefusedInput(
                Reason.LOG_CLOCK,
                f"{plain_number(row_hz)} log rows per second, expected {MIN_ROW_HZ:g} to {MAX_ROW_HZ:g}: is "
                f"{log.unit} the right unit?{guess}",
            )
    if guess and last_ns - first_ns > 10 * (end_ns - start_ns):
        raise RefusedInput(
            Reason.LOG_CLOCK,
            f"the log covers {seconds_text(last_ns - first_ns)} s, the video "
            f"{seconds_text(end_ns - start_ns)} s{guess}",
        )


def _guess_clock(log: ControllerLog, first_ns: int, last_ns: int, video_ns: int) -> str:
    """What the log's clock looks like, where it is not what its unit says; "" for no guess."""
    said = TIME_DIGITS[log.unit]
    for unit, digits in TIME_DIGITS.items():
        epoch_s = first_ns / 10.0 ** (9 - digits + said)
        if 1e9 <= epoch_s < 4e9:
            return (
                f"; this looks like a Unix epoch in {UNIT_NAMES[unit]}: name it {unit} under "
                f"[columns], and set offset_ms = {round(epoch_s * 1000)} beside the log if its first "
                "row is at the video's first frame"
            )
    for unit, digits in TIME_DIGITS.items():
        span_ns = (last_ns - first_ns) / 10.0 ** (said - digits)
        if unit != log.unit and video_ns / 2 <= span_ns <= 2 * video_ns:
            return (
                f"; this looks like {UNIT_NAMES[unit]}, not {UNIT_NAMES[log.unit]}: name it {unit}"
            )
    return ""
