"""`wham-npz`: a file per episode in the layout of Microsoft's Bleeding Edge sample for WHAM (Muse).

    <split>/<episode>.npz    images uint8 (T, 3, 180, 300)   actions float32 (T, 16)   states float32 (T, S)

A recording that came from a file of WHAM's own naming keeps its name, which tells match and player.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from wham_data.pipelines.readers.wham_npz import IMAGE_SHAPE, NAME
from wham_data.pipelines.writers.parts import Content, Demands, Part, Place, Written
from wham_data.pipelines.writers.stretches import Stretch
from wham_data.schemas.actions import ActionSpace, load_space
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import Reason, UsageError
from wham_data.schemas.wham_tokens import NoTokenError, bins_from_measured


@dataclass(frozen=True, slots=True)
class WhamNpzWriter:
    """Writer of WHAM's own .npz files."""

    name: ClassVar[str] = "wham-npz"
    about: ClassVar[str] = "a .npz of images and actions per episode, as WHAM's own"
    order: ClassVar[int] = 10
    demands: ClassVar[Demands] = Demands()

    def space(self, native: ActionSpace) -> ActionSpace:
        """Always `wham16`."""
        del native
        return load_space("wham16")

    def check(self, content: Content) -> Sequence[str]:
        """10 Hz and 300x180, as the files say neither."""
        width, height = content.size
        if content.rate != TEN_HZ or (3, height, width) != IMAGE_SHAPE:
            raise UsageError(
                f"wham-npz is 10 Hz and 300x180, the corpus {content.rate} Hz and {width}x{height}: "
                "ingest with --rate 10 --size 300x180"
            )
        return ["sticks are written as the 11 bins of WHAM"]

    def parts(self, stretches: Sequence[Stretch]) -> Iterator[Part]:
        """A file each, which has the part's name."""
        taken = set[str]()
        for stretch in stretches:
            own = _own_name(stretch)
            name = stretch.name if own in taken else own
            taken.add(name)
            yield Part(name, stretch.split, (stretch,))

    def write(self, part: Part, place: Place, content: Content, folder: Path) -> Mapping[str, Any]:
        """Write one .npz, its pictures as a stream."""
        del place
        (stretch,) = part.stretches
        try:
            actions, clamped = bins_from_measured(stretch.actions())
        except NoTokenError as why:
            raise stretch.refuse(Reason.LOG_RANGE, f"actions out of range: {why}") from None
        states = stretch.states()
        width, height = content.size
        path = folder / part.split / f"{part.name}.npz"
        path.parent.mkdir()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            images = (frame.transpose(2, 0, 1) for frame in stretch.frames())
            shape = (stretch.n_steps, 3, height, width)
            _write_rows(archive, "images", images, shape, np.dtype(np.uint8))
            _write_rows(archive, "actions", actions, actions.shape, actions.dtype)
            if states is not None:
                _write_rows(archive, "states", states, states.shape, states.dtype)
        return {"clamped": clamped}

    def finish(self, written: Sequence[Written], content: Content, folder: Path) -> None:
        """Nothing: every file speaks for itself."""


def _own_name(stretch: Stretch) -> str:
    """What its file is called: as the recording, where that name tells match and player."""
    source = Path(stretch.row.source)
    whole = stretch.start == 0 and stretch.row.episode.endswith("-0")
    return source.stem if whole and NAME.fullmatch(source.name) else stretch.name


def _write_rows(
    archive: zipfile.ZipFile,
    name: str,
    rows: Iterable[NDArray[Any]],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> None:
    """An array as a member, row by row."""
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
        npy.write_array_header_1_0(member, header)
        for row in rows:
            member.write(row.tobytes())
