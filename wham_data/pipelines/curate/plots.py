"""Pictures of an audit: one for each recording, and one of all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wham_data.files.whole import written_whole
from wham_data.pipelines.curate.report import Audited, AuditReport
from wham_data.pipelines.media.canvas import Box, Canvas, Colour
from wham_data.pipelines.media.picture import FAINT, INK, LIT, PAPER
from wham_data.schemas.errors import printable

PANEL: Final = (34, 37, 43)
BLUE: Final = (90, 200, 250)
GREEN: Final = (120, 220, 120)
WIDTH: Final = 900
LEFT: Final = 60
ROW: Final = 22

Floats = NDArray[np.float64]


def draw_recordings(report: AuditReport, folder: Path) -> None:
    """Draw a PNG of each recording of which something was measured."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in report.recordings:
        if each.measured.fit is not None:
            _save(picture_of(each), folder / f"{_name(each.recording)}.png")


def draw_overview(report: AuditReport, folder: Path) -> None:
    """Draw the lag of every recording with its interval, as `overview.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(overview_of(report.recordings), folder / "overview.png")


def _name(recording: str) -> str:
    """A file name for a recording: its own, and a part of the hash of its whole path."""
    digest = hashlib.sha256(recording.encode()).hexdigest()[:6]
    kept = "".join(c if c.isalnum() or c in "-_" else "_" for c in Path(recording).stem)
    return f"{kept[:80]}-{digest}"


def _save(canvas: Canvas, path: Path) -> None:
    with written_whole(path) as part, part.open("wb") as file:
        Image.fromarray(canvas.pixels()).save(file, "PNG")


def picture_of(audited: Audited) -> Canvas:
    """Picture and hands over time, before and after the correction; the score; the lag over time."""
    found, fit = audited.measured, audited.measured.fit
    assert fit is not None
    canvas = Canvas(WIDTH, 640, 1, PAPER)
    name = printable(Path(audited.recording).name)[:60]
    canvas.text((LEFT, 18), f"{name}   {audited.verdict}   {audited.why}", INK, size=15)
    curves = ((fit.seen, BLUE), (fit.before, LIT))
    _curves(canvas, (LEFT, 60, WIDTH - 20, 190), fit.times_s, curves, (-1.1, 1.1))
    canvas.text(
        (LEFT, 48), "as recorded: picture (blue), what the hands say it should do (orange)", FAINT
    )
    curves = ((fit.seen, BLUE), (fit.after, GREEN))
    _curves(canvas, (LEFT, 235, WIDTH - 20, 365), fit.times_s, curves, (-1.1, 1.1))
    canvas.text((LEFT, 223), "log moved by the lag found here (green); seconds below", FAINT)
    _ticks(canvas, (LEFT, 235, WIDTH - 20, 365), fit.times_s, "{:.0f}")
    top = max(float(fit.score.max()), fit.null_score) * 1.1
    box: Box = (LEFT, 425, WIDTH / 2 - 20, 600)
    lags = fit.lags_s * 1e3
    _curves(
        canvas, box, lags, ((fit.score, INK), (np.full(len(lags), fit.null_score), FAINT)), (0, top)
    )
    canvas.text((LEFT, 413), "score over lag, ms (grey: best score of hands at other times)", FAINT)
    _ticks(canvas, box, lags, "{:+.0f}")
    box = (WIDTH / 2 + 50, 425, WIDTH - 20, 600)
    middle = 0.0 if found.lag_ms is None else fit.lag_s * 1e3
    span = max(60.0, float(np.abs(fit.window_lags_s * 1e3 - middle).max(initial=0.0)) * 1.2)
    _curves(
        canvas,
        box,
        fit.windows_s,
        ((fit.window_lags_s * 1e3, GREEN),),
        (middle - span, middle + span),
    )
    canvas.text((box[0], 413), "lag over time, ms over s", FAINT)
    _ticks(canvas, box, fit.windows_s, "{:.0f}")
    for share in (0.0, 0.5, 1.0):
        at = box[3] - share * (box[3] - box[1])
        canvas.text(
            (box[0] - 6, at), f"{middle - span + 2 * span * share:+.0f}", FAINT, anchor="rm"
        )
    return canvas


def _curves(
    canvas: Canvas,
    box: Box,
    x: Floats,
    curves: Sequence[tuple[Floats, Colour]],
    ends: tuple[float, float],
) -> None:
    """Draw curves over one axis, cut where x jumps."""
    left, top, right, bottom = box
    canvas.panel(box, PANEL)
    if len(x) < 2:
        return
    across = left + (x - x[0]) / max(float(x[-1] - x[0]), 1e-9) * (right - left)
    jumps = np.flatnonzero(np.diff(x) > 5 * np.median(np.diff(x))) + 1
    for values, colour in curves:
        shares = np.clip((values - ends[0]) / (ends[1] - ends[0]), 0, 1)
        down = bottom - shares * (bottom - top)
        for part in np.split(np.arange(len(x)), jumps):
            canvas.line(
                list(zip(across[part].tolist(), down[part].tolist(), strict=True)), colour, 1.5
            )


def _ticks(canvas: Canvas, box: Box, x: Floats, form: str) -> None:
    if len(x):
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            value = float(x[0] + share * (x[-1] - x[0])) + 0.0
            at = box[0] + share * (box[2] - box[0])
            canvas.text((at, box[3] + 10), form.format(value), FAINT, anchor="mm")


def overview_of(recordings: Sequence[Audited]) -> Canvas:
    """The lag of each recording, the latest on top, with its interval; those without one below."""
    ranked = sorted(recordings, key=lambda each: -(each.measured.lag_ms or -1e9))
    canvas = Canvas(WIDTH, 70 + ROW * len(ranked), 1, PAPER)
    ends = [
        abs(value)
        for each in ranked
        for value in (each.measured.lag_low_ms, each.measured.lag_high_ms)
        if value is not None
    ]
    reach, left, right = max([100.0, *ends]) * 1.05, 400, WIDTH - 30
    middle, scale = (left + right) / 2, (right - left) / 2 / reach
    canvas.text((20, 18), "lag of each log, ms, with its 95 % interval", INK, size=15)
    for value in (-reach / 2, 0.0, reach / 2):
        at = middle + value * scale
        canvas.text((at, 42), f"{value:+.0f}", FAINT, anchor="mm")
        canvas.line([(at, 54), (at, 60 + ROW * len(ranked))], FAINT, 1)
    for number, each in enumerate(ranked):
        row = 66 + ROW * number
        colour = GREEN if each.verdict == "ok" else FAINT if each.measured.lag_ms is None else LIT
        name = printable(Path(each.recording).name)
        canvas.text((20, row), f"{name[-42:]}", INK)
        canvas.text((left - 12, row), each.verdict, colour, anchor="rm")
        _interval(canvas, each, row, middle, scale, colour)
    return canvas


def _interval(
    canvas: Canvas, each: Audited, row: float, middle: float, scale: float, colour: Colour
) -> None:
    low, lag, high = (
        getattr(each.measured, name) for name in ("lag_low_ms", "lag_ms", "lag_high_ms")
    )
    if lag is not None:
        canvas.line([(middle + low * scale, row), (middle + high * scale, row)], colour, 2)
        canvas.disc((middle + lag * scale, row), 4, colour)
