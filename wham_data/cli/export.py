"""`wham-data export`: a corpus in the formats that others train from."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit, say
from wham_data.cli.ingest import parse_options
from wham_data.cli.options import Json, Quiet, RayAddress, RayWorkers
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

docs/export.md lists the formats and their options. Running the same command again writes only what
is missing.
Exit codes: 0 all done, 2 wrong usage or a format that can't hold this corpus, 3 some episodes failed,
4 an export of other settings is there, or another tokenizer, 5 a missing part, 6 nothing to export,
130 interrupted (run it again to go on)."""


def export(
    corpus: Annotated[str, typer.Argument(help="A corpus.")],
    to: Annotated[str, typer.Option(help=f"The format: {', '.join(FORMATS)}.")],
    out: Annotated[str, typer.Option(help="Folder for it; made if it is not there.")],
    split: Annotated[str, typer.Option(help="Only these splits, as train or val,test.")] = "",
    episodes: Annotated[
        int | None, typer.Option(help="Take only so many episodes, the first by name.", min=1)
    ] = None,
    version: Annotated[
        int | None, typer.Option(help="The corpus as it stood at this version.", min=0)
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE", help="An option of the format; may be given repeatedly."
        ),
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(help="TOML file that converts the actions to what the format needs."),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="What made the tokens, where pictures have to be decoded from them."),
    ] = None,
    device: Annotated[str, typer.Option(help="Where that runs: auto, cpu or cuda.")] = "auto",
    workers: RayWorkers = None,
    ray_address: RayAddress = None,
    acknowledge_licence: Annotated[
        bool,
        typer.Option(
            "--acknowledge-licence",
            help="You keep to the licences of sources that restrict their use.",
        ),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="A line for every episode.")
    ] = False,
) -> None:
    """Write a corpus in another format."""
    from wham_data.pipelines.export.job import export as run

    try:
        with progress.shown(quiet=quiet, verbose=verbose) as watch:
            report = run(
                corpus,
                to=to,
                out=out,
                split=[name.strip() for name in split.split(",") if name.strip()],
                episodes=episodes,
                version=version,
                options=dict(parse_options(option or [])),
                mapping=mapping,
                tokenizer=tokenizer,
                device=device,
                acknowledge_licence=acknowledge_licence,
                workers=workers,
                ray_address=ray_address,
                watch=watch,
            )
    except (KeyboardInterrupt, SystemExit):
        say("wham-data: interrupted; what is written is kept. To go on, run it again:")
        say(f"  {shlex.join(['wham-data', *sys.argv[1:]])}")
        raise
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
