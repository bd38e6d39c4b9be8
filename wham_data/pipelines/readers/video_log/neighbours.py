"""Files beside a video: found whatever the case of their endings, and told from other tools' files."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Final

from wham_data.files.found import VIDEO_ENDINGS
from wham_data.files.json_lines import read_json
from wham_data.pipelines.readers.video_log.film.dash import (
    PIECE_ENDING,
    PLAYLIST_ENDING,
    read_playlist,
)
from wham_data.pipelines.readers.video_log.log_metadata import (
    KNOWN_KEYS,
    LogMetadata,
    read_metadata,
)
from wham_data.pipelines.readers.video_log.log_words import listed
from wham_data.schemas.errors import Reason, RefusedInput

LOG_ENDINGS: Final = (".csv", ".jsonl", ".parquet", ".csv.gz", ".jsonl.gz", ".tsv", ".tsv.gz")
JSON_LOG_ENDINGS: Final = (".json", ".json.gz")
LOG_LIKE_ENDINGS: Final = (
    ".json",
    ".txt",
    ".log",
    ".xlsx",
    ".npz",
    ".npy",
    ".pkl",
    ".mcap",
)
MOST_LISTED: Final = 10_000
_NUMBERED: Final = re.compile(r"[-_ .]?(?:part)?[-_ .]?\d{1,6}$", re.IGNORECASE)


def by_folded_ending(files: Iterable[Path], endings: Iterable[str]) -> dict[Path, Path]:
    """Files by their path with the ending in lower case: `S.CSV` stands under `S.csv`.

    Where two differ in the case of their endings alone, the one in lower case stands there.
    """
    known = tuple(endings)
    found: dict[Path, Path] = {}
    for path in files:
        lower = path.name.lower()
        for ending in known:
            if lower.endswith(ending):
                folded = path.with_name(path.name[: -len(ending)] + ending)
                if folded not in found or path == folded:
                    found[folded] = path
    return found


def beside(video: Path, endings: Iterable[str], folded: Mapping[Path, Path]) -> list[Path]:
    """Files of the video's stem with one of these endings, in the order of the endings."""
    every = (folded.get(video.with_name(video.stem + ending)) for ending in endings)
    return [path for path in every if path is not None and path != video]


def metadata_among(files: Iterable[Path]) -> tuple[list[Path], list[Path], LogMetadata]:
    """Tell metadata of ours from another tool's, and read ours.

    A .json is another tool's if it has keys we do not know, and does not fit. One with keys of ours
    alone that does not fit is ours and wrong.

    Args:
        files: the .toml and .json beside a video that are no log.

    Returns:
        Ours, those of other tools, and what the first of ours says: nothing if it is wrong, which is
        reported when the recording is opened.
    """
    ours: dict[Path, LogMetadata] = {}
    strays = []
    for path in files:
        try:
            ours[path] = read_metadata(path)
        except RefusedInput as why:
            if why.reason is Reason.METADATA and _has_keys_of_others(path):
                strays.append(path)
            else:
                ours[path] = LogMetadata()
    return list(ours), strays, next(iter(ours.values()), LogMetadata())


def _has_keys_of_others(metadata: Path) -> bool:
    """Whether a .json is no object, or has keys that are not ours."""
    if metadata.suffix.lower() != ".json":
        return False
    try:
        said = read_json(metadata)
    except RefusedInput:
        return False
    return not isinstance(said, dict) or not said.keys() <= set(KNOWN_KEYS)


def log_candidates(video: Path) -> list[str]:
    """Names of files in the video's folder that may be its log under another name, at most five.

    Those that lie beside another video of their own name are that one's. Forms that are read come
    first.
    """
    try:
        likely, videos = _likely_in(video.parent, video.parent.stat().st_mtime_ns)
    except OSError:
        return []
    taken = videos - {video.stem}
    return [name for name in likely if name.partition(".")[0] not in taken][:5]


@lru_cache(maxsize=1)
def _likely_in(folder: Path, _: int) -> tuple[list[str], frozenset[str]]:
    """The names of log-like files in a folder, and the stems of its videos.

    Remembered until the folder's time of change is another: many videos of one folder ask for it.
    """
    with os.scandir(folder) as entries:
        names = [e.name for e in islice(entries, MOST_LISTED) if e.is_file()]
    logs = [name for name in names if name.lower().endswith(LOG_ENDINGS + LOG_LIKE_ENDINGS)]
    videos = frozenset(Path(n).stem for n in names if Path(n).suffix.lower() in VIDEO_ENDINGS)
    return sorted(logs, key=lambda name: (not name.lower().endswith(LOG_ENDINGS), name)), videos


def rename_hint(video: Path) -> str:
    """How to name the files in the video's folder that look like its log; "" without any."""
    names = log_candidates(video)
    if not names:
        return "; nothing else in its folder looks like one"
    read = [name for name in names if name.lower().endswith(LOG_ENDINGS)]
    if not read:
        forms = ", ".join(LOG_ENDINGS[:3])
        return f"; in its folder: {listed(names)}, in no form that is read: save the log as {forms}"
    ending = next(each for each in LOG_ENDINGS if read[0].lower().endswith(each))
    others = f" (the folder also has {listed(names[1:])})" if names[1:] else ""
    return f"; if {listed(read[:1])} is its log, name it {video.stem}{ending}{others}"


def session_log(video: Path, logs: Iterable[Path]) -> Path | None:
    """A log in the video's folder that is called as the video is but for a number at its end."""
    whole = _NUMBERED.sub("", video.stem)
    if whole == video.stem or not whole:
        return None
    stems = ((path, path.name.partition(".")[0]) for path in logs if path.parent == video.parent)
    return next((path for path, stem in stems if stem == whole), None)


def session_message(video: Path, log: Path) -> str:
    """What to do with a session whose video is in several files and whose log is in one."""
    whole = log.name.partition(".")[0]
    return (
        f"; {log.name} looks like the log of all files {whole}*{video.suffix}: join them in order into "
        f"{whole}{video.suffix} (ffmpeg -f concat -c copy), which is then read with it"
    )


def pieces_of_playlists(files: Collection[Path]) -> frozenset[Path]:
    """The pieces of DASH recordings whose playlist is among the files, and is looked at for them all."""
    folders = {path.parent for path in files if path.suffix.lower() == PLAYLIST_ENDING}
    return frozenset(
        path for path in files if path.suffix.lower() == PIECE_ENDING and path.parent in folders
    )


def dash_refusal(path: Path) -> RefusedInput | None:
    """Why a DASH recording, or a piece without its playlist, is refused; None for another file."""
    if path.suffix.lower() == PLAYLIST_ENDING:
        try:
            read_playlist(path)
        except RefusedInput as why:
            return why
        return RefusedInput(
            Reason.LOG_MISSING,
            f"a DASH recording without a controller log; looked for {path.stem}.csv and actions.csv "
            "beside it",
        )
    if path.suffix.lower() != PIECE_ENDING:
        return None
    return RefusedInput(
        Reason.FORMAT_NOT_ALLOWED,
        "a piece of a DASH recording, without the .mpd that says how to read it: export it, or join "
        "its pieces: cat init-stream0.m4s chunk-stream0-*.m4s > session.mp4",
    )
