"""What is left of a dream on disk.

    OUT/dreams.json            what all dreams in here agree on
    OUT/pictures.json          how their mp4, gif, png and overlay files are made
    OUT/NAME.npz               the arrays, as the published program writes them
    OUT/NAME.mp4, NAME.gif     the context, then the dream
    OUT/NAME/frames/00000.png  the dreamt pictures
    OUT/NAME/overlay.mp4       truth left, dream right, the pad below
    OUT/NAME/actions.csv       what was done at each dreamt step
    OUT/NAME/tokens.npy        what the model read and wrote; every other file can be made from it
    OUT/NAME/actions.npy       the actions, where tokens.npy does not hold them (see model_steps.py)
    OUT/NAME/dream.json        what the dream was made of and with; written last

A dream whose `dream.json` is there is done. All files of one are written into a folder of their own
first and then renamed, so each is there whole or not at all.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from wham_data.corpus.storage.contract import one_line
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
"""What follows the dream's name."""


@dataclass(frozen=True, slots=True)
class DreamtSteps:
    """A dream with what it started from.

    context   C
    arrays    the C + K steps as the model read and wrote them; see `ModelSteps.to_arrays`
    truth     uint16 [C + F, N], the recorded pictures as tokens, as far as there are any; F <= K
    pictures  uint8 [C, H, W, 3] the context as recorded; None: as decoded from its tokens
    """

    context: int
    arrays: Mapping[str, NDArray[Any]]
    truth: NDArray[np.uint16]
    pictures: Frames | None


@dataclass(frozen=True, slots=True)
class Look:
    """How the files that one watches are made.

    interpolate  frames per second of the mp4; None: the dream's own 10
    upscale      times as wide and high
    """

    interpolate: Fraction | None = None
    upscale: int = 1

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        rate = self.interpolate
        return {"interpolate": None if rate is None else str(rate), "upscale": self.upscale}


@dataclass(frozen=True, slots=True)
class SavedDream:
    """What of a `dream.json` matters to a later run.

    identity  of the episode
    source    where that came from
    start     the step of it that the dream started from
    """

    identity: str
    source: str
    start: int


def dream_path(out: Path, name: str, what: str) -> Path:
    """Where a file of a dream lies: a kind, "tokens", "actions" or "json"."""
    return out / f"{name}{_PLACES[what]}"


class DreamFolder:
    """OUT: where dreams are kept.

    Attributes:
        root: its path; made when the first dream is saved.
    """

    def __init__(
        self,
        root: Path,
        steps: ModelSteps,
        tokenizer: Tokenizer,
        settings: Mapping[str, object],
        look: Look,
    ) -> None:
        """Look at a folder; nothing is made.

        Args:
            root: its path.
            steps: what the model's steps are made of.
            tokenizer: the model's, which decodes.
            settings: plain values that all dreams in there have to agree on.
            look: how the files that one watches are made.
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
        """Remove what runs that were killed left half-written, a day ago or longer."""
        for left in self.root.glob(f"{STAGING}*"):
            if time.time() - left.stat().st_mtime > DAY_SECONDS:
                shutil.rmtree(left, ignore_errors=True)

    def check(self, kinds: Sequence[FileKind]) -> None:
        """Compare what is noted of the dreams in here with what is to be made now.

        Raises:
            MismatchError: they were made with other settings; the line lists them.
            IntegrityError: the note is damaged.
        """
        for name, wanted in self._notes(kinds):
            if not (self.root / name).is_file():
                continue
            noted = read_object(self.root / name, MOST_JSON_BYTES)
            if noted is None:
                raise IntegrityError(f"{self.root / name}: damaged. Dream into another --out")
            if changed := differences(noted, wanted, _json):
                raise MismatchError(
                    f"{self.root}: what is in there was made with other settings "
                    f"({'; '.join(changed)}). Use the same settings, or another --out"
                )

    def _notes(self, kinds: Sequence[FileKind]) -> Iterator[tuple[str, Mapping[str, object]]]:
        """The notes that these kinds of files have to agree with."""
        yield DREAMS, self._settings
        if WATCHED & set(kinds):
            yield PICTURES, self._look.to_dict()

    def _note(self, kinds: Sequence[FileKind]) -> None:
        """Note what the files that are about to be put in here agree on, if that is not noted."""
        for name, wanted in self._notes(kinds):
            text = json.dumps(wanted, indent=2, ensure_ascii=False) + "\n"
            open_storage(self.root).put_if_absent(name, text.encode("utf-8", "backslashreplace"))
        self.check(kinds)  # another run may have come first

    def saved(self, name: str) -> SavedDream | None:
        """What a dream's `dream.json` says; None if there is none, or none that is whole."""
        match read_object(self.path(name, "json"), MOST_JSON_BYTES):
            case {
                "identity": str(identity),
                "source": str(source),
                "context": {"start": int(start)},
            }:
                return SavedDream(identity, source, start)
        return None

    def missing(self, name: str, kinds: Sequence[FileKind]) -> tuple[FileKind, ...]:
        """Those of the kinds that a dream lacks."""
        return tuple(kind for kind in kinds if not self.path(name, kind).exists())

    def arrays(self, name: str, steps: int) -> dict[str, NDArray[Any]] | None:
        """The saved steps of a dream, as `ModelSteps.to_arrays` made them; None if not whole."""
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
            name: the dream's.
            dreamt: the dream.
            kinds: which files.
            provenance: what those that one watches say of themselves.
            description: for `dream.json`; None: the dream is saved already, these are files it lacks.

        Raises:
            MismatchError: another run has put files of other settings here meanwhile.
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
    """Where a file is written before it is put in place."""
    return dream_path(folder, "dream", what)


def _array(path: Path, shape: tuple[int, int], dtype: type) -> NDArray[Any] | None:
    """An array in a file; None if it is not whole, or of another shape or dtype."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(array, np.ndarray) or (array.dtype, array.shape) != (dtype, shape):
        return None
    return np.array(array)


@dataclass(frozen=True, slots=True)
class _StagedFiles:
    """Files of a dream in a folder of their own. Every picture is decoded once."""

    folder: Path
    dreamt: DreamtSteps
    parts: ModelSteps
    tokenizer: Tokenizer
    provenance: Provenance
    look: Look

    def write(self, kinds: Sequence[FileKind]) -> None:
        """Write these kinds. Decoded pictures go into files that are mapped."""
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
        """A file to look at: the context's `pictures`, then the dream."""
        path, said, look = _staged(self.folder, kind), self.provenance, self.look
        film = chain(pictures, dream)
        match kind:
            case "mp4":
                write_dream_video(
                    path, film, said, interpolate=look.interpolate, upscale=look.upscale
                )
            case "gif":
                write_dream_gif(path, film, said, upscale=look.upscale)
            case "png":
                write_dream_pngs(path, dream, said, upscale=look.upscale)
            case "overlay":
                space = self.parts.space
                write_overlay(path, recorded, dream, actions, space, said, upscale=look.upscale)


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
