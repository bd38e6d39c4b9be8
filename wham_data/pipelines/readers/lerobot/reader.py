"""`lerobot`: LeRobotDataset v3.0 (many episodes in a file) and v2.x (a file for each episode).

    meta/info.json                                        rate, features, where the files lie
    meta/episodes/chunk-000/file-000.parquet              v3.0: an episode in each row
    meta/episodes.jsonl                                   v2.x: an episode in each line
    data/.../*.parquet                                    a row for each frame
    videos/.../*.mp4                                      a video for each camera

Row k of an episode belongs to its frame k and acts after it. In v3.0 the frames of an episode lie in
[from_timestamp, to_timestamp) of a video that many share. Each camera is a recording of its own; the
cameras of an episode are subjects of one match, on one clock that starts at 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from wham_data.corpus.storage.sources.folders import is_file
from wham_data.files.found import Listing
from wham_data.files.parquet import (
    columns_of,
    numbers_of,
    read_where,
    stream_column,
)
from wham_data.pipelines.readers.kit.frame_actions import even_times, one_hot, per_frame_track
from wham_data.pipelines.readers.kit.open_recordings import (
    Picture,
    PicturelessRecording,
    PictureRecording,
    VideoClip,
    VideoRecording,
    audit_clock,
    check_length,
    picture_in,
    read_video,
)
from wham_data.pipelines.readers.kit.options import names_option, option
from wham_data.pipelines.readers.lerobot.clock import nearest_frames, retimed, row_times
from wham_data.pipelines.readers.lerobot.dataset import Dataset, Episode, VideoSpan
from wham_data.pipelines.readers.lerobot.features import (
    STAMP,
    TASK,
    Roles,
    Vector,
    roles_of,
    space_of,
)
from wham_data.pipelines.readers.lerobot.layout import Layout
from wham_data.pipelines.video import VideoIndex, VideoLimits
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.clock import SECOND_NS, Index, Nanos, steps_ns
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import FrameData, Provenance, Recording, RefusedFile

F = TypeVar("F", bound=np.floating[Any])
MOST_FRAMES: Final = 1 << 23
MIN_COVERAGE: Final = 0.5
"""Share of an episode's rows that must have their frame in the video."""
_PART: Final = re.compile(r"episode_(\d+)(?:/(.*))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class LeRobot:
    """Reader of LeRobot datasets."""

    name: ClassVar[str] = "lerobot"
    about: ClassVar[str] = "LeRobot datasets v3.0 and v2.x, an episode of a camera each"
    order: ClassVar[int] = 180
    cameras: tuple[str, ...] = names_option(
        about="cameras to take, each by its feature or the end of its name; by default all"
    )
    space: ActionSpace | None = option(
        None,
        about="what the numbers of an action are, where their names are no bundled space's",
        expects="the name of an action space, or the path of its .toml file",
        parse=load_space,
    )
    action: tuple[str, ...] = names_option(
        about="features that are the action, side by side; by default action, or actions"
    )
    state: tuple[str, ...] = names_option(
        about="features that are the state, side by side; by default observation.state, or state"
    )

    def spans(self, folder: Path, listing: Listing) -> bool:
        """Whether this is the folder of a dataset."""
        return "meta" in listing.folders and is_file(folder / "meta" / "info.json")

    def find(self, files: tuple[Path, ...]) -> Iterator[Recording | RefusedFile]:
        """Every camera of every episode of the datasets whose `meta/info.json` is there."""
        present = frozenset(files)
        for info in files:
            if info.name != "info.json" or info.parent.name != "meta":
                continue
            try:
                dataset = Dataset.open(info)
                if dataset is not None:
                    yield from self._recordings(dataset, present)
            except RefusedInput as why:
                yield RefusedFile(info, why)

    def _recordings(self, dataset: Dataset, present: frozenset[Path]) -> Iterator[Recording]:
        cameras = tuple(filter(self._wants, dataset.cameras))
        if self.cameras and not cameras:
            raise RefusedInput(
                Reason.METADATA,
                f"no camera {', '.join(self.cameras)}; there are {', '.join(dataset.cameras)}",
            )
        meta = tuple(path for path in present if path.is_relative_to(dataset.info.parent))
        layout = Layout.of(dataset.root, present)
        for episode in dataset.episodes(sorted(meta)):
            for camera in cameras or (None,):
                pair = (dataset.video_of(episode, camera), dataset.data_of(episode))
                found = [path for path in map(layout.find, pair) if path is not None]
                others = (layout.find(dataset.video_of(episode, v)) for v in dataset.videos)
                several = len(cameras) > 1
                match = f"{dataset.name}/episode_{episode.number}"
                yield Recording(
                    path=found[0] if found else dataset.info,
                    files=(*found, dataset.info, *dataset.tables(episode, present)),
                    format=self.name,
                    provenance=Provenance(
                        match=match if several else None, subject=camera if several else None
                    ),
                    companions=(*meta, *(path for path in others if path is not None)),
                    part=f"episode_{episode.number}" + (f"/{camera}" if several else ""),
                )
                meta = ()

    def _wants(self, camera: str) -> bool:
        return not self.cameras or any(
            camera == name or camera.endswith(f".{name}") for name in self.cameras
        )

    def open(
        self, recording: Recording, limits: VideoLimits
    ) -> VideoRecording | PictureRecording | PicturelessRecording:
        """Read the rows of the episode and index its video."""
        info = next(path for path in recording.files if path.name == "info.json")
        dataset, named = Dataset.open(info), _PART.fullmatch(recording.part)
        assert dataset is not None
        assert named is not None
        episode = dataset.episode(int(named[1]), recording.files)
        layout = Layout.of(dataset.root, recording.files)
        expected = dataset.data_of(episode)
        table = layout.find(expected)
        if table is None:
            raise RefusedInput(
                Reason.LOG_MISSING,
                f"its rows are not there: no {layout.below(expected)}, as info.json says",
            )
        roles = roles_of(dataset.features, columns_of(table), self.action, self.state)
        rows = _Rows.read(dataset, table, episode, roles)
        space, actions, named_notes = self._actions(dataset, rows)
        told = (*layout.note(table, expected), *roles.notes, *named_notes, *rows.clock_notes)
        camera = named[2]
        if camera is None:
            camera = next(filter(self._wants, dataset.cameras), None)
        if camera in dataset.videos:
            expected = dataset.video_of(episode, camera)
            video = layout.find(expected)
            if video is None:
                raise RefusedInput(
                    Reason.NO_FRAMES,
                    f"no video of {camera} for this episode: no {layout.below(expected)}, as "
                    "info.json says",
                )
            span = episode.videos.get(camera, VideoSpan())
            clip = _clip(read_video(video, limits), span, dataset.rate)
            places, notes = _frames_of(rows, clip, dataset.rate)
            if rows.clock_notes:
                moved = retimed(clip.times_ns, clip.end_ns, places, rows.times_ns)
                clip = VideoClip(clip.index, clip.first, *moved)
            count = len(clip.times_ns)
            track = None
            if space is not None:
                values = _spread(actions, places, count)
                track = per_frame_track(space, clip.times_ns, clip.end_ns, values)
            return clip.opened(
                FrameData(
                    actions=track,
                    states=None if rows.states is None else _spread(rows.states, places, count),
                    rewards=None if rows.rewards is None else _spread(rows.rewards, places, count),
                    texts=rows.texts_at(places, count),
                ),
                notes=(*layout.note(video, expected), *told, *notes),
            )

        if not np.array_equal(rows.frames, np.arange(rows.count)):
            raise RefusedInput(
                Reason.TRUNCATED, f"its frames are not numbered 0 to {rows.count - 1}"
            )
        times_ns, end_ns = even_times(rows.count, dataset.rate)
        if rows.clock_notes:
            times_ns = rows.times_ns
            end_ns = int(times_ns[-1]) + int(np.median(np.diff(times_ns)))
        check_length(rows.count, end_ns, limits)
        clock = audit_clock(times_ns)
        track = per_frame_track(space, times_ns, end_ns, actions) if space else None
        data = FrameData(actions=track, states=rows.states, rewards=rows.rewards, texts=rows.texts)
        if camera is None:
            return PicturelessRecording(
                frame_times_ns=times_ns,
                frame_end_ns=end_ns,
                clock=clock,
                data=data,
                notes=told,
            )

        def pictures(picks: Index) -> Iterator[Picture | None]:
            yield from map(picture_in, stream_column(table, camera, rows.numbers[picks]))

        return PictureRecording(
            frame_times_ns=times_ns,
            frame_end_ns=end_ns,
            clock=clock,
            data=data,
            notes=told,
            pictures=pictures,
            limits=limits,
        )

    def _actions(
        self, dataset: Dataset, rows: _Rows
    ) -> tuple[ActionSpace | None, NDArray[np.float64], tuple[str, ...]]:
        """What the numbers of an action are; the actions, float64 [N, A]; and notes."""
        if not rows.actions:
            return None, np.zeros((rows.count, 0)), ()
        table = np.concatenate(list(rows.actions.values()), axis=1)
        numbered = table.dtype.kind in "iu" and table.shape[1] == 1
        if numbered and self.space is None:
            raise RefusedInput(
                Reason.LOG_TYPE,
                "actions are numbers of actions: say how many there are, such as "
                "--option space=discrete18",
            )
        space, notes = self.space, tuple[str, ...]()
        if space is None:
            vectors = [
                Vector.of(name, dataset.features.get(name, {}), values.shape[1])
                for name, values in rows.actions.items()
            ]
            space, notes = space_of(vectors, dataset.content.get("robot_type"))
        if numbered and space.size > 1:
            return space, one_hot(table[:, 0].astype(np.int64), space.size), notes
        return space, table.astype(np.float64), notes


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of an episode.

    numbers  int64 [N]  in their file
    frames   int64 [N]  `frame_index`, strictly increasing
    times_ns  int64 [N]  when each was, and clock_notes where that is not frame_index / fps
    actions  numbers [N, A] by feature; states float32 [N, S], rewards float32 [N], texts: or None
    """

    numbers: Index
    frames: Index
    times_ns: Nanos
    clock_notes: tuple[str, ...]
    actions: Mapping[str, NDArray[Any]]
    states: NDArray[np.float32] | None
    rewards: NDArray[np.float32] | None
    texts: tuple[str | None, ...] | None

    @property
    def count(self) -> int:
        return len(self.numbers)

    @classmethod
    def read(cls, dataset: Dataset, data: Path, episode: Episode, roles: Roles) -> _Rows:
        """The rows, in the order of the file.

        Raises:
            RefusedInput: LOG_EMPTY, LOG_CLOCK, and as `read_where` and `numbers_of`.
        """
        there = columns_of(data)
        optional = [*roles.all, *(name for name in (TASK, STAMP) if name in there)]
        table, numbers = read_where(
            data, ["frame_index", *optional], "episode_index", episode.number
        )
        if not len(numbers):
            raise RefusedInput(
                Reason.LOG_EMPTY, f"{data.name} has no row of episode {episode.number}"
            )
        columns = {name: numbers_of(table[name], name) for name in table.column_names}
        frames = columns["frame_index"][:, 0].astype(np.int64)
        if (np.diff(frames) <= 0).any() or frames[0] < 0 or frames[-1] > MOST_FRAMES:
            raise RefusedInput(
                Reason.LOG_CLOCK,
                f"{data.name}: frame_index does not increase between 0 and {MOST_FRAMES}",
            )
        states = [columns[name].astype(np.float32) for name in roles.states]
        rewards, tasks = columns.get(roles.reward or ""), columns.get(TASK)
        texts = dataset.tasks() if tasks is not None else {}
        stamps = columns[STAMP][:, 0] if STAMP in columns else None
        times_ns, clock_notes = row_times(frames, stamps, dataset.rate)
        return cls(
            numbers,
            frames,
            times_ns,
            clock_notes,
            {name: columns[name] for name in roles.actions},
            np.concatenate(states, axis=1) if states else None,
            rewards[:, 0].astype(np.float32) if rewards is not None else None,
            tuple(texts.get(int(n)) for n in tasks[:, 0]) if tasks is not None and texts else None,
        )

    def texts_at(self, places: Index, count: int) -> list[str | None] | None:
        """A text for each of `count` frames: that of row k goes to frame places[k], -1: nowhere."""
        if self.texts is None:
            return None
        texts: list[str | None] = [None] * count
        for place, text in zip(places.tolist(), self.texts, strict=True):
            if place >= 0:
                texts[place] = text
        return texts


def _clip(index: VideoIndex, span: VideoSpan, rate: Fraction) -> VideoClip:
    """The frames of an episode, on the episode's own clock."""
    if span.stop_s == math.inf:
        return VideoClip.whole(index)
    start_ns, stop_ns = (int(Fraction(s) * SECOND_NS) for s in (span.start_s, span.stop_s))
    half_ns = int(SECOND_NS / rate / 2)
    return VideoClip.between(index, start_ns, stop_ns, slack_ns=half_ns).shifted(-start_ns)


def _frames_of(rows: _Rows, clip: VideoClip, rate: Fraction) -> tuple[Index, tuple[str, ...]]:
    """For each row the frame less than half an interval from its time, or -1; and what to tell.

    Raises:
        RefusedInput: LOG_COVERAGE, most rows have none.
    """
    half_ns = int(SECOND_NS / rate / 2)
    places, away = nearest_frames(steps_ns(rows.frames, rate), clip.times_ns, half_ns)
    if rows.clock_notes:
        # A video that keeps the real times is met at them; one at the nominal rate is not.
        real, real_away = nearest_frames(rows.times_ns, clip.times_ns, half_ns)
        if ((real >= 0).sum(), -real_away) > ((places >= 0).sum(), -away):
            places = real
    found = places >= 0
    if found.sum() < MIN_COVERAGE * rows.count:
        raise RefusedInput(
            Reason.LOG_COVERAGE,
            f"{found.sum()} of {rows.count} rows have a frame in {clip.index.path.name}",
        )
    missing, spare = rows.count - int(found.sum()), len(clip.times_ns) - int(found.sum())
    notes = [f"{missing} rows without a frame: left out"] if missing else []
    notes += [f"{spare} frames without a row: action not known"] if spare else []
    return places, tuple(notes)


def _spread(values: NDArray[F], places: Index, count: int) -> NDArray[F]:
    """Rows laid out on `count` frames: row k on frame places[k], -1: nowhere; NaN elsewhere."""
    table = np.full((count, *values.shape[1:]), np.nan, values.dtype)
    table[places[places >= 0]] = values[places >= 0]
    return table
