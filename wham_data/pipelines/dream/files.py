"""The files of dreams.

    OUT/dreams.json            the settings that all dreams in the folder have in common
    OUT/pictures.json          the settings of their mp4, gif, png and overlay files
    OUT/NAME.npz               the same arrays as from the published program
    OUT/NAME.mp4, NAME.gif     the context, then the dream
    OUT/NAME/frames/00000.png  the pictures of the dream
    OUT/NAME/overlay.mp4       recording on the left, dream on the right, gamepad below
    OUT/NAME/actions.csv       the action of each step of the dream
    OUT/NAME/tokens.npy        the tokens that the model read and wrote; all other files can be made
                               from them
    OUT/NAME/actions.npy       the actions, if tokens.npy does not include them (see model_steps.py)
    OUT/NAME/dream.json        inputs, settings and model of the dream; written last

A dream is complete if its `dream.json` is there. All files of a dream are written to a temporary
folder and then renamed, so each is complete or absent.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from wham_data.corpus.storage.contract import TEMPORARY, one_line
from wham_data.corpus.storage.locations import open_storage
from wham_data.files.whole import differences, private_folder, put_in_place, read_object
from wham_data.inference.tokenizer import Tokenizer
from wham_data.pipelines.dream.actions import STEP
from wham_data.pipelines.dream.model_steps import ModelSteps
from wham_data.pipelines.dream.pictures import (
    Provenance,
    write_dream_gif,
    write_dream_pngs,
    write_dream_video,
    write_overlay,
)
from wham_data.pipelines.dream.report import FILE_KINDS, FileKind
from wham_data.pipelines.run.claims import PREFIX as CLAIM
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.errors import IntegrityError, MismatchError
from wham_data.schemas.recording import Frames
from wham_data.schemas.wham_tokens import bins_from_measured

DREAMS: Final = "dreams.json"
PICTURES: Final = "pictures.json"
WATCHED: Final[frozenset[FileKind]] = frozenset({"mp4", "gif", "png", "overlay"})
STAGING: Final = ".dream-"
DAY_SECONDS: Final = 86_400
MOST_JSON_BYTES: Final = 4 << 20
BATCH: Final = 32

_PLACES: Final[Mapping[str, str]] = {
    "npz": ".npz",
    "mp4": ".mp4",
    "gif": ".gif",
    "png": "/frames",
    "overlay": "/overlay.mp4",
    "csv": "/actions.csv",
    "tokens": "/tokens.npy",
    "actions": "/actions.npy",
    "json": "/dream.json",
}
"""Kind of file -> its path after the dream's name."""


@dataclass(frozen=True, slots=True)
class DreamtSteps:
    """A dream with its context.

    context   C, number of steps of the context
    arrays    the C + K steps that the model read and wrote; see `ModelSteps.to_arrays`
    truth     uint16 [C + F, N], tokens of the recorded pictures; F <= K
    pictures  uint8 [C, H, W, 3], recorded pictures of the context; None: decoded from its tokens
    """

    context: int
    arrays: Mapping[str, NDArray[Any]]
    truth: NDArray[np.uint16]
    pictures: Frames | None


@dataclass(frozen=True, slots=True)
class Look:
    """Settings of the videos and pictures.

    interpolate  frames per second of the mp4; None: 10, as in the dream
    upscale      factor of width and height
    """

    interpolate: Fraction | None = None
    upscale: int = 1

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        rate = self.interpolate
        return {"interpolate": None if rate is None else str(rate), "upscale": self.upscale}


@dataclass(frozen=True, slots=True)
class SavedDream:
    """The parts of a `dream.json` that a later run needs.

    identity  of the episode
    source    of the episode
    start     step of the episode at which the context begins
    """

    identity: str
    source: str
    start: int


def dream_path(out: Path, name: str, what: str) -> Path:
    """The path of a file of a dream.

    Args:
        out: folder of the dreams.
        name: of the dream.
        what: kind of file, or "tokens", "actions" or "json".
    """
    return out / f"{name}{_PLACES[what]}"


class DreamFolder:
    """The folder OUT of dreams.

    Attributes:
        root: its path; made when the first dream is begun.
    """

    def __init__(
        self,
        root: Path,
        steps: ModelSteps,
        tokenizer: Tokenizer,
        settings: Mapping[str, object],
        look: Look,
    ) -> None:
        """Describe a folder; nothing is written yet.

        Args:
            root: its path.
            steps: content of the model's steps.
            tokenizer: the model's, for decoding.
            settings: plain values that must be equal for all dreams in the folder.
            look: settings of the videos and pictures.
        """
        self.root = root
        self._steps = steps
        self._tokenizer = tokenizer
        self._settings = settings
        self._look = look

    def path(self, name: str, what: str) -> Path:
        """See `dream_path`."""
        return dream_path(self.root, name, what)

    def sweep(self) -> None:
        """Remove what killed runs left if it is older than a day: temporary folders, claims."""
        for left in self.root.glob(".*"):
            if not left.name.startswith((STAGING, CLAIM, TEMPORARY)):
                continue
            with suppress(FileNotFoundError):  # another run has just removed it
                if time.time() - left.stat().st_mtime > DAY_SECONDS:
                    if left.is_dir():
                        shutil.rmtree(left, ignore_errors=True)
                    else:
                        left.unlink()

    def check(self, kinds: Sequence[FileKind]) -> None:
        """Compare the stored settings of the folder with those of this run.

        Raises:
            MismatchError: the settings differ; the message lists the differences.
            IntegrityError: the file of the settings is damaged.
        """
        for name, settings in self._notes(kinds):
            if not (self.root / name).is_file():
                continue
            noted = read_object(self.root / name, MOST_JSON_BYTES)
            if noted is None:
                raise IntegrityError(f"{self.root / name}: damaged. Dream into another --out")
            if changed := differences(noted, settings, _json):
                raise MismatchError(
                    f"{self.root}: the dreams in this folder were made with other settings "
                    f"({'; '.join(changed)}). Use the same settings, or another --out"
                )

    def _notes(self, kinds: Sequence[FileKind]) -> Iterator[tuple[str, Mapping[str, object]]]:
        """The settings for these kinds of files: name of the file that stores them -> values."""
        yield DREAMS, self._settings
        if WATCHED & set(kinds):
            yield PICTURES, self._look.to_dict()

    def _note(self, kinds: Sequence[FileKind]) -> None:
        """Store the settings of the files that will be saved, if they are not stored yet."""
        for name, settings in self._notes(kinds):
            text = json.dumps(settings, indent=2, ensure_ascii=False) + "\n"
            open_storage(self.root).put_if_absent(name, text.encode("utf-8", "backslashreplace"))
        self.check(kinds)  # another run may have come first

    def saved(self, name: str) -> SavedDream | None:
        """The content of a dream's `dream.json`; None if it is missing or incomplete."""
        match read_object(self.path(name, "json"), MOST_JSON_BYTES):
            case {
                "identity": str(identity),
                "source": str(source),
                "context": {"start": int(start)},
            }:
                return SavedDream(identity, source, start)
        return None

    def missing(self, name: str, kinds: Sequence[FileKind]) -> tuple[FileKind, ...]:
        """Those of the kinds whose files are missing."""
        return tuple(kind for kind in kinds if not self.path(name, kind).exists())

    def arrays(self, name: str, steps: int) -> dict[str, NDArray[Any]] | None:
        """The saved steps of a dream, see `ModelSteps.to_arrays`; None if incomplete."""
        found = {
            what: _array(self.path(name, what), shape, dtype)
            for what, (shape, dtype) in self._steps.shapes(steps).items()
        }
        whole = {what: array for what, array in found.items() if array is not None}
        return whole if len(whole) == len(found) else None

    def save(
        self,
        name: str,
        dreamt: DreamtSteps,
        kinds: Sequence[FileKind],
        provenance: Provenance,
        description: Mapping[str, object] | None,
    ) -> None:
        """Write files of a dream and put them in place.

        Args:
            name: of the dream.
            dreamt: the dream.
            kinds: kinds of files to write.
            provenance: for the metadata of videos and pictures.
            description: content of `dream.json`; None: the dream is saved already, and these are
                additional files.

        Raises:
            MismatchError: another run has meanwhile saved files with other settings.
            WhamDataError: the disk is full or fails.
        """
        self._note(kinds)
        with one_line(self.root), private_folder(self.root, STAGING) as folder:
            _staged(folder, "json").parent.mkdir()
            made = [kind for kind in FILE_KINDS if kind in kinds]
            staged = _StagedFiles(
                folder, dreamt, self._steps, self._tokenizer, provenance, self._look
            )
            staged.write(made)
            places: list[str] = list(made)
            if description is not None:
                places += [*self._steps.files, "json"]
                for what in self._steps.files:
                    with _staged(folder, what).open("wb") as file:
                        np.save(file, dreamt.arrays[what])
                text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
                _staged(folder, "json").write_bytes(text.encode("utf-8", "backslashreplace"))
            for what in places:
                put_in_place(_staged(folder, what), self.path(name, what))


def _staged(folder: Path, what: str) -> Path:
    """The temporary path of a file."""
    return dream_path(folder, "dream", what)


def _array(path: Path, shape: tuple[int, int], dtype: type) -> NDArray[Any] | None:
    """The array in a file; None if it is incomplete, or has another shape or dtype."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(array, np.ndarray) or (array.dtype, array.shape) != (dtype, shape):
        return None
    return np.array(array)


@dataclass(frozen=True, slots=True)
class _StagedFiles:
    """The files of a dream in a temporary folder. Every picture is decoded only once."""

    folder: Path
    dreamt: DreamtSteps
    parts: ModelSteps
    tokenizer: Tokenizer
    provenance: Provenance
    look: Look

    def write(self, kinds: Sequence[FileKind]) -> None:
        """Write these kinds of files. Decoded pictures are kept in memory-mapped files."""
        dreamt, steps = self.dreamt, self.dreamt.context
        images, actions = self.parts.from_arrays(dreamt.arrays)
        shown = set(kinds) - {"csv"}
        compared = shown & {"npz", "overlay"} or (shown and dreamt.pictures is None)
        dream = self._decoded(images[steps:] if shown else images[:0], "dream.npy")
        truth = self._decoded(dreamt.truth[: None if compared else 0], "truth.npy")
        pictures = truth[:steps] if dreamt.pictures is None else dreamt.pictures
        for kind in kinds:
            if kind == "npz":
                bins, _ = bins_from_measured(actions)
                write_npz(_staged(self.folder, kind), pictures, dream, bins, truth)
            elif kind == "csv":
                text = actions_csv(actions[steps:], self.parts.space)
                _staged(self.folder, kind).write_text(text, encoding="utf-8")
            else:
                recorded = iter(truth[steps:]) if len(truth) > steps else None
                self._watched(kind, pictures, dream, recorded, actions[steps:])

    def _decoded(self, tokens: NDArray[np.integer], name: str) -> Frames:
        return decoded(tokens, self.tokenizer, self.folder / name)

    def _watched(
        self,
        kind: FileKind,
        pictures: Frames,
        dream: Frames,
        recorded: Iterator[Frames] | None,
        actions: NDArray[np.float32],
    ) -> None:
        """Write a video or pictures: the context's `pictures`, then the dream."""
        path, provenance, look = _staged(self.folder, kind), self.provenance, self.look
        film = chain(pictures, dream)
        match kind:
            case "mp4":
                write_dream_video(
                    path, film, provenance, interpolate=look.interpolate, upscale=look.upscale
                )
            case "gif":
                write_dream_gif(path, film, provenance, upscale=look.upscale)
            case "png":
                write_dream_pngs(path, dream, provenance, upscale=look.upscale)
            case "overlay":
                space = self.parts.space
                write_overlay(
                    path, recorded, dream, actions, space, provenance, upscale=look.upscale
                )


def decoded(tokens: NDArray[np.integer], tokenizer: Tokenizer, path: Path) -> Frames:
    """Pictures of tokens, uint8 [n, H, W, 3], in a file that is mapped."""
    width, height = tokenizer.frame_size
    shape = (len(tokens), height, width, 3)
    pictures = npy.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    for first in range(0, len(tokens), BATCH):
        pictures[first : first + BATCH] = tokenizer.decode(tokens[first : first + BATCH])
    return pictures


def write_npz(
    path: Path,
    context: Frames,
    dream: Frames,
    bins: NDArray[np.float32],
    truth: Frames,
) -> None:
    """The file that the published program writes, array by array and picture by picture.

    Args:
        path: the file to make.
        context: uint8 [C, H, W, 3].
        dream: uint8 [K, H, W, 3].
        bins: float32 [C + K, 16], the sticks as bins.
        truth: uint8 [C + F, H, W, 3]; F is K wherever so much was recorded.
    """
    arrays: dict[str, NDArray[Any]] = {
        "context_length": np.array(len(context), np.int64),
        "steps_to_dream": np.array(len(dream), np.int64),
        "raw_context": context.transpose(0, 3, 1, 2),
        "dreamt_images": dream.transpose(0, 3, 1, 2),
        "all_actions": bins,
        "encoded_decoded_ground_truth_images": truth.transpose(0, 3, 1, 2),
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, values in arrays.items():
            header = {"descr": npy.dtype_to_descr(values.dtype), "fortran_order": False}
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                npy.write_array_header_1_0(member, {**header, "shape": values.shape})
                for part in values if values.ndim else [values]:
                    member.write(part.tobytes())


def actions_csv(actions: NDArray[np.float32], space: ActionSpace) -> str:
    """A header and a row per step: `step`, then the dimensions of the model's space, measured.

    Args:
        actions: float32 [K, A].
        space: the model's.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([STEP, *space.names])
    table.writerows([step, *(f"{value:g}" for value in row)] for step, row in enumerate(actions))
    return text.getvalue()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
