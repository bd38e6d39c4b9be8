"""Files beside a video: found whatever the case of their endings, and told from other tools' files."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from wham_data.files.json_lines import read_json
from wham_data.pipelines.readers.video_log.film.dash import (
    PIECE_ENDING,
    PLAYLIST_ENDING,
    read_playlist,
)
from wham_data.pipelines.readers.video_log.log_metadata import KNOWN_KEYS, read_metadata
from wham_data.schemas.errors import Reason, RefusedInput

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


def is_stray(metadata: Path) -> bool:
    """Whether a .json beside a video is another tool's: it has keys we do not know, and does not fit.

    One with keys of ours alone that does not fit is ours and wrong.
    """
    if metadata.suffix.lower() != ".json":
        return False
    try:
        read_metadata(metadata)
    except RefusedInput as why:
        if why.reason is not Reason.METADATA:
            return False
    else:
        return False
    try:
        said = read_json(metadata)
    except RefusedInput:
        return False
    return not isinstance(said, dict) or not said.keys() <= set(KNOWN_KEYS)


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
