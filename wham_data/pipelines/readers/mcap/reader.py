"""`mcap`: recordings of ROS 2 and Foxglove: pictures and controls in .mcap files.

    <name>.mcap               topics of pictures or of a video, and of a pad
    <name>_0.mcap, _1, ...    beside a metadata.yaml: files of one rosbag2 recording
    <name>.toml               what its axes and buttons mean, as beside the log of a video

Times are the messages' own stamps, or their log_time. The profile `owa` is read by `owamcap`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

import numpy as np

from wham_data.files.found import VIDEO_ENDINGS, open_regular
from wham_data.files.links import is_plain_file
from wham_data.files.mcap import MAGIC, is_torn, profile_of
from wham_data.pipelines.align import typical_interval
from wham_data.pipelines.readers.kit.open_recordings import (
    Picture,
    PicturelessRecording,
    PictureRecording,
    VideoClip,
    VideoRecording,
    audit_clock,
    check_length,
)
from wham_data.pipelines.readers.kit.options import choice, file_option, option
from wham_data.pipelines.readers.kit.suspicions import suspicious
from wham_data.pipelines.readers.mcap.clock import Times, in_order, times_that_count
from wham_data.pipelines.readers.mcap.controls import ControlRows, controls_log, unlike_at_start
from wham_data.pipelines.readers.mcap.topics import Topic, again, listing, read_topics, taken
from wham_data.pipelines.readers.owa.owamcap import PROFILE as DESKTOP_PROFILE
from wham_data.pipelines.readers.video_log.frame_numbers import MIN_COVERAGE
from wham_data.pipelines.readers.video_log.log_metadata import (
    LogMetadata,
    load_named_space,
    read_metadata,
    space_file,
)
from wham_data.pipelines.readers.video_log.log_words import listed
from wham_data.pipelines.video import VideoLimits, decode_image, index_video
from wham_data.pipelines.video.h264_gaps import FrameNumbers
from wham_data.pipelines.video.wrapped import WrappedStream
from wham_data.schemas.clock import Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput, noted, printable
from wham_data.schemas.recording import FrameData, Recording, RefusedFile

BAG: Final = "metadata.yaml"
METADATA: Final = ".toml"
PACKED: Final = ".mcap.zstd"
SILENT: Final = 1.5
_PIECE: Final = re.compile(r"(.+)_(\d{1,6})\.mcap", re.ASCII)
_STILLS: Final = re.compile(r"jpe?g|png", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mcap:
    """Reader of ROS 2's and Foxglove's recordings.

    topic, control_topic  names of topics; "": the only one of its sort
    """

    name: ClassVar[str] = "mcap"
    about: ClassVar[str] = "recordings of ROS 2 and Foxglove: pictures and a pad's topic in .mcap"
    order: ClassVar[int] = 220
    topic: str = option(
        "",
        about="topic of the pictures or of the video",
        expects="the name of a topic, such as /camera/image/compressed",
        parse=str,
    )
    control_topic: str = option(
        "",
        about="topic of the controls",
        expects="the name of a topic, such as /joy",
        parse=str,
    )
    times: Times = choice(
        "stamp", "log", about="times are the messages' own stamps, or when they were recorded"
    )
    pad: Path | None = file_option(
        about="TOML file with the [columns] of the pad, for recordings without a NAME.toml"
    )

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every MCAP file of another profile than `owa`; the files of a bag are one recording."""
        present = frozenset(files)
        found: dict[tuple[Path, bool], list[Path]] = defaultdict(list)
        for path in files:
            profile = profile_of(path)
            if path.name.endswith(PACKED):
                yield RefusedFile(path, _packed(path))
            elif profile is None and path.suffix == ".mcap" and _begins_as_mcap(path):
                why = RefusedInput(Reason.TRUNCATED, "an MCAP file that ends in its first record")
                yield RefusedFile(path, why)
            elif profile is not None and profile != DESKTOP_PROFILE:
                piece = _PIECE.fullmatch(path.name)
                if piece is not None and path.with_name(BAG) in present:
                    found[path.with_name(piece[1]), True].append(path)
                else:
                    found[path, False].append(path)
        for (named, is_bag), paths in found.items():
            stem = named if is_bag else named.with_suffix("")
            metadata_file, *videos = (
                stem.with_name(f"{stem.name}{ending}") for ending in (METADATA, *VIDEO_ENDINGS)
            )
            mine = metadata_file in present and present.isdisjoint(videos)
            extra = [metadata_file] if mine else []
            metadata = _metadata_or_nothing(extra)
            if extra and (space := _space_beside(metadata_file, metadata)):
                extra.append(space)
            paths.sort(key=_number)
            yield Recording(
                path=paths[0],
                files=(*paths, *extra),
                format=self.name,
                provenance=metadata.provenance,
                companions=(named.with_name(BAG),) if is_bag else (),
            )

    def open(
        self, recording: Recording, limits: VideoLimits
    ) -> VideoRecording | PictureRecording | PicturelessRecording:
        """Read all messages of pictures and controls, but no picture."""
        paths = [path for path in recording.files if profile_of(path) is not None]
        beside = [path for path in recording.files if path.suffix == METADATA][:1]
        source = beside[0] if beside else self.pad
        metadata = read_metadata(source) if source is not None else LogMetadata()
        topics = read_topics(paths)
        film = taken(topics, self.topic, "topic", lambda each: each.is_film, "picture")
        control = self._control(topics)
        used = [topic for topic in (film, control) if topic is not None]
        if not used:
            raise RefusedInput(
                Reason.NO_FRAMES,
                "no topic of CompressedImage or CompressedVideo, and none of controls; topics: "
                f"{listing(topics)}",
            )
        times_ns, notes = times_that_count(used, self.times)
        start_ns = int(times_ns[0].min())
        frames = _Frames.of(paths, film, times_ns[0] - start_ns, limits)
        torn = [
            f"{path.name} has no end: read as far as it goes" for path in paths if is_torn(path)
        ]
        notes = (*metadata.notes, *torn, *_pieces_missing(paths), *notes, *frames.notes)
        data = FrameData()
        if control is not None:
            rows = ControlRows(times_ns[-1] - start_ns, control.names, control.values())
            space = load_named_space(source, metadata.actions) if metadata.actions else None
            with noted(notes):
                log = controls_log(rows, metadata, space, frames.times_ns, frames.end_ns)
            data = FrameData(actions=log.track)
            left = [each.name for each in topics.values() if each.kind == "control"]
            left.remove(control.name)
            notes += (f"actions of {control.name} ({control.schema})", *log.notes)
            notes += (f"left out: {listed(left)} (--option control_topic=NAME)",) if left else ()
            notes += unlike_at_start(rows)
            notes += tuple(suspicious(log.track, (*metadata.scales, *rows.names)))
        else:
            notes += ("no topic of controls: no actions",)
        opened = frames.opened(data, tuple(map(printable, notes)))
        opened.masks = metadata.masks
        opened.min_coverage = MIN_COVERAGE if control is not None else None
        return opened

    def _control(self, topics: dict[str, Topic]) -> Topic | None:
        """The topic of controls: the wanted one, else the only Joy, else the only Twist."""
        controls = {name: each for name, each in topics.items() if each.kind == "control"}
        joys = {n: each for n, each in controls.items() if each.type and not each.type.is_twist}
        among = controls if self.control_topic or not joys else joys
        return taken(
            topics, self.control_topic, "control_topic", lambda each: each.name in among, "control"
        )


@dataclass(frozen=True, slots=True)
class _Frames:
    """The pictures of a recording, and when each is on screen.

    times_ns  int64 [N]  after the first message; of the controls where there are no pictures
    """

    paths: list[Path]
    topic: Topic | None
    order: Index
    times_ns: Nanos
    end_ns: int
    limits: VideoLimits
    clip: VideoClip | None
    notes: tuple[str, ...]

    @classmethod
    def of(
        cls, paths: list[Path], topic: Topic | None, times_ns: Nanos, limits: VideoLimits
    ) -> _Frames:
        """The pictures of a topic, in order of time.

        Args:
            paths: the MCAP files.
            topic: of pictures or of a video; None: there is none.
            times_ns: int64 [N], of its messages; where there is none, of the controls.
            limits: what it may claim.
        """
        is_video = topic is not None and topic.kind == "video"
        order = in_order(times_ns, once=not is_video)
        shown_ns, clip = times_ns[order], None
        if topic is not None and is_video:
            stream = _stream(paths, topic, order, shown_ns)
            clip = VideoClip.whole(index_video(paths[0], limits, stream))
            notes: tuple[str, ...] = (f"video of {topic.name} ({topic.format})",)
            notes += _silences(stream)
            return cls(paths, topic, order, clip.times_ns, clip.end_ns, limits, clip, notes)
        end_ns = int(shown_ns[-1]) + max(1, typical_interval(shown_ns))
        check_length(len(order), end_ns - int(shown_ns[0]), limits)
        if topic is None:
            notes = ("no topic of compressed pictures: actions only",)
        else:
            _check_stills(topic)
            notes = (f"pictures of {topic.name}",)
            alike = len(times_ns) - len(order)
            notes += (f"{alike} pictures at the time of another: left out",) if alike else ()
        return cls(paths, topic, order, shown_ns, end_ns, limits, clip, notes)

    def opened(
        self, data: FrameData, notes: tuple[str, ...]
    ) -> VideoRecording | PictureRecording | PicturelessRecording:
        """The recording with these actions."""
        if self.clip is not None:
            return self.clip.opened(data, notes=notes)
        clock = audit_clock(self.times_ns)
        if self.topic is None:
            return PicturelessRecording(
                frame_times_ns=self.times_ns,
                frame_end_ns=self.end_ns,
                clock=clock,
                data=data,
                notes=notes,
            )
        return PictureRecording(
            frame_times_ns=self.times_ns,
            frame_end_ns=self.end_ns,
            clock=clock,
            data=data,
            notes=notes,
            pictures=self._pictures,
            limits=self.limits,
        )

    def _pictures(self, picks: Index) -> Iterator[Picture | None]:
        assert self.topic is not None
        coded = again(self.paths, self.topic, self.order.tolist())
        for pick in picks.tolist():
            data = coded(pick)
            try:
                yield decode_image(data)
            except RefusedInput:
                yield None


def _stream(paths: list[Path], topic: Topic, order: Index, times_ns: Nanos) -> WrappedStream:
    """The pictures of a video, in order of time."""
    source = partial(again, paths, topic, order.tolist())
    gaps: tuple[int, ...] = ()
    if topic.codec == "h264":
        numbers, picture = FrameNumbers(), source()
        gaps = tuple(at for at in range(len(order)) if numbers.missing_before(picture(at)))
    return WrappedStream(
        topic.codec,
        times_ns,
        np.frombuffer(topic.sizes, np.int64)[order],
        np.frombuffer(topic.keys, np.int8)[order] != 0,
        source,
        gaps,
    )


def _silences(stream: WrappedStream) -> tuple[str, ...]:
    """A note on times at which messages may be lost, where the codec does not tell it."""
    if stream.codec not in ("av1", "vp9"):
        return ()
    steps_ns = np.diff(stream.times_ns)
    long = steps_ns > SILENT * max(1, typical_interval(stream.times_ns))
    count = int(np.count_nonzero(long & ~stream.keys[1:]))
    if not count:
        return ()
    return (
        f"suspicious: {count} silences of more than {SILENT:g} frames in the video: if messages were lost "
        "there, the pictures up to the next key frame are wrong",
    )


def _check_stills(topic: Topic) -> None:
    """Refuse pictures in a form that is not read.

    Raises:
        RefusedInput: UNSUPPORTED_CODEC.
    """
    if topic.format and not _STILLS.search(topic.format):
        raise RefusedInput(
            Reason.UNSUPPORTED_CODEC,
            f"pictures of {topic.name} are {topic.format[:40]!r}, expected jpeg or png",
        )


def _packed(path: Path) -> RefusedInput:
    name = path.name.removesuffix(".zstd")
    return RefusedInput(
        Reason.FORMAT_NOT_ALLOWED, f"a packed MCAP file: unpack it with `zstd -d`, into {name}"
    )


def _begins_as_mcap(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return file.read(len(MAGIC)) == MAGIC
    except RefusedInput:
        return False


def _number(path: Path) -> int:
    """The number of a file of a bag; 0 for a file that has none."""
    piece = _PIECE.fullmatch(path.name)
    return int(piece[2]) if piece else 0


def _pieces_missing(paths: list[Path]) -> tuple[str, ...]:
    """A note on files of a bag that are not there."""
    numbers = [_number(path) for path in paths]
    missing = sorted(set(range(max(numbers))).difference(numbers)) if len(paths) > 1 else []
    return (
        (f"files of the bag not there: number {listed([str(each) for each in missing])}",)
        if missing
        else ()
    )


def _metadata_or_nothing(files: list[Path]) -> LogMetadata:
    """Metadata for the listing; an error in them is reported when the recording is opened."""
    try:
        return read_metadata(files[0]) if files else LogMetadata()
    except RefusedInput:
        return LogMetadata()


def _space_beside(metadata_file: Path, metadata: LogMetadata) -> Path | None:
    """The recording's own action space, if it is there; refused, if need be, when opened."""
    try:
        path = space_file(metadata_file, metadata.actions)
    except RefusedInput:
        return None
    return path if path is not None and is_plain_file(path) else None
