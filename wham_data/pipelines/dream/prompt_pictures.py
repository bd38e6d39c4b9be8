"""Pictures as people have them, to dream from: screenshots, photos, what a browser saved.

The first bytes tell what a file is, not its name. PNG and JPEG are decoded as everywhere here; WebP, BMP
and TIFF with Pillow, within the same limits. A photo is turned as its EXIF orientation says, and what is
transparent is shown over black. Nothing is passed over without a word: a picture of a kind that is not
read is refused, other files beside pictures are named.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from PIL import Image, ImageOps

from wham_data.files.found import (
    MOST_PICTURE_BYTES,
    PICTURE_ENDINGS,
    SNIFFED_BYTES,
    open_regular,
    read_whole,
    stand_in_of,
    walk,
)
from wham_data.files.links import follow_within, is_plain_file, target_of
from wham_data.pipelines.video import decode_image
from wham_data.pipelines.video.write import MAX_IMAGE_PIXELS
from wham_data.schemas.errors import Reason, RefusedInput, UsageError, short_message
from wham_data.schemas.recording import Frames

Kind = Literal["PNG", "JPEG", "WEBP", "BMP", "TIFF"]

ENDINGS: Final = PICTURE_ENDINGS | {".jpe", ".jfif", ".webp", ".bmp", ".dib", ".tif", ".tiff"}
NOT_READ: Final = frozenset(
    {".gif", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg", ".tga", ".qoi", ".exr"}
)
"""Endings of pictures of other kinds."""
BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
ORIENTATION: Final = 0x0112
TURNED: Final = {
    2: "mirrored",
    3: "turned by 180 degrees",
    4: "mirrored upside down",
    5: "mirrored and turned",
    6: "turned by 90 degrees",
    7: "mirrored and turned",
    8: "turned by 270 degrees",
}
"""EXIF orientation -> what is done to the picture."""
GREY_16: Final = ("I;16", "I;16B", "I;16L", "I;16N")
MODES: Final = frozenset({"1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", *GREY_16})


def kind_of(head: bytes) -> Kind | None:
    """The kind of a picture by its first 32 bytes; None: none that is read."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head.startswith((b"II*\0", b"MM\0*")):
        return "TIFF"
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in BMP_HEADERS:
        return "BMP"
    return None


def is_picture(path: Path) -> bool:
    """Whether a file is a picture to dream from, by its first bytes; or is called like one."""
    if path.suffix.lower() in ENDINGS | NOT_READ:
        return True
    try:
        with open_regular(path) as file:
            return kind_of(file.read(32)) is not None
    except RefusedInput:
        return False


def pictures_at(path: Path) -> tuple[list[Path], list[str]]:
    """A picture, or those directly in a folder, in the order of the numbers in their names.

    Returns:
        The pictures, and notes about files of the folder that are none.

    Raises:
        UsageError: there is no such file, or a picture is of a kind that is not read, or a link that
            is not followed.
    """
    if not path.is_dir():
        found = [path] if is_picture(path) else []
        if found and not path.is_file():
            raise UsageError(f"{path}: no such file")
        _check_kinds(found)
        return found, []
    follow_within([path])
    for link in sorted(path.iterdir()):
        if link.suffix.lower() in ENDINGS and not is_plain_file(link):
            _check_link(link)
    files = [file for file, refusal in walk(path) if refusal is None and file.parent == path]
    found = sorted(filter(is_picture, files), key=lambda file: _by_number(file.name))
    _check_kinds(found)
    others = sorted(set(files) - set(found))
    return found, [_passed_over(path, others)] if found and others else []


def _check_link(path: Path) -> None:
    try:
        target_of(path)
    except RefusedInput as why:
        raise UsageError(f"{path}: {why}") from None


def _check_kinds(pictures: Sequence[Path]) -> None:
    for path in pictures:
        if path.suffix.lower() in NOT_READ:
            raise UsageError(
                f"{path}: a picture of a kind that is not read; save it as PNG, or take it out of the "
                "folder. PNG, JPEG, WebP, BMP and TIFF are read"
            )


def _passed_over(folder: Path, others: Sequence[Path]) -> str:
    names = ", ".join(path.name for path in others[:3])
    more = f" and {len(others) - 3} more" if len(others) > 3 else ""
    files = (
        "1 file is no picture and is"
        if len(others) == 1
        else f"{len(others)} files are no pictures and are"
    )
    return f"{folder}: {files} passed over: {names}{more}"


def _by_number(name: str) -> list[tuple[int, str]]:
    """picture9 before picture10."""
    return [(int(part), "") if part.isascii() and part.isdigit() else (0, part)
            for part in re.split(r"(\d+)", name)]  # fmt: skip


def picture_bytes(path: Path) -> bytes:
    """The bytes of a picture, of at most 64 MB.

    Raises:
        RefusedInput: NOT_DOWNLOADED, something else is in its place; or as `read_whole`.
    """
    data = read_whole(path, MOST_PICTURE_BYTES)
    if data and (why := stand_in_of(data[:SNIFFED_BYTES])) is not None:
        raise RefusedInput(Reason.NOT_DOWNLOADED, why)
    return data


def decode_prompt(data: bytes) -> tuple[Frames, tuple[str, ...]]:
    """Decode a picture as a person would see it.

    Args:
        data: PNG, JPEG, WebP, BMP or TIFF.

    Returns:
        uint8 [H, W, 3] RGB; and what was done to it.

    Raises:
        RefusedInput: another kind, damaged, larger than MAX_IMAGE_PIXELS, or of colours that are not
            RGB or grey.
    """
    kind = kind_of(data[:32])
    if kind is None:
        raise RefusedInput(Reason.CORRUPT, "not a PNG, JPEG, WebP, BMP or TIFF picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters is an error; the rest is of no use here
            if kind == "WEBP":  # opening one takes memory for its pixels already
                _check_size(*_size_of_webp(data))
            image = Image.open(io.BytesIO(data), formats=[kind])
            _check_size(image.width, image.height)
            return _as_seen(image, kind, data)
    except (OSError, ValueError, SyntaxError, KeyError, Image.DecompressionBombError) as error:
        why = f"picture cannot be decoded: {short_message(error)}"
        raise RefusedInput(Reason.CORRUPT, why) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_IMAGE_PIXELS:
        raise RefusedInput(
            Reason.TOO_MANY_PIXELS,
            f"{width}x{height}: too many pixels, the limit is {MAX_IMAGE_PIXELS}",
        )


def _size_of_webp(data: bytes) -> tuple[int, int]:
    """(width, height) in the header of a WebP: extended, lossless or lossy."""
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        sizes = int.from_bytes(data[21:25], "little")
        return 1 + (sizes & 0x3FFF), 1 + (sizes >> 14 & 0x3FFF)
    width, height = data[26:28], data[28:30]
    return int.from_bytes(width, "little") & 0x3FFF, int.from_bytes(height, "little") & 0x3FFF


def _as_seen(image: Image.Image, kind: Kind, data: bytes) -> tuple[Frames, tuple[str, ...]]:
    """The pixels of an open picture, turned and over black; and what was done."""
    notes = []
    orientation = image.getexif().get(ORIENTATION)
    if orientation in TURNED:
        notes.append(f"{TURNED[orientation]} as its EXIF orientation says")
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"only the first of its {getattr(image, 'n_frames', 1)} pictures is used")
    transparent = (
        image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255
    )
    if transparent:
        notes.append("transparent, shown over black")
    if kind in ("PNG", "JPEG") and not transparent:
        # Exactly as in a corpus. A picture without EXIF passes through the rest unchanged.
        plain = Image.fromarray(decode_image(data))
        plain.getexif()[ORIENTATION] = orientation if orientation in TURNED else 1
        return np.asarray(ImageOps.exif_transpose(plain)), tuple(notes)
    image = ImageOps.exif_transpose(image)
    if image.mode not in MODES:
        raise RefusedInput(
            Reason.CORRUPT, f"its colours are {image.mode}, expected RGB or grey; save it as PNG"
        )
    if image.mode in GREY_16:
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if not transparent:
        return np.asarray(image.convert("RGB")), tuple(notes)
    seen = Image.new("RGBA", image.size, "black")
    seen.alpha_composite(image.convert("RGBA"))
    return np.asarray(seen.convert("RGB")), tuple(notes)


def decoded(files: Sequence[Path], notes: dict[str, None]) -> Iterator[Frames]:
    """Decode pictures, and note what was done to them and sizes that differ.

    Args:
        files: the pictures, in order.
        notes: receives a line for each thing to say, in order.

    Raises:
        RefusedInput: as `decode_prompt`; the message names the file.
    """
    sizes: dict[tuple[int, ...], Path] = {}
    for path in files:
        try:
            picture, done = decode_prompt(picture_bytes(path))
        except RefusedInput as why:
            raise RefusedInput(why.reason, f"{path.name}: {why.message}") from None
        notes.update(dict.fromkeys(f"{path.name}: {what}" for what in done))
        sizes.setdefault(picture.shape, path)
        yield picture
    if len(sizes) > 1:
        said = ", ".join(f"{w}x{h} ({path.name})" for (h, w, _), path in [*sizes.items()][:4])
        notes[f"the pictures are of {len(sizes)} sizes: {said}"] = None
