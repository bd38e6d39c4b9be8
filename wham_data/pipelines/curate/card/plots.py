"""The pictures of a card: hours of the games, shares of the controls, how long they are held."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

from PIL import Image

from wham_data.corpus.balance.count import LONGEST_HOLD
from wham_data.pipelines.curate.card.facts import MIXED, Facts, hours_text
from wham_data.pipelines.media.canvas import Canvas, Colour
from wham_data.schemas.errors import printable
from wham_data.schemas.manifest import SPLITS

PAPER: Final = (252, 252, 250)
INK: Final = (34, 38, 46)
FAINT: Final = (222, 224, 228)
COLOURS: Final[dict[str, Colour]] = {
    "train": (44, 111, 187),
    "val": (240, 160, 48),
    "test": (88, 160, 90),
    MIXED: (150, 150, 150),
}
WIDTH, LEFT, RIGHT, TOP, ROW, SCALE = 720, 190, 90, 64, 22, 2
MOST_ROWS: Final = 24
MOST_LETTERS: Final = 24
FIRST_NOT_LATIN: Final = 0x180


def plots(facts: Facts) -> dict[str, bytes]:
    """The pictures as PNG, by file name. One without anything to show is left out."""
    drawn = {
        "hours.png": _hours(facts),
        "controls.png": _controls(facts),
        "holds.png": _holds(facts),
    }
    return {name: _png(canvas) for name, canvas in drawn.items() if canvas is not None}


def _png(canvas: Canvas) -> bytes:
    file = io.BytesIO()
    Image.fromarray(canvas.pixels()).save(file, "PNG", optimize=True)
    return file.getvalue()


def _sheet(title: str, about: str, rows: int) -> Canvas:
    canvas = Canvas(WIDTH, TOP + ROW * rows + 20, SCALE, PAPER)
    canvas.text((20, 22), title, INK, size=17)
    canvas.text((20, 44), about, (110, 115, 125), size=11)
    return canvas


def _label(canvas: Canvas, row: int, name: str) -> float:
    """Write the name of a row; returns the middle of the row.

    The typeface has Latin letters alone. README.md has a table in the same order.
    """
    middle = TOP + ROW * (row + 0.5)
    text = printable(name) or "not stated"
    if any(ord(letter) >= FIRST_NOT_LATIN for letter in text):
        text = f"no. {row + 1} of the table"
    text = text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 3]}..."
    canvas.text((LEFT - 10, middle), text, INK, size=12, anchor="rm")
    return middle


def _bar(canvas: Canvas, left: float, right: float, middle: float, colour: Colour) -> None:
    canvas.panel((left, middle - 7, max(right, left + 1), middle + 7), colour, radius=1)


def _hours(facts: Facts) -> Canvas:
    games = [*facts.games.items()][:MOST_ROWS]
    more = len(facts.games) - len(games)
    splits = [split for split in SPLITS if any(split in hours for _, hours in games)]
    about = f"{hours_text(facts.summary.hours)} hours in all" + (
        f"; {more} more games" if more else ""
    )
    canvas = _sheet("Hours per game", about, len(games))
    for number, split in enumerate(splits):
        x = WIDTH - 20 - 70 * (len(splits) - number)
        canvas.panel((x, 16, x + 12, 28), COLOURS[split], radius=1)
        canvas.text((x + 18, 22), split, INK, size=12)
    most = max(sum(hours.values()) for _, hours in games) or 1.0
    for row, (name, hours) in enumerate(games):
        middle, left = _label(canvas, row, name), float(LEFT)
        for split in splits:
            if hours.get(split):
                right = left + hours[split] / most * (WIDTH - LEFT - RIGHT)
                _bar(canvas, left, right, middle, COLOURS[split])
                left = right
        canvas.text((left + 8, middle), f"{hours_text(sum(hours.values()))} h", INK, size=12)
    return canvas


def _controls(facts: Facts) -> Canvas | None:
    controls = sorted(facts.balance.controls, key=lambda each: -each.share)
    used = [each for each in controls if each.share][:MOST_ROWS]
    if not used:
        return None
    never = sum(not each.share for each in controls)
    about = "share of the time in which each control is held; dark: alone, nothing else held"
    about += f"; {never} are never used" if never else ""
    canvas = _sheet("Controls", about, len(used))
    span = WIDTH - LEFT - RIGHT
    # A whole bar is a quarter, a half or all of the time, so that bars of two cards can be compared.
    whole = next(each for each in (0.25, 0.5, 1.0) if used[0].share <= each)
    for row, each in enumerate(used):
        middle = _label(canvas, row, each.name)
        _bar(canvas, LEFT, LEFT + span, middle, FAINT)
        _bar(canvas, LEFT, LEFT + each.share / whole * span, middle, (120, 170, 225))
        if each.alone:
            _bar(canvas, LEFT, LEFT + each.alone / whole * span, middle, COLOURS["train"])
        canvas.text((LEFT + span + 8, middle), f"{each.share:.1%}", INK, size=12)
    canvas.text((LEFT + span, TOP - 6), f"{whole:.0%}", (110, 115, 125), size=10, anchor="mm")
    return canvas


def _holds(facts: Facts) -> Canvas | None:
    held = sorted((each for each in facts.balance.controls if each.holds), key=lambda e: -e.holds)
    held = held[:MOST_ROWS]
    if not held:
        return None
    bins = max(len(each.hold_counts) for each in held)
    about = "share of its holds by length; the count on the right"
    canvas = _sheet("How long controls are held", about, len(held) + 1)
    width = (WIDTH - LEFT - RIGHT) / max(bins, 6)
    for row, each in enumerate(held):
        middle = _label(canvas, row, each.name)
        for number in range(bins):
            count = each.hold_counts[number] if number < len(each.hold_counts) else 0
            box = (
                LEFT + number * width + 1,
                middle - 9,
                LEFT + (number + 1) * width - 1,
                middle + 9,
            )
            canvas.panel(box, _shade(count / each.holds), radius=1)
            if count / each.holds >= 0.01:
                share = count / each.holds
                ink = PAPER if share > 0.45 else INK
                centre = (LEFT + (number + 0.5) * width, middle)
                canvas.text(centre, f"{share:.0%}", ink, size=10, anchor="mm")
        canvas.text((LEFT + bins * width + 8, middle), f"{each.holds:,}", INK, size=12)
    foot = _label(canvas, len(held), "seconds" if facts.info.rate != "native" else "steps")
    for number, text in enumerate(_bounds(facts, bins)):
        canvas.text((LEFT + (number + 0.5) * width, foot), text, INK, size=10, anchor="mm")
    return canvas


def _bounds(facts: Facts, bins: int) -> Sequence[str]:
    """The holds of each bin, in seconds where the rate is fixed, else in steps; the last has no end."""
    rate = facts.info.rate
    unit = 1.0 if rate == "native" else float(1 / rate)
    return [
        f"to {2**number * unit:.4g}"
        if 2**number < LONGEST_HOLD
        else f"over {2**number * unit / 2:.4g}"
        for number in range(bins)
    ]


def _shade(share: float) -> Colour:
    """From faint to dark blue; the root lets small shares be seen."""
    depth = share**0.5
    low, high = (240, 243, 247), COLOURS["train"]
    red, green, blue = (round(a + (b - a) * depth) for a, b in zip(low, high, strict=True))
    return red, green, blue
