"""Recordings whose video is in several files: sessions of a recorder that splits, and DASH folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from wham_data.pipelines.readers.kit.open_recordings import VideoClip, check_length, read_video
from wham_data.pipelines.readers.video_log.film.dash import (
    PIECE_ENDING,
    PLAYLIST_ENDING,
    check_end,
    check_pieces,
    pieces_among,
    read_playlist,
)
from wham_data.pipelines.readers.video_log.film.sessions import Extent, sessions_in, starts_of
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.clock import Index, Nanos
from wham_data.schemas.errors import RefusedInput


@dataclass(frozen=True, slots=True)
class More:
    """What belongs to a recording besides its main file and what is named as that.

    log    its log, if that has another name than the main file; its metadata is named as the log
    files  the other files of the video, in order
    companions  files that are of the recording but not read
    """

    log: Path | None = None
    files: tuple[Path, ...] = ()
    companions: tuple[Path, ...] = ()


def more_of(
    files: Iterable[Path],
    videos: Iterable[Path],
    logs: Mapping[Path, Path],
    shared: Mapping[Path, Path],
) -> dict[Path, More]:
    """By main file, the recordings whose video is in several files: sessions, and DASH folders.

    Args:
        files: every file.
        videos: those of them that are videos by their endings.
        logs, shared: as in `sessions_in`.
    """
    more = {
        session.videos[0]: More(log=session.log, files=session.videos[1:])
        for session in sessions_in(videos, logs, shared)
    }
    more |= _dash_folders(files)
    return more


def _dash_folders(files: Iterable[Path]) -> dict[Path, More]:
    """The DASH recordings, by playlist."""
    listed = list(files)
    playlists = [path for path in listed if path.suffix.lower() == PLAYLIST_ENDING]
    folders: dict[Path, dict[str, Path]] = {path.parent: {} for path in playlists}
    for path in listed:
        if path.parent in folders:
            folders[path.parent][path.name] = path
    found = {}
    for path in playlists:
        beside = folders[path.parent]
        try:
            pieces = pieces_among(read_playlist(path), beside)
        except RefusedInput:  # reported when the recording is opened
            pieces = ()
        others = {each for each in beside.values() if each.suffix.lower() == PIECE_ENDING}
        found[path] = More(files=pieces, companions=tuple(sorted(others.difference(pieces))))
    return found


def film_of(
    video: Path,
    more: Sequence[Path],
    declared_ns: Sequence[int] | None,
    limits: VideoLimits,
) -> tuple[tuple[VideoClip, ...], bool, tuple[str, ...]]:
    """The video of a recording, on one clock.

    Args:
        video: the main file.
        more: the other files of the video, in order.
        declared_ns: when each file starts, by the metadata; None: not said.
        limits: of each file, and of the length of all.

    Returns:
        a clip of each file, whether their starts are guessed, and what a person should know.

    Raises:
        RefusedInput: a file is missing or cannot be read, or its place on the clock cannot be known.
    """
    if video.suffix.lower() == PLAYLIST_ENDING:
        clip, notes = _dash_clip(video, tuple(more), limits)
        return (clip,), False, notes
    indexes = [read_video(path, limits) for path in (video, *more)]
    clips = [VideoClip.whole(index) for index in indexes]
    extents = [Extent(int(i.times_ns[0]), int(i.times_ns[-1]), i.end_ns) for i in indexes]
    if len(clips) == 1:
        return tuple(clips), False, ()
    names = [path.stem for path in (video, *more)]
    starts, guessed, note = starts_of(names, extents, declared_ns)
    placed = []
    for clip, extent, start, after in zip(clips, extents, starts, [*starts[1:], None], strict=True):
        moved = clip.shifted(start - extent.first_ns)
        end_ns = moved.end_ns if after is None else min(moved.end_ns, after)
        placed.append(replace(moved, end_ns=end_ns))
    count = sum(len(clip.times_ns) for clip in placed)
    check_length(count, placed[-1].end_ns - starts[0], limits)
    return tuple(placed), guessed, (note,)


def _dash_clip(
    playlist_file: Path, pieces: tuple[Path, ...], limits: VideoLimits
) -> tuple[VideoClip, tuple[str, ...]]:
    playlist = read_playlist(playlist_file)
    names = [path.name for path in pieces]
    notes = check_pieces(playlist, names)
    index = read_video(playlist_file, limits, pieces)
    clip = VideoClip.whole(index).shifted(-playlist.zero_ns)
    check_end(playlist, names, int(clip.times_ns[0]), clip.end_ns)
    return clip, (*notes, f"DASH recording read from {len(pieces)} pieces")


def retimed(
    clips: Sequence[VideoClip], first: int, times_ns: Nanos, end_ns: int
) -> tuple[VideoClip, ...]:
    """The same film at other times, and without what is not covered by them.

    Args:
        clips: the film.
        first: number of the first frame that is kept.
        times_ns: int64 [N], when frames first .. first + N - 1 come on screen.
        end_ns: when the last one leaves it.
    """
    kept = []
    base = 0
    for clip in clips:
        start, stop = (
            min(max(first, edge), first + len(times_ns))
            for edge in (base, base + len(clip.times_ns))
        )
        if start < stop:
            after = stop - first
            until = int(times_ns[after]) if after < len(times_ns) else end_ns
            mine = times_ns[start - first : after]
            kept.append(VideoClip(clip.index, clip.first + start - base, mine, until))
        base += len(clip.times_ns)
    return tuple(kept)


def seams(clips: Sequence[VideoClip]) -> Index:
    """Positions of the frames with which a file other than the first begins."""
    return np.cumsum([len(clip.times_ns) for clip in clips])[:-1].astype(np.int64)
