"""Files a dream is watched in: mp4, GIF, PNGs, and an overlay of truth, dream and controls.

    what                mp4, overlay.mp4        GIF                     PNG
    mark                on every picture        on every picture        on the picture
    title               `title`                 comment                 tEXt `Title`
    software            `software`              comment                 tEXt `Software`
    comment             `comment`               comment                 tEXt `Description`
    WHAM's tag          `ProgramName`, XMP      comment, XMP            tEXt `ProgramName`, XMP
    XMP                 a `uuid` box            its extension           iTXt `XML:com.adobe.xmp`

(`provenance` has the wording.) The tags of an mp4 are metadata keys of the whole file, as ffprobe
and exiftool list them; text that is not Latin-1 makes a PNG's tEXt an iTXt. Pictures are enlarged
before they are marked, so the mark stays sharp and in proportion.

Every file is written beside its name and renamed, so it is whole or not there. Frames are taken one
by one and only a few are in memory at a time.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wham_data.corpus.storage.contract import one_line
from wham_data.files.whole import written_whole
from wham_data.pipelines.dream.overlay import Overlay
from wham_data.pipelines.dream.provenance import Provenance
from wham_data.pipelines.dream.watermark import Watermark
from wham_data.pipelines.video import SMALLEST_SIDE, interpolated, write_gif, write_video
from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import UsageError
from wham_data.schemas.recording import Frames

__all__ = [
    "Provenance",
    "write_dream_gif",
    "write_dream_pngs",
    "write_dream_video",
    "write_overlay",
]

LARGEST_UPSCALE = 8
FASTEST = Fraction(240)


def write_dream_video(
    path: Path,
    frames: Iterable[Frames],
    provenance: Provenance,
    *,
    interpolate: Fraction | None = None,
    upscale: int = 1,
) -> int:
    """Write a dream as H.264 in an mp4, at 10 fps or, for the eye, at `interpolate`.

    An odd edge is doubled, as 4:2:0 wants even sides. With `interpolate` the dreamt frames stay in
    the file at their times and motion-compensated ones lead from each to the next; the last is
    held, so the film lasts as long.

    Args:
        path: the file to make or replace.
        frames: uint8 [H, W, 3] RGB, all of one size.
        provenance: what the file and every picture say of themselves.
        interpolate: frames per second, a multiple of 10 in (10, 240], or None.
        upscale: times as wide and as high, by Lanczos, 1 to 8.

    Returns:
        How many frames the file has.

    Raises:
        UsageError: no frames, frames of several sizes or of another type, a factor or rate outside
            its range, or frames too small to interpolate.
    """
    changes, rate = _upscaling(upscale), TEN_HZ
    if interpolate is None:
        pictures = _one_size(frames, path)
    else:
        rate, factor = interpolate, _frames_for_one(interpolate)
        pictures = interpolated(_one_size(frames, path, SMALLEST_SIDE), TEN_HZ, factor)
        changes = [f"interpolated from {TEN_HZ} to {rate} frames per second", *changes]
    pictures = _marked(_enlarged(pictures, upscale), provenance)
    return _write_mp4(path, pictures, rate, provenance, changes)


def write_dream_gif(
    path: Path, frames: Iterable[Frames], provenance: Provenance, *, upscale: int = 1
) -> int:
    """Write a dream as a GIF of 10 fps that loops; returns how many frames it has.

    Arguments and errors are those of `write_dream_video`.
    """
    changes = _upscaling(upscale)
    pictures = _marked(_enlarged(_one_size(frames, path), upscale), provenance)
    tags = provenance.tags(changes)
    comment = "\n".join(f"{name}: {text}" for name, text in tags.items())
    with _whole_or_absent(path) as part:
        return write_gif(part, pictures, TEN_HZ, comment=comment, xmp=provenance.xmp(changes))


def write_dream_pngs(
    folder: Path,
    frames: Iterable[Frames],
    provenance: Provenance,
    *,
    upscale: int = 1,
    first: int = 0,
) -> int:
    """Write each frame of a dream as `folder`/00000.png, 00001.png, ...; returns how many.

    Args:
        folder: made if it is not there.
        frames, provenance, upscale: see `write_dream_video`, as for the errors.
        first: the number of the first frame.
    """
    changes = _upscaling(upscale)
    tags = provenance.tags(changes)
    names = {"title": "Title", "software": "Software", "comment": "Description"}
    info = PngInfo()
    for name, text in tags.items():
        info.add_text(names.get(name, name), text)
    info.add_itxt("XML:com.adobe.xmp", provenance.xmp(changes))
    count = 0
    pictures = _marked(_enlarged(_one_size(frames, folder), upscale), provenance)
    for count, picture in enumerate(pictures, 1):
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "PNG", pnginfo=info)
        with _whole_or_absent(folder / f"{first + count - 1:05d}.png") as part:
            part.write_bytes(content.getbuffer())
    return count


def write_overlay(
    path: Path,
    truth: Iterable[Frames] | None,
    dream: Iterable[Frames],
    actions: NDArray[np.float32],
    space: ActionSpace,
    provenance: Provenance,
    *,
    upscale: int = 1,
) -> int:
    """Write truth and dream side by side over the controls, at 10 fps, one picture a step; returns K.

    Args:
        path: the mp4 to make or replace.
        truth: what was recorded, for as long as there is any; None if nothing was.
        dream: K frames, uint8 [H, W, 3] RGB, like `truth` of any one size.
        actions: float32 [K, A] measured; NaN where not known.
        space: of the actions.
        provenance: what the file and the dream say of themselves.
        upscale: times 640x360, 1 to 8.

    Raises:
        UsageError: as for `write_dream_video`, and where dream and actions differ in length.
    """
    changes = [*_upscaling(upscale), "laid out beside what was recorded"]
    if actions.ndim != 2 or actions.shape[1] != space.size:
        raise UsageError(
            f"{path}: actions of shape {actions.shape}; expected [K, {space.size}], in {space.name}"
        )
    overlay = Overlay(actions, space, provenance.short, upscale)
    recorded = map(overlay.fitted, _checked(() if truth is None else truth, path))
    dreamt = _marked(map(overlay.fitted, _one_size(dream, path)), provenance)
    sheets = (
        overlay.sheet(step, next(recorded, None), picture)
        for step, picture in enumerate(_exactly(len(actions), dreamt, path))
    )
    return _write_mp4(path, sheets, TEN_HZ, provenance, changes)


def _write_mp4(
    path: Path,
    pictures: Iterable[Frames],
    rate: Fraction,
    provenance: Provenance,
    changes: Sequence[str],
) -> int:
    with _whole_or_absent(path) as part:
        return write_video(
            part, pictures, rate, tags=provenance.tags(changes), xmp=provenance.xmp(changes)
        )


@contextmanager
def _whole_or_absent(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes `path` at the end; an error of the disk is one line."""
    with one_line(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as part:
            yield part


def _upscaling(upscale: int) -> list[str]:
    """What an upscale does to the pictures, in words; empty for 1."""
    if not 1 <= upscale <= LARGEST_UPSCALE:
        raise UsageError(f"upscale {upscale}: expected a whole number from 1 to {LARGEST_UPSCALE}")
    return [f"upscaled {upscale} times (Lanczos)"] if upscale > 1 else []


def _frames_for_one(rate: Fraction) -> int:
    """How many frames at `rate` take the place of a dreamt one."""
    if not TEN_HZ < rate <= FASTEST or rate % TEN_HZ:
        raise UsageError(
            f"interpolate {rate}: expected a multiple of {TEN_HZ} above it and up to {FASTEST} "
            "(20, 30, 60), so that every dreamt frame keeps its time"
        )
    return int(rate / TEN_HZ)


def _one_size(frames: Iterable[Frames], path: Path, smallest: int = 1) -> Iterator[Frames]:
    """The same frames; the first is looked at right away.

    Raises:
        UsageError: there is none, or a side has fewer than `smallest` pixels; and, when it comes to
            it, see `_checked`.
    """
    checked = _checked(frames, path)
    first = next(checked, None)
    if first is None:
        raise UsageError(f"{path}: no frames to write; dream at least one step")
    height, width = first.shape[:2]
    if min(height, width) < smallest:
        raise UsageError(
            f"{path}: pictures of {width}x{height} are too small to interpolate; "
            f"expected at least {smallest}x{smallest}"
        )
    return chain([first], checked)


def _checked(frames: Iterable[Frames], path: Path) -> Iterator[Frames]:
    """The same frames.

    Raises:
        UsageError: one that is not uint8 [H, W, 3], or of another size than the first.
    """
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            found = f"{frame.dtype} {list(frame.shape)}"
            raise UsageError(
                f"{path}: frame {number} is {found}; expected uint8 [height, width, 3]"
            )
        shape = shape or frame.shape
        if frame.shape != shape:
            found, expected = (f"{s[1]}x{s[0]}" for s in (frame.shape, shape))
            raise UsageError(f"{path}: frame {number} is {found}, the first one {expected}")
        yield frame


def _exactly(count: int, frames: Iterable[Frames], path: Path) -> Iterator[Frames]:
    """The same frames.

    Raises:
        UsageError: more or fewer than `count`.
    """
    seen = 0
    for seen, frame in enumerate(frames, 1):
        if seen > count:
            break
        yield frame
    if seen != count:
        found = f"more than {count}" if seen > count else str(seen)
        raise UsageError(f"{path}: {found} frames for {count} actions; expected one each")


def _enlarged(frames: Iterable[Frames], upscale: int) -> Iterator[Frames]:
    for frame in frames:
        size = frame.shape[1] * upscale, frame.shape[0] * upscale
        yield np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS))


def _marked(frames: Iterable[Frames], provenance: Provenance) -> Iterator[Frames]:
    mark: Watermark | None = None
    for frame in frames:
        mark = mark or Watermark.of(
            provenance.mark, frame.shape[0], frame.shape[1], prominent=provenance.wham
        )
        yield mark.on(frame)
