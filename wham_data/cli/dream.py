"""`wham-data dream`: a world model goes on from recordings or pictures."""

from __future__ import annotations

from dataclasses import asdict
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from wham_data.cli import progress
from wham_data.cli.console import comma_list, emit, resumable
from wham_data.cli.options import (
    INPUT,
    OUTPUT,
    RESOURCES,
    SAMPLING,
    AllowSynthetic,
    ComputeType,
    Device,
    Heads,
    Json,
    LogFormat,
    MetricsPort,
    Quiet,
    RayAddress,
    RayTempDir,
    RayWorkers,
    ReportEvery,
    Speculate,
    Verbose,
)
from wham_data.pipelines.dream.report import FILE_KINDS, DreamReport, FileKind
from wham_data.schemas.errors import MissingPartError, UsageError

MOST_FAILED = 20

EXAMPLES = """\b
Examples:
  wham-data dream corpus --model WHAM_200M.ckpt --out dreams
  wham-data dream corpus --model m --out dreams --split val --episodes 20 --save npz,mp4,overlay
  wham-data dream data/ --model m.ckpt --out dreams --protocol comprehensive
  wham-data dream corpus --model m --out left --actions fixed:right_x=-1 --steps 30
  wham-data dream picture.png --model m --out dreams --actions moves.csv --steps 20
  wham-data dream pictures/ --model m --out actions --mode policy

Running the same command again makes only what is missing. Two commands at the same time, also on two
machines that see the same folder, share the dreams. Several GPUs are all used; --workers 0 takes one.

\b
Exit codes:
  0    all done
  2    wrong usage
  3    some episodes failed
  4    another tokenizer, action space or settings
  5    a missing part or GPU
  6    nothing to dream from
  130  interrupted; run it again to go on"""


def dream(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="What to dream from: a corpus, WHAM's .npz files or a folder of them, folders of WHAM "
            "Demonstrator, or pictures.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(
            help="A WHAM .ckpt, the folder of a converted or trained model, a folder with one of "
            "these in it, or a bundled name."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the dreams. It is created if it does not exist.")
    ],
    mode: Annotated[
        Literal["world", "policy", "full", "base", "comprehensive"] | None,
        typer.Option(
            "--mode",
            "--protocol",
            rich_help_panel=SAMPLING,
            help="What the model makes. world (or base): frames; policy: actions; full (or "
            "comprehensive): both. Default: world, or full where no action is known.",
        ),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=INPUT,
            help="Steps to start from, and the most steps that the model sees. Default: 10, or as "
            "many as the model holds.",
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Steps to dream. Default: 10.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=RESOURCES,
            help="Dreams to make side by side. Default: as many as fit their KV cache in 2 GiB, at "
            "most 16.",
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            rich_help_panel=SAMPLING,
            help="Higher is more varied. Values below 0.1 count as 0.1.",
        ),
    ] = 0.9,
    top_k: Annotated[
        int | None,
        typer.Option(rich_help_panel=SAMPLING, help="Sample from the K likeliest tokens only."),
    ] = None,
    top_p: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=SAMPLING,
            help="Sample from the likeliest tokens that have this probability together.",
        ),
    ] = None,
    greedy: Annotated[
        bool,
        typer.Option("--greedy", rich_help_panel=SAMPLING, help="Always take the likeliest token."),
    ] = False,
    seed: Annotated[
        int, typer.Option(rich_help_panel=SAMPLING, help="Seed of the random numbers.")
    ] = 0,
    actions: Annotated[
        str | None,
        typer.Option(
            help="The actions in the dream: recorded, model, random, fixed:NAME=VALUE,... or "
            "FILE.csv with a row per step. Default: recorded, or model where the mode makes them."
        ),
    ] = None,
    episodes: Annotated[
        int | None, typer.Option(help="Take at most this many episodes, the first by name.", min=1)
    ] = None,
    start: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=INPUT,
            help="Step of the episode at which the context starts. Default: the first possible.",
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            rich_help_panel=INPUT,
            help="Take only these splits of a corpus: val, or val,test. Default: all.",
        ),
    ] = "",
    save: Annotated[
        str | None,
        typer.Option(
            help=f"What to write: some of {', '.join(sorted(FILE_KINDS))}, with commas. npz is "
            "for models whose actions are in wham16. Default: npz,mp4,csv, or mp4,csv for others."
        ),
    ] = None,
    interpolate: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=OUTPUT, help="Frames per second of the mp4, such as 30. Default: 10."
        ),
    ] = None,
    upscale: Annotated[
        int,
        typer.Option(
            rich_help_panel=OUTPUT,
            help="Make videos and pictures this many times larger (Lanczos).",
        ),
    ] = 1,
    allow_synthetic: AllowSynthetic = False,
    workers: RayWorkers = None,
    ray_address: RayAddress = None,
    ray_temp_dir: RayTempDir = None,
    device: Device = "auto",
    dtype: ComputeType = None,
    n_head: Heads = None,
    speculate: Speculate = True,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    report_every: ReportEvery = progress.REPORT_EVERY_SECONDS,
    log_format: LogFormat = "text",
    metrics_port: MetricsPort = None,
) -> None:
    """Dream on from recordings or pictures with a world model."""
    kinds = None if save is None else parse_kinds(save)
    try:
        from wham_data.inference.device import gpu_count
        from wham_data.inference.sampling import Sampling
        from wham_data.inference.world_model import load_world_model
        from wham_data.pipelines.dream.files import Look
        from wham_data.pipelines.dream.job import DreamWorkers, run_dreams, usual_files
        from wham_data.pipelines.dream.settings import DreamChoices
        from wham_data.pipelines.dream.sources import open_dream_source
        from wham_data.pipelines.run.choose import (
            check_device,
            choose_workers,
            usual_workers,
            workers_at_once,
        )
    except ModuleNotFoundError as missing:
        if missing.name != "torch":
            raise
        raise MissingPartError(
            "world models need torch, which is not installed: `pip install torch`"
        ) from missing
    choices = DreamChoices(
        mode=mode,
        context=context,
        steps=steps,
        actions=actions,
        start=start,
        sampling=Sampling(temperature, top_k, top_p, greedy),
        seed=seed,
        look=Look(parse_rate(interpolate), upscale),
    )
    with (
        resumable("the dreams that are done are kept"),
        progress.shown(
            "dream",
            quiet=quiet,
            verbose=verbose,
            report_every=report_every,
            log_format=log_format,
            metrics_port=metrics_port,
        ) as watch,
    ):
        source = open_dream_source(
            sources,
            split=comma_list(split),
            limit=episodes,
            allow_synthetic=allow_synthetic,
        )
        gpus = gpu_count()
        usual = usual_workers(workers, ray_address, device, gpus, len(source.episodes))
        runner = choose_workers(usual, ray_address, ray_temp_dir, watch)
        check_device(device, runner, watch)
        on_gpus = device.startswith("cuda") or (device == "auto" and gpus > 0)
        if runner is not None and dtype is None and on_gpus:
            dtype = "bf16"  # as the workers would choose; the driver's own model is on its CPU
        loaded = load_world_model(model, device if runner is None else "cpu", dtype, n_head)
        for note in loaded.notes:
            watch.message(note, warning=True)
        report = run_dreams(
            source,
            out,
            loaded,
            choices.settle(source, loaded),
            save=kinds or ("mp4", *usual_files(loaded)),
            batch_size=batch_size,
            speculate=speculate,
            workers=None
            if runner is None
            else DreamWorkers(
                runner=runner,
                open=partial(load_world_model, model, dtype=loaded.dtype, n_head=n_head),
                count=workers_at_once(usual, runner, device, gpus),
                device=device,
            ),
            watch=watch,
        )
    emit(asdict(report), summary(report), as_json=json)
    raise typer.Exit(report.exit_code)


dream.__doc__ = f"{dream.__doc__}\n\n{EXAMPLES}"


def parse_kinds(text: str) -> tuple[FileKind, ...]:
    """What `--save` lists, each kind once."""
    chosen = comma_list(text)
    unknown = [kind for kind in chosen if kind not in FILE_KINDS]
    if unknown or not chosen:
        found = repr(unknown[0][:40]) if unknown else "nothing"
        raise UsageError(f"--save {found}: expected some of {', '.join(sorted(FILE_KINDS))}")
    return tuple(kind for kind in FILE_KINDS if kind in chosen)


def parse_rate(text: str | None) -> Fraction | None:
    """Frames per second of `--interpolate`."""
    try:
        return None if text is None else Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(
            f"--interpolate {text!r}: expected frames per second, such as 30"
        ) from None


def summary(report: DreamReport) -> str:
    """The account of a run, as a person reads it."""
    lines = [
        f"{report.out}: {report.model}, mode {report.mode}, actions {report.actions}",
        f"  found {report.found} = dreamt {report.made} + completed {report.completed} "
        f"+ already there {report.already_there} + failed {len(report.failed)}",
    ]
    if report.frames:
        lines.append(
            f"  {report.frames} frames in {report.seconds:.1f} s, {report.ms_per_frame:.0f} ms each; "
            f"{report.tokens_per_pass:.2f} tokens per pass, {report.acceptance:.0%} of guesses right"
        )
    lines += [f"  failed: {each.episode}: {each.message}" for each in report.failed[:MOST_FAILED]]
    if len(report.failed) > MOST_FAILED:
        lines.append(f"  and {len(report.failed) - MOST_FAILED} more: --json lists them all")
    return "\n".join(lines)
