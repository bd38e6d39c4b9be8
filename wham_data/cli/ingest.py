"""`wham-data ingest`: recordings become a corpus."""

from __future__ import annotations

import re
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit, resumable
from wham_data.cli.options import (
    ACTIONS,
    INPUT,
    LARGEST_PICTURE,
    LIMITS,
    OUTPUT,
    RUN,
    TIME_AND_PICTURE,
    AllowSynthetic,
    ClusterSpec,
    DecodeMemory,
    DecoderOption,
    DecodeTime,
    Device,
    EstimateFile,
    FormatOptions,
    Json,
    KeyFile,
    LogFormat,
    Mapping,
    MaxHours,
    MaxPixels,
    Measure,
    MetricsPort,
    PricePerHour,
    Quiet,
    RayAddress,
    RayTempDir,
    ReportEvery,
    Sample,
    Verbose,
    Workers,
    check_estimate_options,
    parse_sample,
)
from wham_data.pipelines.ingest.report import summary
from wham_data.schemas.clock import SECOND_NS
from wham_data.schemas.conversion import load_conversion
from wham_data.schemas.corpus_info import FrameFormat
from wham_data.schemas.errors import RefusedInput, UsageError, printable
from wham_data.schemas.mask import parse_masks
from wham_data.schemas.paths import expanded
from wham_data.schemas.player_key import read_player_key
from wham_data.schemas.recording import AxisRule, Fit

if TYPE_CHECKING:
    from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings

EXAMPLES = """\b
Examples:
  wham-data ingest recordings/ --out corpus
  wham-data ingest recordings/ --out corpus --dry-run
  wham-data ingest --explain recordings/a.mp4
  wham-data ingest recordings/ --out corpus --actions wham16 --split 80,10,10
  wham-data ingest /nfs/recordings --out /nfs/corpus --ray-address auto
  wham-data ingest s3://bucket/recordings --out s3://bucket/corpus

Running the same command again does only what is missing.

\b
Exit codes:
  0    all done
  2    wrong usage
  3    some inputs are in quarantine (with --strict: 1)
  4    the corpus has other settings
  6    nothing to ingest
  130  interrupted; run it again to go on"""


MEASURE_SECONDS: Final = 10.0


def ingest(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC...",
            help="Files and folders with recordings, also s3://bucket/folder and gs://bucket/folder.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            show_default=False, help="The corpus. It is created if it does not exist. Required."
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            help="Format of the recordings. auto: recognise each by its content. "
            "docs/readers.md lists the formats."
        ),
    ] = "auto",
    actions: Annotated[
        str | None,
        typer.Option(
            help="Action space of the corpus. none: steps without actions, from videos with or "
            "without a log. Default: that of the recordings."
        ),
    ] = None,
    mapping: Mapping = None,
    tokenizer: Annotated[
        str,
        typer.Option(
            help="What turns pictures into tokens: wham-tiny, a folder with a tokenizer, or none."
        ),
    ] = "wham-tiny",
    frames: Annotated[
        FrameFormat,
        typer.Option(
            help="Keep the picture of each step too. jpeg: quality 95, 4:4:4. png: exact."
        ),
    ] = "none",
    option: FormatOptions = None,
    mask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="X,Y,W,H",
            rich_help_panel=TIME_AND_PICTURE,
            help="Blacken this rectangle in every picture: in pixels of the source, or in shares of "
            "its size such as 0.0,0.9,0.3,0.1. Can be repeated.",
        ),
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=INPUT, help="Licence of the recordings that do not name their own."
        ),
    ] = None,
    player_key: KeyFile = None,
    rate: Annotated[
        str,
        typer.Option(
            rich_help_panel=TIME_AND_PICTURE,
            help="Steps per second, such as 10 or 30000/1001. native: each frame of the source is "
            "a step.",
        ),
    ] = "10",
    size: Annotated[
        str,
        typer.Option(rich_help_panel=TIME_AND_PICTURE, help="Size of the pictures, WIDTHxHEIGHT."),
    ] = "300x180",
    fit: Annotated[
        Fit,
        typer.Option(
            rich_help_panel=TIME_AND_PICTURE,
            help="What to do with pictures of another shape: stretch them, add black bars, or crop.",
        ),
    ] = "stretch",
    axis_rule: Annotated[
        AxisRule,
        typer.Option(
            rich_help_panel=ACTIONS,
            help="The value of a stick over a step: mean, last, or extreme (the farthest from rest).",
        ),
    ] = "mean",
    max_gap: Annotated[
        float,
        typer.Option(
            rich_help_panel=TIME_AND_PICTURE,
            help="Start a new episode where no new frame comes for longer than this, in seconds.",
        ),
    ] = 1.0,
    min_decoded: Annotated[
        float,
        typer.Option(
            rich_help_panel=LIMITS,
            help="Refuse a video if a smaller share of its frames can be decoded.",
        ),
    ] = 0.995,
    max_pixels: MaxPixels = LARGEST_PICTURE,
    max_hours: MaxHours = 8.0,
    decode_memory: DecodeMemory = 1500,
    decode_time: DecodeTime = 10.0,
    split: Annotated[
        str,
        typer.Option(
            rich_help_panel=OUTPUT, help="Shares of the splits train, val and test, in percent."
        ),
    ] = "90,5,5",
    split_seed: Annotated[
        int, typer.Option(rich_help_panel=OUTPUT, help="Seed for assigning splits.")
    ] = 0,
    split_by: Annotated[
        Literal["player", "match", "recording", "time"],
        typer.Option(
            rich_help_panel=OUTPUT,
            help="What stays in one split: all of a player and of a match, all of a match, or each "
            "recording. time: divide each recording into a block for each split, with gaps between.",
        ),
    ] = "player",
    tie_to: Annotated[
        Literal["train", "val", "test"] | None,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Split for a recording whose match is in one split and whose player is in "
            "another. Default: set it aside in quarantine.",
        ),
    ] = None,
    merge_shards: Annotated[
        bool,
        typer.Option(
            "--merge-shards/--no-merge-shards",
            rich_help_panel=OUTPUT,
            help="At the end, merge small shards if there are more than 64, into shards of up to "
            "256 MB.",
        ),
    ] = True,
    workers: Workers = None,
    ray_address: RayAddress = None,
    ray_temp_dir: RayTempDir = None,
    device: Device = "auto",
    decoder: DecoderOption = "cpu",
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=INPUT,
            help="Take at most this many recordings, the first by path.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")
    ] = False,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Show how a recording is understood, taken or refused, and do nothing: streams, "
            "clocks, the log's columns, first and last rows. SRC is a file of it.",
        ),
    ] = False,
    write_metadata: Annotated[
        bool,
        typer.Option(
            "--write-metadata",
            rich_help_panel=RUN,
            help="With --explain: write what it shows as NAME.toml beside the video, to correct.",
        ),
    ] = False,
    sample: Sample = "200",
    measure: Measure = True,
    cluster_spec: ClusterSpec = None,
    price_per_cpu_hour: PricePerHour = None,
    price_per_gpu_hour: PricePerHour = None,
    estimate: EstimateFile = None,
    strict: Annotated[
        bool, typer.Option(rich_help_panel=RUN, help="Exit with 1 if an input is in quarantine.")
    ] = False,
    retry_quarantined: Annotated[
        bool,
        typer.Option(rich_help_panel=INPUT, help="Try again what an earlier run refused."),
    ] = False,
    stage: Annotated[
        bool,
        typer.Option(
            "--stage",
            rich_help_panel=INPUT,
            help="Fetch each file of an object store to this disk before it is read. Default: only the "
            "parts of a video that are needed, when they are needed.",
        ),
    ] = False,
    rehash: Annotated[
        bool,
        typer.Option(
            rich_help_panel=INPUT,
            help="Read every file to identify it. Default: a file whose path, size and times an "
            "earlier run into this corpus has noted is not read again.",
        ),
    ] = False,
    allow_forgotten: Annotated[
        bool,
        typer.Option(
            rich_help_panel=INPUT,
            help="Also take players and recordings that were removed with `wham-data forget`.",
        ),
    ] = False,
    allow_synthetic: AllowSynthetic = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    report_every: ReportEvery = progress.REPORT_EVERY_SECONDS,
    log_format: LogFormat = "text",
    metrics_port: MetricsPort = None,
) -> None:
    """Turn recordings into a corpus: steps at a fixed rate, each with its picture, tokens and action."""
    from wham_data.pipelines.ingest import job
    from wham_data.pipelines.ingest.decoder_process import DecodeLimits
    from wham_data.pipelines.ingest.dry_run import Thoroughness
    from wham_data.pipelines.ingest.dry_run import dry_run as plan_only
    from wham_data.pipelines.ingest.estimate.afterwards import read_estimate
    from wham_data.pipelines.ingest.estimate.machine import read_cluster
    from wham_data.pipelines.ingest.estimate.text import comparison_lines, dry_run_text
    from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
    from wham_data.pipelines.run.choose import choose_runner
    from wham_data.pipelines.video import VideoLimits

    settings = IngestSettings(
        rate=parse_rate(rate),
        size=parse_size(size),
        fit=fit,
        actions=actions,
        tokenizer=None if tokenizer == "none" else tokenizer,
        frames=frames,
        axis_rule=axis_rule,
        max_gap_ns=round(max_gap * SECOND_NS),
        split=parse_split(split),
        split_seed=split_seed,
        split_by=split_by,
        limits=VideoLimits(
            max_pixels=max_pixels,
            max_hours=max_hours,
            min_decoded=min_decoded,
            allow_synthetic=allow_synthetic,
            decoder=decoder,
        ),
        decoding=DecodeLimits(memory_mb=decode_memory, slowness=decode_time),
        options=parse_options(option or []),
        masks=parse_masks(mask or []),
        mapping=None if mapping is None else load_conversion(mapping),
        stage=stage,
    )
    check_estimate_options(
        dry_run, cluster_spec, (price_per_cpu_hour, price_per_gpu_hour), estimate
    )
    if write_metadata and not explain:
        raise UsageError("--write-metadata goes with --explain")
    if out is None and not explain:
        raise UsageError("--out: say where the corpus is, or shall be")
    choices = IngestChoices(
        reader=format,
        limit=limit,
        retry_quarantined=retry_quarantined,
        tie_to=tie_to,
        license=license,
        player_key=None if player_key is None or out is None else read_player_key(player_key, out),
        rehash=rehash,
        allow_forgotten=allow_forgotten,
        merge_shards=merge_shards,
    )
    # A dry run refuses what the run refuses.
    job.check_decoder(settings, choose_runner(workers, ray_address, ray_temp_dir))
    if explain:
        emit_explained(sources, settings, choices, out, write=write_metadata, as_json=json)
        return
    assert out is not None
    if dry_run:
        thoroughness = Thoroughness(
            sample=parse_sample(sample),
            measure=MEASURE_SECONDS if measure else 0.0,
            cluster=None if cluster_spec is None else read_cluster(cluster_spec),
            workers=workers,
            device=device,
            price_per_cpu_hour=price_per_cpu_hour,
            price_per_gpu_hour=price_per_gpu_hour,
        )
        plan = plan_only(sources, out, settings, choices, thoroughness)
        emit(asdict(plan), dry_run_text(plan), as_json=json)
        raise typer.Exit(_strictly(plan.exit_code, strict=strict))
    past = None if estimate is None else read_estimate(estimate)
    with (
        resumable("what was done is kept"),
        progress.shown(
            "ingest",
            quiet=quiet,
            verbose=verbose,
            report_every=report_every,
            log_format=log_format,
            metrics_port=metrics_port,
        ) as watch,
    ):
        runner = choose_runner(workers, ray_address, ray_temp_dir, watch)
        report = job.run_ingest(
            sources, out, settings, runner, choices, device=device, watch=watch, estimate=past
        )
    told = "\n".join([summary(report), *comparison_lines(report)])
    emit(asdict(report), told, as_json=json)
    raise typer.Exit(_strictly(report.exit_code, strict=strict))


def _strictly(code: int, *, strict: bool) -> int:
    return 1 if strict and code == RefusedInput.exit_code else code


ingest.__doc__ = f"{ingest.__doc__}\n\n{EXAMPLES}"


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
        value = expanded(value)
        if not name or not equals:
            raise UsageError(f"--option {pair!r}: expected NAME=VALUE")
        if found.setdefault(name, value) != value:
            raise UsageError(f"--option {name}: given twice, {found[name]!r} and {value!r}")
    return tuple(sorted(found.items()))


def emit_explained(
    sources: list[str],
    settings: IngestSettings,
    choices: IngestChoices,
    out: Path | None,
    *,
    write: bool,
    as_json: bool,
) -> None:
    """Print how recordings are understood, and write their metadata if that is asked for."""
    from wham_data.pipelines.ingest.shown.explain import explain, explanation_text, write_metadata

    found = explain(sources, settings, choices, out)
    written, unwritten = [], []
    for each in found if write else ():
        try:
            written.append(str(write_metadata(each)))
        except UsageError as why:
            unwritten.append(why)
    text = "\n\n".join(map(explanation_text, found))
    said = "".join(f"\n\nwritten: {printable(path)}" for path in written)
    result = {"recordings": [asdict(each) for each in found], "written": written}
    emit(result, text + said, as_json=as_json)
    if unwritten:
        raise unwritten[0]
    if any(each.refused is not None for each in found):
        raise typer.Exit(3)
