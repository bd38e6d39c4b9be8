"""The files and folders that the user gives, on this disk and on object stores."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from wham_data.corpus.storage.sources.folders import is_file, is_folder, listed
from wham_data.files.found import NOT_OPENED, VIDEO_ENDINGS, hollow
from wham_data.files.links import follow_within, input_path, is_plain_file, target_of
from wham_data.pipelines.readers.kit.units import Given
from wham_data.pipelines.readers.video_log.film.dash import PLAYLIST_ENDING
from wham_data.pipelines.readers.video_log.film.sessions import series_start
from wham_data.pipelines.readers.video_log.reader import SHARED_LOG
from wham_data.schemas.errors import RefusedInput, UsageError
from wham_data.schemas.paths import is_in_store, store_path


def given(sources: Sequence[str | Path]) -> tuple[Given, list[Path]]:
    """The sources as they lie in the file system and in stores, and those of them that are folders.

    Raises:
        UsageError: one does not exist.
        WhamDataError: a store refuses, or did not answer in time.
    """
    top = Given()
    paths = {source: store_path(source) or input_path(source) for source in sources}
    folders = [path for path in dict.fromkeys(paths.values()) if is_folder(path)]
    local = {path for path in paths.values() if not is_in_store(path)}
    follow_within(local.intersection(folders), local.difference(folders))
    for source, path in paths.items():
        if path in folders:
            top.at(path).whole = True
            continue
        try:
            refusal = _refusal(path)
        except (OSError, ValueError):
            what = "object or folder" if is_in_store(path) else "file or folder"
            raise UsageError(f"{ascii(str(source))[1:-1]}: no such {what}") from None
        if refusal is None:
            top.at(path.parent).files.add(path.name)
        else:
            top.at(path.parent).refused[path] = refusal
    return top, folders


def _refusal(path: Path) -> RefusedInput | None:
    """Why a source that is no folder must not be opened; None: it may be.

    Raises:
        OSError, ValueError: it does not exist.
    """
    if is_in_store(path):
        if not is_file(path):
            raise FileNotFoundError(path)
        return None
    try:
        mode = target_of(path).lstat().st_mode
    except RefusedInput as why:
        return why
    return hollow(path) if stat.S_ISREG(mode) else NOT_OPENED


def files_beside(path: Path) -> Iterator[Path]:
    """Files in the folder of `path` that may belong to it.

    They are those whose names start with its stem, with what a series of files has in common, or with
    `actions.`; the other videos, which decide whose log `actions.*` is; all, beside a playlist.
    """
    starts = path.name.partition(".")[0], f"{SHARED_LOG}.", *series_start(path.stem)
    endings = ("",) if path.suffix.lower() == PLAYLIST_ENDING else tuple(VIDEO_ENDINGS)
    stored = is_in_store(path)
    for name in listed(path.parent).files if stored else os.listdir(path.parent):  # noqa: PTH208
        named = name.startswith(starts) or name.lower().endswith(endings)
        if named and (stored or is_plain_file(path.with_name(name))):
            yield path.with_name(name)
