"""Files that were not downloaded: small pointers, or an error page, in the place of the real file.

A pointer among a recording's files makes the whole recording unusable: without its log or its
metadata it would be read as something else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from wham_data.files.found import is_pointer, stand_in
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import Recording

NO_INPUTS: Final = frozenset({
    ".md", ".rst", ".pdf", ".gif", ".svg", ".ico", ".webp", ".png", ".jpg", ".jpeg", ".ipynb", ".ttf",
    ".ckpt", ".safetensors", ".onnx",
})  # fmt: skip
"""Endings of files that are no recordings by themselves: documents, pictures, models."""
DATA_ENDINGS: Final = frozenset({
    ".npz", ".npy", ".hdf5", ".h5", ".parquet", ".arrow", ".pt", ".pth", ".mcap", ".mdb",
})  # fmt: skip
"""Endings of files of data that are never something else."""
META: Final = "meta"
"""The folder of a LeRobot data set's descriptions, beside its files."""

Pointers = Mapping[Path, RefusedInput]


def pointers_among(files: Iterable[Path]) -> dict[Path, RefusedInput]:
    """The pointers among files, each with its refusal."""
    return {path: refusal for path in files if is_pointer(path) and (refusal := not_there(path))}


def not_there(path: Path) -> RefusedInput | None:
    """The refusal of a file in whose place is something else; None: it is a file of some kind."""
    why = stand_in(path)
    if why is None:
        return None
    empty = why.startswith("empty")
    return RefusedInput(Reason.EMPTY_FILE if empty else Reason.NOT_DOWNLOADED, why)


def refusal_of(recording: Recording, pointers: Pointers) -> RefusedInput | None:
    """The refusal of a recording of whose files one is a pointer; None: all are there."""
    return next((_named(recording, p, pointers[p]) for p in recording.files if p in pointers), None)


def better_reason(recording: Recording, why: RefusedInput) -> RefusedInput:
    """The refusal of a recording that could not be opened: that a file is not there comes first."""
    if why.reason == Reason.NOT_A_VIDEO:  # which says the same of the video
        return why
    for path in recording.files:
        found = not_there(path)
        if found is not None and found.reason != Reason.EMPTY_FILE:
            return _named(recording, path, found)
    return why


def among_pointers(path: Path, why: RefusedInput, pointers: Collection[Path]) -> RefusedInput:
    """The refusal of a file that may be refused only because of the pointers around it."""
    folder = path.parent.parent if path.parent.name == META else path.parent
    around = sorted(each for each in pointers if each.is_relative_to(folder))
    if not around or why.reason == Reason.NOT_DOWNLOADED:
        return why
    files = "file here is a pointer" if len(around) == 1 else "files here are pointers"
    return RefusedInput(
        why.reason,
        f"{len(around)} {files} in the place of the real file ({around[0].name}): run `git lfs pull` "
        f"or the like. As it is: {why.message}",
    )


def unclaimed_refusal(path: Path, pointers: Pointers) -> RefusedInput | None:
    """The refusal of a file that no reader took, if it is not there; None: it may be ignored."""
    ending = path.suffix.lower()
    if path in pointers:
        return None if ending in NO_INPUTS else pointers[path]
    return not_there(path) if ending in DATA_ENDINGS else None


def _named(recording: Recording, path: Path, why: RefusedInput) -> RefusedInput:
    """The refusal of one file as that of its recording."""
    if path == recording.path:
        return why
    return RefusedInput(why.reason, f"{path.name}: {why.message}")
