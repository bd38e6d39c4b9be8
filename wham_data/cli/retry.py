"""`wham-data quarantine retry`: try refused inputs again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit
from wham_data.cli.ingest import make_runner, one_of, summary
from wham_data.cli.options import (
    DecodeMemory,
    DecodeTime,
    Json,
    Quiet,
    RayAddress,
    Verbose,
    Workers,
)
from wham_data.schemas.errors import Reason
from wham_data.schemas.player_key import read_player_key


def retry(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of the corpus.")],
    reason: Annotated[
        str | None, typer.Option(help="Only what was refused for this reason, e.g. unreadable.")
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Where the corpus' tokenizer lies, if it is no bundled one.")
    ] = None,
    max_pixels: Annotated[int, typer.Option(help="Refuse a video with larger pictures.")] = 3840
    * 2160,
    max_hours: Annotated[float, typer.Option(help="Refuse longer recordings.")] = 8.0,
    decode_memory: DecodeMemory = 1500,
    decode_time: DecodeTime = 10.0,
    player_key: Annotated[
        Path | None,
        typer.Option(
            envvar="WHAM_DATA_PLAYER_KEY", help="The key that the corpus' players are named with."
        ),
    ] = None,
    workers: Workers = None,
    ray_address: RayAddress = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Try refused inputs again, with the corpus' own settings; what goes in leaves the quarantine.

    Inputs are looked for where `ingest` found them. A corpus made with a mapping needs
    `wham-data ingest ... --retry-quarantined` instead.

    Example: wham-data quarantine retry corpus --reason too_many_pixels --max-pixels 34000000
    """
    from wham_data.pipelines.ingest.decoder_process import DecodeLimits
    from wham_data.pipelines.ingest.retry import retry as retry_refused
    from wham_data.pipelines.video import VideoLimits

    if reason is not None:
        one_of("--reason", reason, tuple(Reason))
    with progress.shown(quiet=quiet, verbose=verbose) as watch:
        report = retry_refused(
            corpus,
            make_runner(workers, ray_address),
            reason=reason,
            tokenizer=tokenizer,
            limits=VideoLimits(max_pixels=max_pixels, max_hours=max_hours),
            decoding=DecodeLimits(memory_mb=decode_memory, slowness=decode_time),
            player_key=None if player_key is None else read_player_key(player_key, corpus),
            watch=watch,
        )
    emit(asdict(report), summary(report), as_json=json)
    raise typer.Exit(report.exit_code)
