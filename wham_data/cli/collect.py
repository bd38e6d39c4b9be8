"""`wham-data collect`: plays real engines and records them."""

from __future__ import annotations

import os
import re
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit, resumable
from wham_data.cli.options import (
    ACTIONS,
    RESOURCES,
    TIME_AND_PICTURE,
    Json,
    LogFormat,
    MetricsPort,
    Quiet,
    ReportEvery,
    Verbose,
)
from wham_data.pipelines.collect.report import CollectReport
from wham_data.schemas.errors import UsageError

MOST_FAILED = 20

EXAMPLES = """\b
Examples:
  wham-data collect vizdoom:MAP01 --out recordings --minutes 10
  wham-data collect vizdoom:E1M1 --out recordings --minutes 60 --policy scripted --parallel 8
  wham-data collect vizdoom:MAP01 --out r --minutes 5 --share ATTACK=0.1,JUMP=0.2 --hold 0.2-0.8
  wham-data collect procgen:coinrun --out recordings --minutes 10 --size 64x64 --policy random
  wham-data ingest recordings --out corpus

Running the same command again makes only what is missing.

\b
Exit codes:
  0    all done
  2    wrong usage
  3    some recordings failed
  4    the folder holds recordings made with other settings
  5    the engine is not installed
  6    nothing recorded
  130  interrupted; run it again to go on"""


def collect(
    game: Annotated[
        str,
        typer.Argument(
            metavar="ENGINE:SCENARIO",
            help="The engine (vizdoom, procgen, ale, retro, dmlab2d or miniworld) and a level or "
            "game of it.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the recordings. It is created if it does not exist.")
    ],
    minutes: Annotated[float, typer.Option(help="Minutes of play, over all recordings.", min=0.01)],
    policy: Annotated[
        Literal["random", "held", "scripted"],
        typer.Option(
            help="How to play. random: a new action at each tic of the engine. held: each action is "
            "held for a while. scripted: held, with the actions and reflexes of the engine's script."
        ),
    ] = "held",
    seed: Annotated[
        int,
        typer.Option(help="Seed of the first recording; the others have the next numbers.", min=0),
    ] = 0,
    episode: Annotated[
        float,
        typer.Option(
            min=1, rich_help_panel=TIME_AND_PICTURE, help="Seconds of play in one recording."
        ),
    ] = 60,
    size: Annotated[
        str | None,
        typer.Option(help="Size of the pictures, WIDTHxHEIGHT. Default: the engine's usual size."),
    ] = None,
    fps: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=TIME_AND_PICTURE,
            help="Frames per second. Default: one for each tic of the engine.",
        ),
    ] = None,
    hold: Annotated[
        str,
        typer.Option(
            metavar="SECONDS-SECONDS",
            rich_help_panel=ACTIONS,
            help="The shortest and the longest time for which an action is held.",
        ),
    ] = "0.2-1.5",
    beat: Annotated[
        str,
        typer.Option(
            rich_help_panel=ACTIONS,
            help="Actions change only at multiples of this many seconds. 0: at any tic. auto: where a "
            "tic and a step at 10 Hz begin together.",
        ),
    ] = "auto",
    share: Annotated[
        str,
        typer.Option(
            metavar="ACTION=SHARE,...",
            rich_help_panel=ACTIONS,
            help="Share of the time for which each action is played. Default: the same for all.",
        ),
    ] = "",
    parallel: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=RESOURCES,
            help="Recordings to make at once. Default: one per core.",
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    report_every: ReportEvery = progress.REPORT_EVERY_SECONDS,
    log_format: LogFormat = "text",
    metrics_port: MetricsPort = None,
) -> None:
    """Make recordings: let a game engine play, and record pictures and actions for `ingest`."""
    from wham_data.pipelines.collect.engines import engine_named
    from wham_data.pipelines.collect.run import CollectSettings, run_collect

    engine, colon, scenario = game.partition(":")
    kind = engine_named(engine)
    if not colon or not scenario:
        raise UsageError(
            f"{game[:60]!r}: expected ENGINE:SCENARIO, such as {engine}:{kind.scenarios[0]}"
        )
    settings = CollectSettings(
        scenario=scenario,
        seconds=Fraction(str(minutes)) * 60,
        policy=policy,
        episode_s=Fraction(str(episode)),
        seed=seed,
        size=None if size is None else parse_size(size),
        fps=None if fps is None else parse_positive("--fps", fps),
        hold_s=parse_hold(hold),
        beat_s=None if beat == "auto" else parse_positive("--beat", beat, zero=True),
        shares=parse_shares(share),
    )
    with (
        resumable("the recordings that are done are kept"),
        progress.shown(
            "collect",
            quiet=quiet,
            verbose=verbose,
            report_every=report_every,
            log_format=log_format,
            metrics_port=metrics_port,
        ) as watch,
    ):
        report = run_collect(
            kind, settings, out, parallel=parallel or os.cpu_count() or 1, watch=watch
        )
    emit(asdict(report), summary(report), as_json=json)
    raise typer.Exit(report.exit_code)


collect.__doc__ = f"{collect.__doc__}\n\n{EXAMPLES}"


def parse_size(text: str) -> tuple[int, int]:
    """Width and height of `--size`."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text, re.ASCII)
    if match is None:
        raise UsageError(f"--size {text[:40]!r}: expected WIDTHxHEIGHT, such as 640x360")
    return int(match[1]), int(match[2])


def parse_positive(flag: str, text: str, *, zero: bool = False) -> Fraction:
    """A number above 0, or from 0 on, as a fraction."""
    try:
        number = Fraction(text)
    except (ValueError, ZeroDivisionError):
        number = Fraction(-1)
    if number < 0 or (number == 0 and not zero):
        raise UsageError(f"{flag} {text[:40]!r}: expected a number {'from' if zero else 'above'} 0")
    return number


def parse_hold(text: str) -> tuple[Fraction, Fraction]:
    """The shortest and the longest hold of `--hold`; one number is both."""
    low, dash, high = text.partition("-")
    shortest = parse_positive("--hold", low)
    return shortest, parse_positive("--hold", high) if dash else shortest


def parse_shares(text: str) -> dict[str, float]:
    """The shares of `--share` by the actions' names."""
    shares: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = part.partition("=")
        if not equals:
            raise UsageError(f"--share {part[:60]!r}: expected ACTION=SHARE, such as ATTACK=0.2")
        shares[name.strip()] = float(parse_positive("--share", number.strip(), zero=True))
    return shares


def summary(report: CollectReport) -> str:
    """The account of a run, as a person reads it."""
    lines = [
        f"{report.out}: {report.engine}:{report.scenario}, {report.policy}",
        f"  found {report.found} = made {report.made} + already there {report.already_there} "
        f"+ failed {len(report.failed)}",
    ]
    if report.made:
        lines.append(
            f"  {report.minutes:.1f} minutes of play, {report.frames:,} frames, {report.games} games "
            f"in {report.seconds:.0f} s, {report.minutes * 60 / report.seconds:.1f} times real time"
        )
        lines.append(f"  {'action':<24} {'asked':>7} {'played':>7}")
        lines += [
            f"  {each.name:<24} {each.asked:>7.1%} {each.played:>7.1%}"
            for each in report.actions
            if each.asked
        ]
    lines += [f"  failed: {each.recording}: {each.message}" for each in report.failed[:MOST_FAILED]]
    if len(report.failed) > MOST_FAILED:
        lines.append(f"  and {len(report.failed) - MOST_FAILED} more: --json lists them all")
    return "\n".join(lines)
