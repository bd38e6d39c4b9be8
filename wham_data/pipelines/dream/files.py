"""What is left of a dream on disk.

    OUT/dreams.json            what all dreams in here agree on
    OUT/pictures.json          how their mp4, gif, png and overlay files are made
    OUT/NAME.npz               the arrays, as the published program writes them
    OUT/NAME.mp4, NAME.gif     the context, then the dream
    OUT/NAME/frames/00000.png  the dreamt pictures
    OUT/NAME/overlay.mp4       truth left, dream right, the pad below
    OUT/NAME/actions.csv       what was done at each dreamt step
    OUT/NAME/tokens.npy        what the model read and wrote; every other file can be made from it
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
from wham_data.files.whole import private_folder, put_in_place, read_object
from wham_data.inference.tokenizer import Tokenizer
from wham_data.pipelines.dream.actions import STEP, WHAM16
from wham_data.pipelines.dream.pictures import (
    Provenance,
    write_dream_gif,
    write_dream_pngs,
    write_dream_video,
    write_overlay,
)
from wham_data.pipelines.dream.report import KINDS, Kind
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import IntegrityError, MismatchError
from wham_data.schemas.recording import Frames
from wham_data.schemas.wham_tokens import decode_bins, measured_from_bins

DREAMS: Final = "dreams.json"
PICTURES: Final = "pictures.json"
WATCHED: Final[frozenset[Kind]] = frozenset({"mp4", "gif", "png", "overlay"})
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
    "json": "/dream.json",
}
"""What follows the dream's name."""


@dataclass(frozen=True, slots=True)
class DreamtSteps:
    """A dream with what it started from.

    context   C
    tokens    int32 [C + K, N + 16] in the joint vocabulary, as the model read and wrote them
    truth     uint16 [C + F, N], the recorded pictures as tokens, as far as there are any; F <= K
    pictures  uint8 [C, H, W, 3] the context as recorded; None: as decoded from its tokens
    """

    context: int
    tokens: NDArray[np.int32]
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
    """Where a file of a dream lies: a kind, "tokens" or "json"."""
    return out / f"{name}{_PLACES[what]}"


class DreamFolder:
    """OUT: where dreams are kept.

    Attributes:
        root: its path; made when the first dream is saved.
    """

    def __init__(
        self, root: Path, tokenizer: Tokenizer, settings: Mapping[str, object], look: Look
    ) -> None:
        """Look at a folder; nothing is made.

        Args:
            root: its path.
            tokenizer: the model's, which decodes.
            settings: plain values that all dreams in there have to agree on.
            look: how the files that one watches are made.
        """
        self.root = root
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

    def check(self, kinds: Sequence[Kind]) -> None:
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
            changed = [
                f"{key}: {_said(noted.get(key))}, not {_said(wanted.get(key))}"
                for key in sorted({*noted, *wanted})
                if noted.get(key) != wanted.get(key)
            ]
            if changed:
                raise MismatchError(
                    f"{self.root}: what is in there was made with other settings "
                    f"({'; '.join(changed)}). Use the same settings, or another --out"
                )

    def _notes(self, kinds: Sequence[Kind]) -> Iterator[tuple[str, Mapping[str, object]]]:
        """The notes that these kinds of files have to agree with."""
        yield DREAMS, self._settings
        if WATCHED & set(kinds):
            yield PICTURES, self._look.to_dict()

    def _note(self, kinds: Sequence[Kind]) -> None:
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

    def missing(self, name: str, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
        """Those of the kinds that a dream lacks."""
        return tuple(kind for kind in kinds if not self.path(name, kind).exists())

    def tokens(self, name: str, shape: tuple[int, int]) -> NDArray[np.int32] | None:
        """A dream's `tokens.npy`; None if it is not whole."""
        try:
            tokens = np.load(self.path(name, "tokens"), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if not isinstance(tokens, np.ndarray) or (tokens.dtype, tokens.shape) != (np.int32, shape):
            return None
        return np.array(tokens)

    def save(
        self,
        name: str,
        dreamt: DreamtSteps,
        kinds: Sequence[Kind],
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
            made = [kind for kind in KINDS if kind in kinds]
            _write_kinds(folder, dreamt, made, self._tokenizer, provenance, self._look)
            places: list[str] = list(made)
            if description is not None:
                places += ["tokens", "json"]
                with _staged(folder, "tokens").open("wb") as file:
                    np.save(file, dreamt.tokens)
                text = json.dumps(description, indent=2, ensure_ascii=False) + "\n"
                _staged(folder, "json").write_bytes(text.encode("utf-8", "backslashreplace"))
            for what in places:
                put_in_place(_staged(folder, what), self.path(name, what))


def _staged(folder: Path, what: str) -> Path:
    """Where a file is written before it is put in place."""
    return dream_path(folder, "dream", what)


def _write_kinds(
    folder: Path,
    dreamt: DreamtSteps,
    kinds: Sequence[Kind],
    tokenizer: Tokenizer,
    provenance: Provenance,
    look: Look,
) -> None:
    """Write files into a folder. Every picture is decoded once, into a file that is mapped."""
    steps, (rows, columns) = dreamt.context, tokenizer.grid
    images, actions = np.split(dreamt.tokens, [rows * columns], axis=1)
    bins = decode_bins(actions - tokenizer.vocab_size)
    shown = set(kinds) - {"csv"}
    compared = shown & {"npz", "overlay"} or (shown and dreamt.pictures is None)
    dream = decoded(images[steps:] if shown else images[:0], tokenizer, folder / "dream.npy")
    truth = decoded(dreamt.truth[: None if compared else 0], tokenizer, folder / "truth.npy")
    pictures = truth[:steps] if dreamt.pictures is None else dreamt.pictures
    for kind in kinds:
        path = _staged(folder, kind)
        match kind:
            case "npz":
                write_npz(path, pictures, dream, bins, truth)
            case "csv":
                path.write_text(actions_csv(measured_from_bins(bins[steps:])), encoding="utf-8")
            case "mp4":
                film = chain(pictures, dream)
                write_dream_video(
                    path, film, provenance, interpolate=look.interpolate, upscale=look.upscale
                )
            case "gif":
                write_dream_gif(path, chain(pictures, dream), provenance, upscale=look.upscale)
            case "png":
                write_dream_pngs(path, dream, provenance, upscale=look.upscale)
            case "overlay":
                recorded = iter(truth[steps:]) if len(truth) > steps else None
                done = measured_from_bins(bins[steps:])
                write_overlay(path, recorded, dream, done, provenance, upscale=look.upscale)


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


def actions_csv(actions: NDArray[np.float32]) -> str:
    """A header and a row per step: `step`, then the 16 dimensions of `wham16`, measured.

    Args:
        actions: float32 [K, 16].
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow([STEP, *load_space(WHAM16).names])
    table.writerows([step, *(f"{value:g}" for value in row)] for step, row in enumerate(actions))
    return text.getvalue()


def _said(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
