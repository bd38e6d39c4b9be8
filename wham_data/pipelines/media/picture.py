"""Pictures for checking a corpus by eye: source frame, grid frame, decoded tokens and the action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wham_data.schemas.actions import ActionSpace
from wham_data.schemas.recording import Frames

PANEL = (300, 180)
CAPTION = 22
MARGIN = 6
PAPER, INK, FAINT, LIT = (24, 26, 30), (235, 235, 230), (90, 95, 105), (255, 176, 32)
STICKS = (("left_x", "left_y"), ("right_x", "right_y"))
HISTORY = 20


@dataclass(frozen=True, slots=True)
class Moment:
    """One step to draw.

    title     name and time of the step
    source    uint8 [h, w, 3] the recorded frame, any size
    grid      uint8 [H, W, 3] the frame in the size of the corpus
    decoded   uint8 [H, W, 3] the frame decoded from its tokens
    actions   float32 [T, A]  the last T actions; the last row is the action of this step
    psnr      PSNR of `decoded` against `grid` in dB
    """

    title: str
    source: Frames
    grid: Frames
    decoded: Frames
    actions: NDArray[np.float32]
    psnr: float


def row(moment: Moment, space: ActionSpace) -> Frames:
    """Draw one step as a strip: source, grid and decoded frame, and the action.

    Args:
        moment: the step.
        space: action space of `moment.actions`.

    Returns:
        uint8 [h, w, 3] RGB.
    """
    width = 4 * PANEL[0] + 5 * MARGIN
    sheet = Image.new("RGB", (width, PANEL[1] + CAPTION + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    height, source_width = moment.source.shape[:2]
    captions = (
        f"source {source_width}x{height}   {moment.title}",
        f"on the grid {moment.grid.shape[1]}x{moment.grid.shape[0]}",
        f"decoded from its tokens   {moment.psnr:.1f} dB",
        f"action in {space.name}",
    )
    panels = (moment.source, moment.grid, moment.decoded)
    for column, caption in enumerate(captions):
        left = MARGIN + column * (PANEL[0] + MARGIN)
        draw.text((left, 4), caption, INK, font(13))
        if column < len(panels):
            picture = Image.fromarray(panels[column]).resize(PANEL, Image.Resampling.LANCZOS)
            sheet.paste(picture, (left, CAPTION))
        else:
            sheet.paste(pad(moment.actions, space), (left, CAPTION))
    return np.asarray(sheet)


def page(rows: Sequence[Frames], title: str) -> Frames:
    """Put strips of one width, uint8 [h, w, 3], below a title; uint8 [H, w, 3]."""
    head = Image.new("RGB", (rows[0].shape[1], 34), PAPER)
    ImageDraw.Draw(head).text((MARGIN, 7), title, INK, font(18))
    return np.concatenate([np.asarray(head), *rows])


def pad(actions: NDArray[np.float32], space: ActionSpace) -> Image.Image:
    """Draw an action: sticks as circles, buttons as lamps, and the last steps as curves.

    Args:
        actions: float32 [T, A]; the last row is the action to draw; NaN: the action is unknown.
        space: action space of `actions`.

    Returns:
        an RGB picture of PANEL size.
    """
    panel = Image.new("RGB", PANEL, (34, 37, 43))
    draw = ImageDraw.Draw(panel)
    now = actions[-1]
    if np.isnan(now).any():
        draw.text((12, 80), "action not known", FAINT, font(15))
        return panel
    names = space.names
    place = 0
    for pair in STICKS:
        if all(name in names for name in pair):
            x, y = (float(now[names.index(name)]) for name in pair)
            _stick(draw, (46 + 84 * place, 44), x, y, pair[0].removesuffix("_x"))
            place += 1
    buttons = [i for i, d in enumerate(space.dimensions) if d.kind == "button"]
    levels = [i for i, d in enumerate(space.dimensions) if d.kind == "trigger"]
    _lamps(draw, (186, 8), [(_short(names[i]), bool(now[i] > 0.5)) for i in buttons])
    for number, index in enumerate(levels):
        top = 12 + 18 * number
        draw.rectangle((268, top, 294, top + 8), outline=FAINT)
        draw.rectangle((268, top, 268 + round(26 * float(now[index])), top + 8), fill=LIT)
    others = [i for i in range(space.size) if i not in buttons and i not in levels]
    _curves(draw, (8, 108, 292, 174), actions[-HISTORY:, others], [names[i] for i in others])
    return panel


def _stick(
    draw: ImageDraw.ImageDraw, centre: tuple[int, int], x: float, y: float, name: str
) -> None:
    """Draw a circle with a dot at the position of the stick; +y is up."""
    radius, dot = 32, 7
    cx, cy = centre
    draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), outline=FAINT, width=2)
    px, py = cx + x * (radius - dot), cy - y * (radius - dot)
    held = abs(x) > 0.05 or abs(y) > 0.05
    draw.line((cx, cy, px, py), fill=LIT if held else FAINT, width=2)
    draw.ellipse((px - dot, py - dot, px + dot, py + dot), fill=LIT if held else FAINT)
    draw.text((cx, cy + radius + 3), name, FAINT, font(11), anchor="ma")


def _lamps(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], lamps: list[tuple[str, bool]]
) -> None:
    """Draw buttons in rows; a pressed button is filled."""
    across, size = 4 if len(lamps) <= 12 else 5, 26
    step = (size, 28 if len(lamps) <= 12 else 20)
    for number, (name, pressed) in enumerate(lamps[: across * 4]):
        left = corner[0] + step[0] * (number % across)
        top = corner[1] + step[1] * (number // across)
        box = (left, top, left + step[0] - 4, top + step[1] - 4)
        draw.rounded_rectangle(box, 4, fill=LIT if pressed else None, outline=FAINT)
        centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        draw.text(centre, name, PAPER if pressed else FAINT, font(10), anchor="mm")


def _curves(
    draw: ImageDraw.ImageDraw,
    box: tuple[int, int, int, int],
    history: NDArray[np.float32],
    names: list[str],
) -> None:
    """Draw the last steps of each axis or motion, scaled to its largest value if that is above 1."""
    left, top, right, bottom = box
    draw.rectangle(box, outline=FAINT)
    draw.line((left, (top + bottom) / 2, right, (top + bottom) / 2), fill=FAINT)
    hues = (LIT, (90, 200, 250), (120, 220, 120), (240, 120, 160), INK, FAINT)
    for number, name in enumerate(names[: len(hues)]):
        values = history[:, number]
        scale = max(1.0, float(np.nanmax(np.abs(values), initial=0.0)))
        points = [
            (
                left + (right - left) * (k + HISTORY - len(values)) / max(HISTORY - 1, 1),
                (top + bottom) / 2 - (bottom - top - 6) / 2 * float(value) / scale,
            )
            for k, value in enumerate(values)
            if np.isfinite(value)
        ]
        if len(points) > 1:
            draw.line(points, fill=hues[number], width=2)
        draw.text((left + 70 * number, top - 13), name, hues[number], font(10))


def _short(name: str) -> str:
    """A short form of a button's name, for its lamp."""
    words = name.split("_")
    return (
        words[-1][:4]
        if words[0] == "button"
        else "".join(w[0] for w in words[:3])
        if len(words) > 1
        else name[:4]
    )


@lru_cache(64)
def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The typeface of all drawings, `size` pixels high."""
    return ImageFont.load_default(size)
