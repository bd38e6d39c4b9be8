"""`wham-data tokenize`: a corpus with pictures becomes one with tokens."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit, say
from wham_data.cli.corpus_commands import AsJson, Location
from wham_data.cli.options import Quiet, RayAddress, Verbose, Workers
from wham_data.schemas.errors import UsageError


def tokenize(
    corpus: Location,
    tokenizer: Annotated[
        str, typer.Option(help="wham-tiny, a folder with a tokenizer, or a WHAM checkpoint.")
    ],
    out: Annotated[Path, typer.Option(help="The new corpus; made if it is not there.")],
    drop_frames: Annotated[
        bool, typer.Option("--drop-frames", help="Keep the pictures out of the new corpus.")
    ] = False,
    workers: Workers = None,
    ray_address: RayAddress = None,
    device: Annotated[str, typer.Option(help="For the tokenizer: auto, cpu or cuda.")] = "auto",
    json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make tokens of the pictures that a corpus holds, in a corpus of its own.

    Episodes, splits, actions and all else are the same. The corpus must hold pictures (ingest with
    --frames png); it is not changed. Running the same command again does only what is missing.

    Example: wham-data tokenize corpus --tokenizer wham-tiny --out corpus-tokens
    """
    from wham_data.pipelines.ingest.tokenize import tokenize as tokenize_corpus

    if workers == 0 and ray_address is not None:
        raise UsageError("--workers 0 runs without Ray, so --ray-address makes no sense with it")
    try:
        with progress.shown(quiet=quiet, verbose=verbose) as watch:
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
    except (KeyboardInterrupt, SystemExit):
        say("wham-data: interrupted; what was done is kept. To go on, run the same command again:")
        say(f"  {shlex.join(['wham-data', *sys.argv[1:]])}")
        raise
    text = (
        f"{report.corpus}: version {report.version}\n"
        f"  {report.recordings:,} recordings tokenised, {report.already_there:,} already there; "
        f"{report.episodes:,} episodes, {report.steps:,} steps in {report.seconds:.1f} s"
    )
    emit(asdict(report), text, as_json=json)
