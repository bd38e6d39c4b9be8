"""`wham-data tokenize`: a corpus with pictures becomes one with tokens."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit, resumable
from wham_data.cli.options import (
    Device,
    Json,
    Location,
    LogFormat,
    MetricsPort,
    Quiet,
    RayAddress,
    ReportEvery,
    Verbose,
    Workers,
)
from wham_data.schemas.errors import UsageError


def tokenize(
    corpus: Location,
    tokenizer: Annotated[
        str, typer.Option(help="wham-tiny, a folder with a tokenizer, or a WHAM checkpoint.")
    ],
    out: Annotated[Path, typer.Option(help="The new corpus. It is created if it does not exist.")],
    drop_frames: Annotated[
        bool, typer.Option("--drop-frames", help="Do not copy the pictures to the new corpus.")
    ] = False,
    workers: Workers = None,
    ray_address: RayAddress = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    report_every: ReportEvery = progress.REPORT_EVERY_SECONDS,
    log_format: LogFormat = "text",
    metrics_port: MetricsPort = None,
) -> None:
    """Make tokens from the pictures that a corpus holds, in a new corpus.

    Episodes, splits and actions stay the same. The corpus must hold pictures (made by `wham-data
    ingest --frames png`) and is not changed. Running the same command again does only what is missing.

    \b
    Example:
      wham-data tokenize corpus --tokenizer wham-tiny --out corpus-tokens
    """
    from wham_data.pipelines.ingest.tokenize import tokenize as tokenize_corpus

    if workers == 0 and ray_address is not None:
        raise UsageError("--workers 0 runs without Ray, so --ray-address makes no sense with it")
    with (
        resumable("what was done is kept"),
        progress.shown(
            "tokenize",
            quiet=quiet,
            verbose=verbose,
            report_every=report_every,
            log_format=log_format,
            metrics_port=metrics_port,
        ) as watch,
    ):
        report = tokenize_corpus(
            corpus,
            tokenizer=tokenizer,
            out=out,
            keep_frames=not drop_frames,
            workers=workers,
            ray_address=ray_address,
            device=device,
            watch=watch,
        )
    text = (
        f"{report.corpus}: version {report.version}\n"
        f"  {report.recordings:,} recordings tokenised, {report.already_there:,} already there; "
        f"{report.episodes:,} episodes, {report.steps:,} steps in {report.seconds:.1f} s"
    )
    emit(asdict(report), text, as_json=json)
