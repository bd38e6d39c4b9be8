"""`wham-data ingest`: recordings become a corpus."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit, say
from wham_data.cli.options import (
    DecodeMemory,
    DecodeTime,
    Json,
    Quiet,
    RayAddress,
    Verbose,
    Workers,
)
from wham_data.pipelines.ingest.report import DryRun, IngestReport
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.conversion import load_conversion
from wham_data.schemas.corpus_info import FrameFormat
from wham_data.schemas.errors import UsageError, printable
from wham_data.schemas.manifest import SPLITS
from wham_data.schemas.mask import parse_masks
from wham_data.schemas.player_key import read_player_key
from wham_data.schemas.recording import AxisRule, Fit

if TYPE_CHECKING:
    from wham_data.pipelines.run.runner import Runner

FITS = get_args(Fit)
FRAME_FORMATS = get_args(FrameFormat)
AXIS_RULES = get_args(AxisRule)

EXAMPLES = """\b
Examples:
  wham-data ingest recordings/ --out corpus
  wham-data ingest recordings/ --out corpus --dry-run
  wham-data ingest a.mp4 b.mp4 --out corpus --tokenizer none --frames jpeg
  wham-data ingest recordings/ --out corpus --actions wham16 --split 80,10,10
  wham-data ingest /nfs/recordings --out /nfs/corpus --ray-address auto

Running the same command again does only what is missing.
Exit codes: 0 all done, 2 wrong usage, 3 some inputs are in quarantine, 4 the corpus has other
settings, 6 nothing to ingest, 130 interrupted (run it again to go on)."""


def ingest(
    sources: Annotated[
        list[str], typer.Argument(metavar="SRC...", help="Files and folders with recordings.")
    ],
    out: Annotated[Path, typer.Option(help="The corpus; made if it is not there.")],
    format: Annotated[
        str,
        typer.Option(help="auto, or the one format to look for; docs/readers.md lists them."),
    ] = "auto",
    actions: Annotated[
        str | None,
        typer.Option(help="Action space of the corpus. Default: the one the recordings are in."),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(help="A TOML file that makes the corpus' actions of keys, mouse, ..."),
    ] = None,
    tokenizer: Annotated[
        str, typer.Option(help="wham-tiny, a folder with a tokenizer, or none.")
    ] = "wham-tiny",
    frames: Annotated[
        str,
        typer.Option(help="Keep each step's picture too: none, jpeg (q95 4:4:4) or png (exact)."),
    ] = "none",
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="An option of a format; docs/readers.md lists them."
        ),
    ] = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,W,H",
            help="Blacken this of every picture: pixels of the source, or shares such as 0.0,0.9,0.3,0.1.",
        ),
    ] = None,
    license: Annotated[
        str | None, typer.Option(help="Licence of recordings whose source names none.")
    ] = None,
    player_key: Annotated[
        Path | None,
        typer.Option(
            envvar="WHAM_DATA_PLAYER_KEY",
            help="Store players as pseudonyms made with the key in this file. Default: by name.",
        ),
    ] = None,
    rate: Annotated[
        str, typer.Option(help="Steps per second, e.g. 10 or 30000/1001; or native.")
    ] = "10",
    size: Annotated[str, typer.Option(help="Frame size, WIDTHxHEIGHT.")] = "300x180",
    fit: Annotated[
        str, typer.Option(help="How other shapes are brought to it: stretch, letterbox or crop.")
    ] = "stretch",
    axis_rule: Annotated[
        str, typer.Option(help="A stick's value over a step: mean, last or extreme.")
    ] = "mean",
    max_gap: Annotated[
        float, typer.Option(help="Cut where no new frame comes for longer, in seconds.")
    ] = 1.0,
    min_decoded: Annotated[
        float, typer.Option(help="Refuse a video of which a smaller share decodes.")
    ] = 0.995,
    max_pixels: Annotated[int, typer.Option(help="Refuse a video with larger pictures.")] = 3840
    * 2160,
    max_hours: Annotated[float, typer.Option(help="Refuse longer recordings.")] = 8.0,
    decode_memory: DecodeMemory = 1500,
    decode_time: DecodeTime = 10.0,
    split: Annotated[str, typer.Option(help="Shares of train, val and test.")] = "90,5,5",
    split_seed: Annotated[int, typer.Option(help="Another seed, other splits.")] = 0,
    tie_to: Annotated[
        str | None,
        typer.Option(help="Split for recordings whose match or player ties two splits together."),
    ] = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    device: Annotated[str, typer.Option(help="For the tokenizer: auto, cpu or cuda.")] = "auto",
    limit: Annotated[
        int | None, typer.Option(help="Take only so many recordings, the first by path.", min=1)
    ] = None,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    strict: Annotated[
        bool, typer.Option(help="Exit with 1 if anything went to quarantine.")
    ] = False,
    retry_quarantined: Annotated[
        bool, typer.Option(help="Try again what an earlier run refused.")
    ] = False,
    allow_forgotten: Annotated[
        bool, typer.Option(help="Take in players and recordings that were forgotten.")
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Bring recordings to a grid of steps, tokenise them and write a corpus."""
    from wham_data.pipelines.ingest.decoder_process import DecodeLimits
    from wham_data.pipelines.ingest.job import dry_run, run_ingest
    from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
    from wham_data.pipelines.video import VideoLimits

    settings = IngestSettings(
        rate=parse_rate(rate),
        size=parse_size(size),
        fit=one_of("--fit", fit, FITS),
        actions=actions,
        tokenizer=None if tokenizer == "none" else tokenizer,
        frames=one_of("--frames", frames, FRAME_FORMATS),
        axis_rule=one_of("--axis-rule", axis_rule, AXIS_RULES),
        max_gap_ns=round(max_gap * SECOND_NS),
        split=parse_split(split),
        split_seed=split_seed,
        limits=VideoLimits(max_pixels=max_pixels, max_hours=max_hours, min_decoded=min_decoded),
        decoding=DecodeLimits(memory_mb=decode_memory, slowness=decode_time),
        options=parse_options(option or []),
        masks=parse_masks(mask or []),
        mapping=None if mapping is None else load_conversion(mapping),
    )
    if tie_to is not None:
        one_of("--tie-to", tie_to, SPLITS)
    key = None if player_key is None else read_player_key(player_key, out)
    choices = IngestChoices(
        reader=format,
        limit=limit,
        retry_quarantined=retry_quarantined,
        tie_to=tie_to,
        license=license,
        player_key=key,
        allow_forgotten=allow_forgotten,
    )
    if dry:
        emit_dry_run(dry_run(sources, out, settings, choices), as_json=json)
        return
    runner = make_runner(workers, ray_address)
    try:
        with progress.shown(quiet=quiet, verbose=verbose) as watch:
            report = run_ingest(sources, out, settings, runner, choices, device=device, watch=watch)
    except (KeyboardInterrupt, SystemExit):
        say("wham-data: interrupted; what was done is kept. To go on, run the same command again:")
        say(f"  {shlex.join(['wham-data', *sys.argv[1:]])}")
        raise
    emit(asdict(report), summary(report), as_json=json)
    code = report.exit_code
    raise typer.Exit(1 if strict and code == 3 else code)


ingest.__doc__ = f"{ingest.__doc__}\n\n{EXAMPLES}"


def make_runner(workers: int | None, ray_address: str | None) -> Runner:
    """The runner that the flags ask for."""
    from wham_data.pipelines.ingest.job import choose_runner

    if workers == 0 and ray_address is not None:
        raise UsageError("--workers 0 runs without Ray, so --ray-address makes no sense with it")
    return choose_runner(workers, ray_address)


def parse_rate(text: str) -> Fraction | None:
    """Steps per second; None for `native`."""
    if text == "native":
        return None
    try:
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(
            f"--rate {text!r}: expected a number such as 10 or 30000/1001, or native"
        ) from None


def parse_size(text: str) -> tuple[int, int]:
    """WIDTHxHEIGHT in pixels."""
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None or not all(map(int, match.groups())):
        raise UsageError(f"--size {text!r}: expected WIDTHxHEIGHT, such as 300x180")
    return int(match[1]), int(match[2])


def parse_split(text: str) -> tuple[float, float, float]:
    """Three shares, separated by commas."""
    try:
        train, val, test = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"--split {text!r}: expected three shares, such as 90,5,5") from None
    return train, val, test


def parse_options(pairs: list[str]) -> tuple[tuple[str, str], ...]:
    """NAME=VALUE pairs, sorted by name; of two values for one name neither is guessed."""
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals:
            raise UsageError(f"--option {pair!r}: expected NAME=VALUE")
        if found.setdefault(name, value) != value:
            raise UsageError(f"--option {name}: given twice, {found[name]!r} and {value!r}")
    return tuple(sorted(found.items()))


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    """`value`, if it is one of those allowed."""
    if value not in allowed:
        raise UsageError(f"{option} {value!r}: expected {', '.join(allowed[:-1])} or {allowed[-1]}")
    return value


def emit_dry_run(plan: DryRun, *, as_json: bool) -> None:
    """Print what would be done."""
    lines = [
        f"{plan.recordings} recordings to ingest, {plan.hours:.2f} hours, {plan.steps} steps, "
        f"about {human_bytes(plan.estimated_bytes)} of shards",
        *(f"  {name}: {count}" for name, count in plan.readers.items()),
        f"{plan.already_there} already there, {plan.duplicates} duplicates, "
        f"{len(plan.refused)} to be refused, {plan.forgotten} forgotten, "
        f"{plan.ignored_files} other files ignored",
        *(f"  {printable(path)}: {printable(why)}" for path, why in plan.refused.items()),
        *(
            f"  {printable(path)}: {printable('; '.join(notes))}"
            for path, notes in plan.notes.items()
        ),
    ]
    emit(asdict(plan), "\n".join(lines), as_json=as_json)


def summary(report: IngestReport) -> str:
    """The account of a run, as a person reads it."""
    lines = [
        f"{report.corpus}: version {report.version}",
        f"  found {report.found} = ingested {report.ingested} + already there {report.already_there} "
        f"+ duplicates {report.duplicates} + quarantined {report.quarantined}"
        + (f" + forgotten {report.forgotten}" if report.forgotten else "")
        + (f" + not reached {report.not_reached}" if report.not_reached else ""),
        f"  {report.episodes} episodes, {report.steps} steps, {report.hours:.3f} hours "
        f"in {report.seconds:.1f} s",
    ]
    if report.frames_in:
        dropped = ", ".join(
            f"{n} {reason.replace('_', ' ')}" for reason, n in report.frames_dropped.items()
        )
        lines.append(
            f"  frames in {report.frames_in} = used {report.frames_used} + dropped "
            f"{sum(report.frames_dropped.values())}" + (f" ({dropped})" if dropped else "")
        )
    if report.quarantined:
        reasons = ", ".join(f"{n} {reason}" for reason, n in report.reasons.items())
        lines.append(f"  quarantined: {reasons}; see wham-data quarantine list {report.corpus}")
    return "\n".join(lines)


def human_bytes(count: float) -> str:
    """Bytes in the unit a person would choose."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
