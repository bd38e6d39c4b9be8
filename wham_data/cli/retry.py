"""`wham-data quarantine retry`: try refused inputs again."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit
from wham_data.cli.ingest import make_runner, one_of, summary
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
    decode_memory: Annotated[
        int, typer.Option(help="Refuse a recording that takes more to decode, in MB.")
    ] = 1500,
    decode_time: Annotated[
        float,
        typer.Option(help="Refuse one that takes more than 30 s and this many times its length."),
    ] = 10.0,
    player_key: Annotated[
        Path | None,
        typer.Option(
            envvar="WHAM_DATA_PLAYER_KEY", help="The key that the corpus' players are named with."
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Recordings in work at once. 0: in this process, without Ray.", min=0),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(help="auto or HOST:PORT of a running Ray cluster. Default: one for this run."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for every recording.")
    ] = False,
) -> None:
    """Try refused inputs again, with the corpus' own settings; what goes in leaves the quarantine.

    Inputs are looked for where `ingest` found them. A corpus made with a mapping needs
    `wham-data ingest ... --retry-quarantined` instead.

    Example: wham-data quarantine retry corpus --reason too_many_pixels --max-pixels 34000000
    """
    from wham_data.pipelines.decoder_process import DecodeLimits
    from wham_data.pipelines.retry import retry as retry_refused
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
