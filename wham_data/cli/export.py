"""`wham-data export`: a corpus in the formats that others train from."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from wham_data.cli import progress
from wham_data.cli.console import comma_list, emit, resumable
from wham_data.cli.ingest import parse_options
from wham_data.cli.options import (
    INPUT,
    OUTPUT,
    AsOf,
    Device,
    FormatOptions,
    Json,
    Mapping,
    Quiet,
    RayAddress,
    RayTempDir,
    RayWorkers,
    Verbose,
)
from wham_data.pipelines.export.report import FORMATS, ExportReport
from wham_data.schemas.errors import printable

MOST_LISTED = 20

EXAMPLES = """\b
Examples:
  wham-data export corpus --to wham-npz --out npz
  wham-data export corpus --to lerobot --out dataset --split train,val
  wham-data export corpus --to lerobot --out exact --option pictures=image
  wham-data export corpus --to diamond --out diamond --episodes 50
  wham-data export corpus --to oasis --out clips --mapping mine-to-oasis25.toml
  wham-data export csgo --to hdf5-csgo --out hdf5 --acknowledge-licence

docs/export.md describes the formats and their options. Running the same command again writes only
what is missing.

\b
Exit codes:
  0    all done
  2    wrong usage, or a format that cannot hold this corpus
  3    some episodes failed
  4    the folder holds an export with other settings, or the tokenizer is another one
  5    a missing part
  6    nothing to export
  130  interrupted; run it again to go on"""


def export(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS", help="The corpus: a folder, or a URL as s3://bucket/folder."
        ),
    ],
    to: Annotated[str, typer.Option(help=f"The format: {', '.join(FORMATS)}.")],
    out: Annotated[
        str,
        typer.Option(
            help="Folder to write to, made if it is missing; or a URL as s3://bucket/folder."
        ),
    ],
    split: Annotated[
        str, typer.Option(help="Take only these splits: train, or val,test. Default: all.")
    ] = "",
    episodes: Annotated[
        int | None, typer.Option(help="Take at most this many episodes, the first by name.", min=1)
    ] = None,
    version: AsOf = None,
    option: FormatOptions = None,
    mapping: Mapping = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=INPUT,
            help="The tokenizer that made the tokens, if pictures have to be decoded from them and "
            "it is not a bundled one.",
        ),
    ] = None,
    device: Device = "auto",
    workers: RayWorkers = None,
    ray_address: RayAddress = None,
    ray_temp_dir: RayTempDir = None,
    acknowledge_licence: Annotated[
        bool,
        typer.Option(
            "--acknowledge-licence",
            rich_help_panel=OUTPUT,
            help="Confirm that you keep to the licences of sources that restrict their use.",
        ),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Write a corpus in another format."""
    from wham_data.pipelines.export.job import export as run

    with (
        resumable("what is written is kept"),
        progress.shown(quiet=quiet, verbose=verbose) as watch,
    ):
        report = run(
            corpus,
            to=to,
            out=out,
            split=comma_list(split),
            episodes=episodes,
            version=version,
            options=dict(parse_options(option or [])),
            mapping=mapping,
            tokenizer=tokenizer,
            device=device,
            acknowledge_licence=acknowledge_licence,
            workers=workers,
            ray_address=ray_address,
            ray_temp_dir=ray_temp_dir,
            watch=watch,
        )
    emit(asdict(report), summary(report), as_json=json)
    raise typer.Exit(report.exit_code)


export.__doc__ = f"{export.__doc__}\n\n{EXAMPLES}"


def summary(report: ExportReport) -> str:
    """The account of a run, as a person reads it."""
    actions = report.actions
    if report.converted_from is not None:
        actions += f", converted from {report.converted_from}"
    pictures = {"stored": "as stored", "decoded": "decoded from tokens", None: "none"}
    lines = [
        f"{report.out}: {report.format}, {report.steps} steps; actions {actions}; "
        f"pictures {pictures[report.pictures]}",
        f"  found {report.found} episodes = written {report.written} "
        f"+ already there {report.already_there} + failed {len(report.failed)}",
    ]
    if report.files:
        lines.append(
            f"  {report.files} files, {report.bytes / 1e6:.1f} MB in {report.seconds:.1f} s"
        )
    if report.left_out_steps:
        lines.append(
            f"  {report.left_out_steps} steps left out: outside `keep`, or their action not known"
        )
    if report.clamped:
        lines.append(f"  {report.clamped} values of actions cut where the format's range ends")
    lines += [f"  lost: {sentence}" for sentence in report.lost]
    lines += [
        f"  licence: {printable(name)} (episodes: {count})"
        for name, count in report.licences.items()
    ]
    lines += [f"  failed: {each.episode}: {each.message}" for each in report.failed[:MOST_LISTED]]
    if len(report.failed) > MOST_LISTED:
        lines.append(f"  and {len(report.failed) - MOST_LISTED} more: --json lists them all")
    return "\n".join(lines)
