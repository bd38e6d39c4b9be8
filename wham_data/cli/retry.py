"""`wham-data quarantine retry`: try refused inputs again."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit
from wham_data.cli.options import (
    INPUT,
    LARGEST_PICTURE,
    AllowSynthetic,
    DecodeMemory,
    DecodeTime,
    Json,
    KeyFile,
    Location,
    LogFormat,
    MaxHours,
    MaxPixels,
    MetricsPort,
    Quiet,
    RayAddress,
    RayTempDir,
    ReportEvery,
    Verbose,
    Workers,
)
from wham_data.pipelines.ingest.report import summary
from wham_data.schemas.errors import Reason
from wham_data.schemas.player_key import read_player_key


def retry(
    corpus: Location,
    reason: Annotated[
        Reason | None, typer.Option(help="Try only what was refused for this reason.")
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=INPUT,
            help="Where the tokenizer of the corpus is, if it is not a bundled one.",
        ),
    ] = None,
    max_pixels: MaxPixels = LARGEST_PICTURE,
    max_hours: MaxHours = 8.0,
    allow_synthetic: AllowSynthetic = False,
    decode_memory: DecodeMemory = 1500,
    decode_time: DecodeTime = 10.0,
    player_key: KeyFile = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    ray_temp_dir: RayTempDir = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    report_every: ReportEvery = progress.REPORT_EVERY_SECONDS,
    log_format: LogFormat = "text",
    metrics_port: MetricsPort = None,
) -> None:
    """Try refused inputs again. What can be read now goes into the corpus and leaves the quarantine.

    The settings are those of the corpus, and inputs are looked for where `ingest` found them. For a
    corpus made with a mapping use `wham-data ingest ... --retry-quarantined` instead.

    \b
    Example:
      wham-data quarantine retry corpus --reason too_many_pixels --max-pixels 34000000
    """
    from wham_data.pipelines.ingest.decoder_process import DecodeLimits
    from wham_data.pipelines.ingest.retry import retry as retry_refused
    from wham_data.pipelines.run.choose import choose_runner
    from wham_data.pipelines.video import VideoLimits

    with progress.shown(
        "quarantine retry",
        quiet=quiet,
        verbose=verbose,
        report_every=report_every,
        log_format=log_format,
        metrics_port=metrics_port,
    ) as watch:
        report = retry_refused(
            corpus,
            choose_runner(workers, ray_address, ray_temp_dir, watch),
            reason=reason,
            tokenizer=tokenizer,
            limits=VideoLimits(
                max_pixels=max_pixels, max_hours=max_hours, allow_synthetic=allow_synthetic
            ),
            decoding=DecodeLimits(memory_mb=decode_memory, slowness=decode_time),
            player_key=None if player_key is None else read_player_key(player_key, corpus),
            watch=watch,
        )
    emit(asdict(report), summary(report), as_json=json)
    raise typer.Exit(report.exit_code)
