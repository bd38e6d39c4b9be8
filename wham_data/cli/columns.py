"""`wham-data tokenize | caption`: a model adds a column to a corpus."""

from __future__ import annotations

import json as json_text
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from wham_data.cli import progress
from wham_data.cli.console import emit, resumable
from wham_data.cli.options import (
    INPUT,
    LIMITS,
    MODEL,
    OUTPUT,
    SAMPLING,
    Device,
    Json,
    Location,
    Quiet,
    RayAddress,
    RayTempDir,
    RayWorkers,
    Verbose,
    Workers,
)
from wham_data.schemas.errors import UsageError, printable

if TYPE_CHECKING:
    from wham_data.corpus.captions.answers import Usage
    from wham_data.pipelines.caption.report import CaptionPlan, CaptionReport, FailedClip

MOST_LISTED = 20


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
    ray_temp_dir: RayTempDir = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make tokens from the pictures that a corpus holds, in a new corpus.

    Episodes, splits and actions stay the same. The corpus must hold pictures (made by `wham-data
    ingest --frames png`) and is not changed. Running the same command again does only what is missing.

    \b
    Example:
      wham-data tokenize corpus --tokenizer wham-tiny --out corpus-tokens
    """
    from wham_data.pipelines.ingest.tokenize import tokenize as tokenize_corpus

    with (
        resumable("what was done is kept"),
        progress.shown(quiet=quiet, verbose=verbose) as watch,
    ):
        report = tokenize_corpus(
            corpus,
            tokenizer=tokenizer,
            out=out,
            keep_frames=not drop_frames,
            workers=workers,
            ray_address=ray_address,
            ray_temp_dir=ray_temp_dir,
            device=device,
            watch=watch,
        )
    text = (
        f"{report.corpus}: version {report.version}\n"
        f"  {report.recordings:,} recordings tokenised, {report.already_there:,} already there; "
        f"{report.episodes:,} episodes, {report.steps:,} steps in {report.seconds:.1f} s"
    )
    emit(asdict(report), text, as_json=json)


CAPTION_EXAMPLES = """\b
Examples:
  wham-data caption corpus --endpoint http://localhost:8000/v1 --model Qwen/Qwen3-VL-8B-Instruct --limit 10
  wham-data caption corpus --endpoint http://localhost:8000/v1 --model Qwen/Qwen3-VL-8B-Instruct
  wham-data caption corpus --endpoint https://HOST/v1 --model NAME --requests-per-minute 60 --dry-run
  wham-data caption corpus --endpoint URL --model NAME --prompt prompt.txt --replace

docs/captions.md describes it. Running the same command again asks only about clips without an answer.

\b
Exit codes:
  0    all done
  1    nothing answers at the address
  2    wrong usage, or the server refuses the key or the model
  3    some clips failed, or the run had to stop
  4    a shard, a picture or a file of answers is damaged, or the tokenizer is another one
  5    a missing part
  6    nothing to do, or no clip got an answer
  130  interrupted; run it again to go on"""


def caption(
    corpus: Location,
    endpoint: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="The server: any that speaks OpenAI's chat completions, such as "
            "http://localhost:8000/v1. Pictures of the corpus are sent there.",
        ),
    ],
    model: Annotated[
        str, typer.Option(metavar="NAME", help="The model, by the name that the server has for it.")
    ],
    every: Annotated[
        int,
        typer.Option(
            min=1,
            help="Steps of a clip. Each clip gets one text. The last clip of an episode may be "
            "shorter.",
        ),
    ] = 81,
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT|FILE",
            help="What to ask for, or a file that says it. Default: to describe what happens, in one "
            "to three sentences.",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Ask about at most this many clips in this run.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask nothing; count clips, requests and cost.")
    ] = False,
    sent_as: Annotated[
        Literal["sheet", "mp4"],
        typer.Option(
            "--as",
            rich_help_panel=INPUT,
            help="How a clip is sent: a sheet of frames (JPEG), or a video for servers that take "
            "video_url.",
        ),
    ] = "sheet",
    frames: Annotated[
        int,
        typer.Option(
            min=1, max=64, rich_help_panel=INPUT, help="Frames of a sheet, evenly spaced."
        ),
    ] = 9,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=INPUT,
            help="The tokenizer that made the tokens, if pictures have to be decoded from them and "
            "it is not a bundled one.",
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            rich_help_panel=OUTPUT,
            help="Also replace texts that are there. Default: only steps without a text get one.",
        ),
    ] = False,
    key_env: Annotated[
        str,
        typer.Option(
            metavar="VARIABLE",
            rich_help_panel=MODEL,
            help='Environment variable with the key of the server. "": send no key.',
        ),
    ] = "OPENAI_API_KEY",
    field: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=JSON",
            rich_help_panel=MODEL,
            help="Another field of the request, such as max_completion_tokens=300; null leaves a "
            "field out. Can be repeated.",
        ),
    ] = None,
    max_tokens: Annotated[
        int, typer.Option(min=1, rich_help_panel=SAMPLING, help="Most tokens of an answer.")
    ] = 300,
    temperature: Annotated[
        float,
        typer.Option(min=0, rich_help_panel=SAMPLING, help="0: the likeliest answer."),
    ] = 0.0,
    seed: Annotated[
        int | None, typer.Option(rich_help_panel=SAMPLING, help="Seed, for servers that take one.")
    ] = None,
    requests_per_minute: Annotated[
        float | None,
        typer.Option(
            min=0.001, rich_help_panel=LIMITS, help="Most requests per minute. Default: no limit."
        ),
    ] = None,
    concurrent: Annotated[
        int,
        typer.Option(min=1, max=256, rich_help_panel=LIMITS, help="Requests at the same time."),
    ] = 4,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, rich_help_panel=LIMITS, help="Most seconds for one request."),
    ] = 120.0,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            max=100,
            rich_help_panel=LIMITS,
            help="How often to ask again about a clip after an error that may pass.",
        ),
    ] = 5,
    price_per_million_tokens: Annotated[
        str | None,
        typer.Option(
            metavar="IN,OUT",
            rich_help_panel=OUTPUT,
            help="Prices for the tokens of requests and of answers, such as 0.15,0.6, to print the "
            "cost.",
        ),
    ] = None,
    workers: RayWorkers = None,
    ray_address: RayAddress = None,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Let a vision-language model describe each clip of a corpus, in the column `text`.

    The texts come in a new version of the corpus, whose manifest names the model, the prompt and the
    date. A clip without a good answer is listed and has no text; nothing is made up for it. The key
    of the server is read from an environment variable only, and stored nowhere.
    """
    from wham_data.pipelines.caption.clips import ClipForm
    from wham_data.pipelines.caption.endpoint import EndpointSettings
    from wham_data.pipelines.caption.job import CaptionSettings
    from wham_data.pipelines.caption.job import caption as caption_corpus
    from wham_data.pipelines.caption.prompt import prompt_from
    from wham_data.pipelines.caption.report import CaptionPlan, Prices

    with (
        resumable("the answers so far are kept"),
        progress.shown(quiet=quiet, verbose=verbose) as watch,
    ):
        report = caption_corpus(
            corpus,
            CaptionSettings(
                prompt=prompt_from(prompt, sent_as),
                every=every,
                form=ClipForm(sent_as, frames),
                replace=replace,
                limit=limit,
            ),
            EndpointSettings(
                url=endpoint,
                model=model,
                key_env=key_env,
                max_tokens=max_tokens,
                temperature=temperature,
                seed=seed,
                fields=parse_fields(field or []),
                per_minute=requests_per_minute,
                concurrent=concurrent,
                timeout_s=timeout,
                retries=retries,
            ),
            prices=None
            if price_per_million_tokens is None
            else Prices.parse(price_per_million_tokens),
            tokenizer=tokenizer,
            device=device,
            dry_run=dry_run,
            workers=workers,
            ray_address=ray_address,
            watch=watch,
        )
    priced = price_per_million_tokens is not None
    lines = (
        _plan_lines(report, priced=priced)
        if isinstance(report, CaptionPlan)
        else _report_lines(report, priced=priced)
    )
    emit(asdict(report), "\n".join(lines), as_json=json)
    raise typer.Exit(report.exit_code)


caption.__doc__ = f"{cleandoc(caption.__doc__ or '')}\n\n{CAPTION_EXAMPLES}"


def parse_fields(pairs: list[str]) -> dict[str, Any]:
    """NAME=JSON pairs; a value that is no JSON is taken as a text.

    Raises:
        UsageError: a pair has no name or no value, or a name is given twice.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not name or not equals or name in found:
            why = "given twice" if name in found else "expected NAME=JSON"
            raise UsageError(f"--field {printable(pair)[:80]!r}: {why}")
        try:
            found[name] = json_text.loads(value)
        except ValueError:
            found[name] = value
    return found


def _plan_lines(plan: CaptionPlan, *, priced: bool) -> Iterator[str]:
    yield f"{plan.corpus}: nothing was asked (--dry-run)"
    yield (
        f"  found {plan.clips:,} clips = {plan.has_text:,} with texts + {plan.answered_before:,} "
        f"answered before + {plan.to_ask:,} to ask about"
        + (f" + {plan.beyond_limit:,} beyond --limit" if plan.beyond_limit else "")
    )
    yield _clips_line(plan)
    least = "" if plan.minutes is None else f", at least {plan.minutes:,} minutes"
    yield f"  {plan.to_ask:,} requests or more, about {plan.megabytes:,} MB{least}"
    if plan.usage is None:
        yield "  tokens and cost: not known before the first answers; ask about a few with --limit 10"
    else:
        yield f"  about {_usage_text(plan.usage, plan.cost, priced)}, as the answers so far"


def _report_lines(report: CaptionReport, *, priced: bool) -> Iterator[str]:
    yield f"{report.corpus}: version {report.version}; asked {report.model} at {report.endpoint}"
    yield (
        f"  found {report.clips:,} clips = {report.has_text:,} with texts + "
        f"{report.answered_before:,} answered before + {report.answered:,} answered + "
        f"{report.failed:,} failed + {report.left:,} not asked"
    )
    yield _clips_line(report)
    yield f"  {report.steps:,} steps of {report.episodes:,} episodes have a new text"
    if report.answered or report.failed:
        yield f"  {_usage_text(report.usage, report.cost, priced)}, in {report.seconds:.1f} s"
    yield from _failure_lines(report.failures)
    if report.stopped:
        yield printable(f"  stopped: {report.stopped}")
    if report.failed or report.left:
        yield "  the same command asks about these again"
    elif report.has_text and not report.answered:
        yield "  texts that are there are kept; --replace replaces them"


def _failure_lines(failures: Sequence[FailedClip]) -> Iterator[str]:
    """A line for each way to fail, with the first clip that did."""
    alike = Counter((each.code, each.message) for each in failures)
    first = {(each.code, each.message): each for each in reversed(failures)}
    for way, count in alike.most_common(MOST_LISTED):
        each = first[way]
        others = f" and {count - 1:,} more" if count > 1 else ""
        clip = f"{each.episode} steps {each.start} to {each.stop - 1}{others}"
        yield printable(f"  failed: {clip} [{each.code}]: {each.message}")
    if alike:
        yield "  --json lists every clip that failed"


def _clips_line(report: CaptionReport | CaptionPlan) -> str:
    pictures = "as stored" if report.pictures == "stored" else "decoded from tokens"
    form = "a sheet" if report.sent_as == "sheet" else "an mp4"
    short = f", {report.short:,} shorter at the ends of episodes" if report.short else ""
    return f"  each of {report.every} steps{short}; pictures {pictures}, sent as {form}"


def _usage_text(usage: Usage, cost: float | None, priced: bool) -> str:
    text = f"{usage.asked:,} tokens asked and {usage.written:,} answered"
    if usage.unknown:
        text += f" (answers that the server did not count: {usage.unknown:,})"
    if priced:
        text += ", cost not known" if cost is None else f", cost {cost:,.4f}"
    return text
