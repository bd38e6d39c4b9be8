"""Pictures to dream from are seen as a person sees them, whatever they are called, or refused by name."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from wham_data.pipelines.dream.prompt_pictures import (
    ORIENTATION,
    decode_prompt,
    decoded,
    kind_of,
    pictures_at,
)
from wham_data.pipelines.dream.sources import open_dream_source
from wham_data.pipelines.video import decode_image
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

RED, GREEN = (200, 30, 30), (30, 200, 30)


def two_colours(size: tuple[int, int] = (30, 18)) -> Image.Image:
    """Red on the left and green on the right."""
    picture = Image.new("RGB", size, RED)
    picture.paste(GREEN, (size[0] // 2, 0, *size))
    return picture


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


KINDS = {
    "PNG": {},
    "JPEG": {"quality": 100, "subsampling": 0},
    "WEBP": {"lossless": True},
    "BMP": {},
    "TIFF": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_told_by_its_first_bytes_and_read(kind: str) -> None:
    data = saved(two_colours(), kind, **KINDS[kind])
    picture, notes = decode_prompt(data)
    assert kind_of(data[:32]) == kind
    np.testing.assert_allclose(picture, np.asarray(two_colours()), atol=3)
    assert notes == ()


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_png_and_jpeg_are_decoded_as_everywhere_here(kind: str) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (18, 30, 3), np.uint8)
    for mode in ("RGB", "L", "P"):
        if (kind, mode) != ("JPEG", "P"):
            data = saved(Image.fromarray(noise).convert(mode), kind)
            np.testing.assert_array_equal(decode_prompt(data)[0], decode_image(data))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "undo", "said"),
    [
        (1, None, None),
        (2, Image.Transpose.FLIP_LEFT_RIGHT, "mirrored"),
        (3, Image.Transpose.ROTATE_180, "turned by 180 degrees"),
        (6, Image.Transpose.ROTATE_90, "turned by 90 degrees"),
        (8, Image.Transpose.ROTATE_270, "turned by 270 degrees"),
        (9, None, None),
    ],
)
def test_a_photo_is_turned_as_its_exif_says(
    kind: str, orientation: int, undo: Image.Transpose | None, said: str | None
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = two_colours() if undo is None else two_colours().transpose(undo)
    picture, notes = decode_prompt(saved(stored, kind, exif=exif, **KINDS[kind]))
    np.testing.assert_allclose(picture, np.asarray(two_colours()), atol=3)
    assert notes == (() if said is None else (f"{said} as its EXIF orientation says",))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_what_is_transparent_is_black_and_that_is_said(kind: str) -> None:
    picture = two_colours().convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    options = {**KINDS[kind], **({"exact": True} if kind == "WEBP" else {})}
    seen, notes = decode_prompt(saved(picture, kind, **options))
    pixels = np.asarray(picture, np.float64)
    np.testing.assert_allclose(seen, pixels[..., :3] * pixels[..., 3:] / 255, atol=2)
    assert notes == ("transparent, shown over black",)


def test_an_alpha_channel_that_hides_nothing_changes_nothing() -> None:
    seen, notes = decode_prompt(saved(two_colours().convert("RGBA"), "PNG"))
    np.testing.assert_array_equal(seen, np.asarray(two_colours()))
    assert notes == ()


def test_grey_of_16_bits_keeps_its_brightness() -> None:
    grey = Image.fromarray(np.linspace(0, 65535, 540).reshape(18, 30).astype(np.uint16))
    expected = np.asarray(grey) >> 8
    for kind in ("PNG", "TIFF"):
        seen, _ = decode_prompt(saved(grey, kind))
        np.testing.assert_allclose(seen, np.repeat(expected[..., None], 3, 2), atol=1)


def test_of_several_pictures_in_one_file_the_first_is_used() -> None:
    pages = {"save_all": True, "append_images": [Image.new("RGB", (30, 18))]}
    for kind in ("TIFF", "WEBP"):
        seen, notes = decode_prompt(saved(two_colours(), kind, **pages, **KINDS[kind]))
        np.testing.assert_allclose(seen, np.asarray(two_colours()), atol=3)
        assert notes == ("only the first of its 2 pictures is used",)


def large_webp(width: int, height: int) -> bytes:
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + (10).to_bytes(4, "little") + b"\0\0\0\0" + size
    return b"RIFF" + len(body).to_bytes(4, "little") + body


def large_bmp(width: int, height: int) -> bytes:
    data = bytearray(saved(two_colours(), "BMP"))
    data[18:26] = width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.CORRUPT),
        (b"BM not a picture, but a letter", Reason.CORRUPT),
        (saved(two_colours(), "GIF"), Reason.CORRUPT),
        *((saved(two_colours(), kind)[:60], Reason.CORRUPT) for kind in KINDS),
        (large_webp(16_000, 16_000), Reason.TOO_MANY_PIXELS),
        (large_bmp(12_000, 9_000), Reason.TOO_MANY_PIXELS),
        (saved(Image.new("CMYK", (30, 18)), "TIFF"), Reason.CORRUPT),
        (saved(Image.new("F", (30, 18)), "TIFF"), Reason.CORRUPT),
    ],
)
def test_what_cannot_be_read_is_refused(data: bytes, reason: Reason) -> None:
    with pytest.raises(RefusedInput) as why:
        decode_prompt(data)
    assert why.value.reason == reason


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures with endings of every kind, and one whose ending is of another kind."""
    (tmp_path / "in").mkdir()
    names = {
        "f1.PNG": "PNG",
        "f2.webp": "WEBP",
        "f3.jfif": "JPEG",
        "f4.bmp": "BMP",
        "f10.tif": "TIFF",
    }
    for name, kind in {**names, "f5": "PNG", "f6.jpg": "PNG"}.items():
        (tmp_path / "in" / name).write_bytes(saved(two_colours(), kind))
    return tmp_path / "in"


def test_a_folder_is_taken_whole_in_the_order_of_its_numbers(folder: Path) -> None:
    found, notes = pictures_at(folder)
    names = ["f1.PNG", "f2.webp", "f3.jfif", "f4.bmp", "f5", "f6.jpg", "f10.tif"]
    assert ([path.name for path in found], notes) == (names, [])
    assert open_dream_source([folder]).pictures == len(names)
    assert open_dream_source([folder / "f2.webp"]).pictures == 1


def test_other_files_are_named(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (source_note,) = open_dream_source([folder]).notes
    assert source_note == f"{folder}: 1 file is no picture and is passed over: notes.txt"


@pytest.mark.parametrize("name", ["f7.heic", "f7.GIF", "f7.avif"])
def test_a_picture_that_is_not_read_is_refused_by_name(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\0\0\0\x18ftypheic")
    for given in (folder, folder / name):
        with pytest.raises(UsageError, match=f"{name}: a picture of a kind that is not read"):
            open_dream_source([given])


def test_a_link_that_leads_out_is_no_hole_in_the_context(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.png").write_bytes(saved(two_colours(), "PNG"))
    (folder / "f7.png").symlink_to(tmp_path / "out.png")
    with pytest.raises(UsageError, match=r"f7\.png: a symbolic link that leads out"):
        open_dream_source([folder])


def test_sizes_that_differ_are_told(folder: Path) -> None:
    (folder / "f7.png").write_bytes(saved(two_colours((60, 40)), "PNG"))
    notes: dict[str, None] = {}
    assert len(list(decoded(pictures_at(folder)[0], notes))) == 8
    assert [*notes] == ["the pictures are of 2 sizes: 30x18 (f1.PNG), 60x40 (f7.png)"]
