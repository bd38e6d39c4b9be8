"""`wham-data audit`: does the log of a recording belong to its picture?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit, resumable
from wham_data.cli.ingest import parse_options
from wham_data.cli.options import (
    INPUT,
    LARGEST_PICTURE,
    TIME_AND_PICTURE,
    AllowSynthetic,
    FormatOptions,
    Json,
    LogFormat,
    MaxHours,
    MaxPixels,
    MetricsPort,
    Quiet,
    RayAddress,
    ReportEvery,
    Verbose,
    Workers,
)
from wham_data.schemas.errors import UsageError

EXAMPLES = """\b
Examples:
  wham-data audit recordings
  wham-data audit recordings --plots pictures
  wham-data audit recordings --apply
  wham-data audit recordings --undo

\b
Verdicts:
  ok            log and picture belong together
  late, early   the log comes after, or before, what the picture shows
  drifting      the two clocks do not run at the same speed
  inverted      a control turns the view the wrong way
  swapped       two controls stand for each other
  dead          no control ever changes
  unrelated     the view turns, but not when these hands turn it: another recording's log
  unmeasurable  too little can be seen to tell

\b
Exit codes:
  0    all done
  2    wrong usage
  3    some recordings could not be read
  6    no recordings found"""


def audit(
    sources: Annotated[
        list[str], typer.Argument(metavar="RECORDINGS...", help="Recordings, or folders of them.")
    ],
    plots: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Draw a picture of each recording, and one of all."),
    ] = None,
    apply: Annotated[
        bool,
        typer.Option(
            "--apply",
            help="Write the corrections into the NAME.toml beside each recording that is late, early, "
            "drifting or inverted. The file as it was is kept.",
        ),
    ] = False,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Put every NAME.toml back as it was before --apply."),
    ] = False,
    seconds: Annotated[
        float,
        typer.Option(
            min=0,
            rich_help_panel=TIME_AND_PICTURE,
            help="Seconds of each recording to look at, spread over it. 0: all of it.",
        ),
    ] = 120,
    format: Annotated[
        str,
        typer.Option(
            rich_help_panel=INPUT,
            help="Format of the recordings. auto: recognise each by its content.",
        ),
    ] = "auto",
    option: FormatOptions = None,
    allow_synthetic: AllowSynthetic = False,
    max_pixels: MaxPixels = LARGEST_PICTURE,
    max_hours: MaxHours = 8.0,
    workers: Workers = None,
    ray_address: RayAddress = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    report_every: ReportEvery = progress.REPORT_EVERY_SECONDS,
    log_format: LogFormat = "text",
    metrics_port: MetricsPort = None,
) -> None:
    """Measure whether log and picture belong together: how late the log is, inverted and dead controls."""
    from wham_data.corpus.storage.sources.folders import is_file
    from wham_data.pipelines.curate.corrections import apply_corrections, undo_corrections
    from wham_data.pipelines.curate.job import audit as run
    from wham_data.pipelines.curate.plots import draw_overview, draw_recordings
    from wham_data.pipelines.ingest.settings import IngestSettings
    from wham_data.pipelines.video import VideoLimits
    from wham_data.schemas.paths import source_path

    for source in sources:
        if is_file(source_path(source) / "corpus.json"):
            raise UsageError(
                f"{source}: is a corpus, which no longer has every frame; audit the recordings that it "
                "was made from, correct them with --apply, and ingest them again"
            )
    if undo:
        if apply or plots is not None:
            raise UsageError("--undo: puts files back and does nothing else; leave out the other")
        written = undo_corrections(sources)
        emit(
            {"restored": written},
            "\n".join(f"restored {each}" for each in written) or "nothing to undo",
            as_json=json,
        )
        return
    settings = IngestSettings(
        rate=None,
        tokenizer=None,
        limits=VideoLimits(
            max_pixels=max_pixels, max_hours=max_hours, allow_synthetic=allow_synthetic
        ),
        options=parse_options(option or []),
    )
    with (
        resumable("nothing is written yet"),
        progress.shown(
            "audit",
            quiet=quiet,
            verbose=verbose,
            report_every=report_every,
            log_format=log_format,
            metrics_port=metrics_port,
        ) as watch,
    ):
        report = run(
            sources,
            settings,
            reader=format,
            seconds=seconds,
            workers=workers,
            ray_address=ray_address,
            watch=watch,
        )
    if plots is not None:
        draw_recordings(report, plots)
        draw_overview(report, plots)
    if apply:
        report = apply_corrections(report)
    emit(report.as_json(), report.text(), as_json=json)
    raise typer.Exit(report.exit_code)


audit.__doc__ = f"{audit.__doc__}\n\n{EXAMPLES}"
