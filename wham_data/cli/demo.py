"""`wham-data demo`: the main job on real gameplay, with what ships in the package."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit
from wham_data.cli.ingest import make_runner, summary
from wham_data.cli.options import Json, Quiet, Workers


def demo(
    out: Annotated[
        Path, typer.Option(help="Folder for the corpus, the pictures and the dreams.")
    ] = Path("demo-out"),
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Try the toolkit on real gameplay: make a corpus, check it, draw it, and dream on from it.

    Everything needed is in the package, and no network is used: three clips of gameplay (Doom,
    CoinRun, MiniWorld), a tokenizer and a world model. After a minute or two there is a corpus,
    `demo.png`, `demo.mp4`, and a dream of one second from each clip, with its recorded actions.

    \b
    Examples:
      wham-data demo
      wham-data demo --out /tmp/demo --workers 0
    """
    from wham_data.pipelines.demo import run_demo

    with progress.shown(quiet=quiet, verbose=False) as watch:
        result = run_demo(out, make_runner(workers, None), watch, watch)
    text = "\n".join(
        [
            summary(result.report),
            f"  verified: {result.checked} steps, no problem found",
            "",
            f"Look at  {result.picture}",
            f"and at   {result.video}",
            "(source frame, frame on the grid, frame decoded from its tokens, and the pad)",
            "",
            f"Dreamt   {result.dreamt.frames} frames, {result.dreamt.ms_per_frame:.0f} ms each",
            *(f"         {overlay}" for overlay in result.dreams),
            "(what was recorded, what wham-tiny dreamt from the same actions, and the pad)",
            "",
            "Next:",
            f"  wham-data info {result.report.corpus}",
            f"  wham-data stats {result.report.corpus}",
            f"  wham-data dream {result.report.corpus} --model wham-tiny --out dreams "
            "--actions fixed:right_x=-1",
            "  wham-data ingest YOUR_RECORDINGS --out corpus --dry-run",
        ]
    )
    emit(asdict(result), text, as_json=json)
