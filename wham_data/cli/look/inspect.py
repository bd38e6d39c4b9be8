"""`wham-data inspect`: a recording or an episode with its controls drawn below the pictures."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit
from wham_data.cli.ingest import parse_options, parse_rate
from wham_data.cli.options import (
    ACTIONS,
    INPUT,
    LARGEST_PICTURE,
    TIME_AND_PICTURE,
    AllowSynthetic,
    FormatOptions,
    Json,
    Mapping,
    MaxHours,
    MaxPixels,
    Quiet,
)
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.conversion import load_conversion
from wham_data.schemas.errors import UsageError, printable

EXAMPLES = """\b
Examples:
  wham-data inspect recordings/match_007.mp4 --out look.mp4
  wham-data inspect recordings/match_007.mp4 --out look.mp4 --start 95 --seconds 10
  wham-data inspect recordings/match_007.mp4 --out look.mp4 --offset-ms 180
  wham-data inspect recordings/ --out look.mp4 --episode 3 --actions wham16
  wham-data inspect corpus --out look.mp4

Lamps are buttons, curves are sticks, triggers and motion; the cursor on the curves is now. What is
not known is hatched. If the lamps light before or after their effect on screen, the log is early or
late: docs/your-own-recordings.md says what to do.

\b
Exit codes:
  0    done
  2    wrong usage
  3    the recording cannot be read
  6    no recording found"""


def inspect(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...", help="A recording, or files and folders with some; or a corpus."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The video to make, NAME.mp4.")],
    episode: Annotated[
        str | None,
        typer.Option(
            help="Which recording, or which episode of a corpus: its name, or its number from 1. "
            "Default: the first."
        ),
    ] = None,
    start: Annotated[float, typer.Option(help="Where to begin, in seconds.")] = 0.0,
    seconds: Annotated[float, typer.Option(help="How much to draw, in seconds.")] = 20.0,
    offset_ms: Annotated[
        float,
        typer.Option(
            help="Try this correction of the log's clock, on top of what the metadata say. A log that "
            "is late needs a number above 0."
        ),
    ] = 0.0,
    rate: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=TIME_AND_PICTURE,
            help="Pictures per second of a recording. Default: its own frame rate, 60 at most.",
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            rich_help_panel=INPUT,
            help="Format of the recordings. auto: recognise each by its content.",
        ),
    ] = "auto",
    option: FormatOptions = None,
    allow_synthetic: AllowSynthetic = False,
    actions: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=ACTIONS,
            help="Draw the actions in this action space. Default: as they were recorded.",
        ),
    ] = None,
    mapping: Mapping = None,
    max_pixels: MaxPixels = LARGEST_PICTURE,
    max_hours: MaxHours = 8.0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw what the hands did below the pictures, to see that log and video belong together."""
    from wham_data.pipelines.ingest.settings import IngestSettings
    from wham_data.pipelines.ingest.shown.inspect import Stretch
    from wham_data.pipelines.ingest.shown.inspect import inspect as draw
    from wham_data.pipelines.video import VideoLimits

    settings = IngestSettings(
        rate=None,
        actions=actions,
        tokenizer=None,
        limits=VideoLimits(
            max_pixels=max_pixels, max_hours=max_hours, allow_synthetic=allow_synthetic
        ),
        options=parse_options(option or []),
        mapping=None if mapping is None else load_conversion(mapping),
    )
    stretch = Stretch(
        episode=episode,
        start=parse_seconds("--start", start),
        seconds=parse_seconds("--seconds", seconds),
        rate=None if rate is None else parse_rate(rate),
        offset_ns=round(parse_seconds("--offset-ms", offset_ms) * SECOND_NS / 1000),
    )
    with progress.shown(quiet=quiet, verbose=False) as watch:
        report = draw(sources, out, settings, stretch, reader=format, watch=watch)
    lines = [
        f"{report.out}: {printable(report.source)} from {report.start_s:g} s on, "
        f"{report.seconds:.1f} s in {report.space}",
        f"  {report.steps} pictures, of which {report.unknown} without a known action"
        + (f" and {report.lost} that did not decode" if report.lost else ""),
    ]
    if any(report.left_out):
        buttons, others = report.left_out
        lines.append(f"  no room for {buttons} buttons and {others} other dimensions")
    if report.others:
        lines.append(f"  there are {report.others} more: choose with --episode NAME, or a number")
    lines += [f"  {printable(note)}" for note in report.notes]
    emit(asdict(report), "\n".join(lines), as_json=json)


inspect.__doc__ = f"{inspect.__doc__}\n\n{EXAMPLES}"


def parse_seconds(option: str, value: float) -> Fraction:
    """A time as an exact number.

    Raises:
        UsageError: it is not finite, or longer than a day.
    """
    if not abs(value) <= 86_400_000:
        raise UsageError(f"{option} {value:g}: expected a time of a recording")
    return Fraction(str(value))
