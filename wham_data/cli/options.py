"""Options that several commands share, each declared once, and the panels that help shows them in.

Options without a panel are the ones that matter first; `--help` shows them on top.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from wham_data.cli import console
from wham_data.inference.device import parse_device
from wham_data.schemas.errors import UsageError

INPUT: Final = "Input"
OUTPUT: Final = "Output"
TIME_AND_PICTURE: Final = "Time and picture"
ACTIONS: Final = "Actions"
MODEL: Final = "Model"
SAMPLING: Final = "Sampling"
RESOURCES: Final = "Resources"
LIMITS: Final = "Limits"
ESTIMATE: Final = "Estimate"
RUN: Final = "Run"

PANELS: Final = (
    *(INPUT, OUTPUT, TIME_AND_PICTURE, ACTIONS, MODEL),
    *(SAMPLING, RESOURCES, LIMITS, ESTIMATE, RUN),
)
"""In the order in which help shows them."""

LARGEST_PICTURE: Final = 3840 * 2160

DType = Literal["float32", "bf16"]
Location = Annotated[
    Path,
    typer.Argument(metavar="CORPUS", help="The corpus: a folder, or a URL as s3://bucket/folder."),
]
AsOf = Annotated[
    int | None,
    typer.Option(
        "--version",
        min=0,
        rich_help_panel=INPUT,
        help="Use the corpus as it was at this version. Default: as it is now.",
    ),
]
Mapping = Annotated[
    Path | None,
    typer.Option(
        rich_help_panel=ACTIONS,
        help="TOML file that says how to turn one action space into another, such as keys and mouse "
        "into a pad.",
    ),
]
FormatOptions = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=VALUE",
        rich_help_panel=INPUT,
        help="An option of the format. Can be repeated.",
    ),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        envvar="WHAM_DATA_PLAYER_KEY",
        rich_help_panel=INPUT,
        help="File with the secret key that turns the names of players into pseudonyms. "
        "Default: names are stored as they are.",
    ),
]
MaxPixels = Annotated[
    int,
    typer.Option(
        rich_help_panel=LIMITS, help="Refuse a video whose pictures have more pixels than this."
    ),
]
MaxHours = Annotated[
    float,
    typer.Option(rich_help_panel=LIMITS, help="Refuse a recording longer than this, in hours."),
]
AllowSynthetic = Annotated[
    bool,
    typer.Option(
        "--allow-synthetic",
        rich_help_panel=INPUT,
        help="Also take pictures that say of themselves that a world model made them.",
    ),
]
DecoderOption = Annotated[
    Literal["cpu", "auto", "nvdec"],
    typer.Option(
        "--decoder",
        rich_help_panel=RESOURCES,
        help="What decodes videos; the frames of an intact file are the same. nvdec: an NVIDIA GPU, for "
        "the videos that it can take; it does not tell that a picture is damaged. auto: a GPU for long "
        "videos of large pictures, if there is one.",
    ),
]
DecodeMemory = Annotated[
    int,
    typer.Option(
        rich_help_panel=LIMITS,
        help="Refuse a recording that needs more memory than this to decode, in MB.",
    ),
]
DecodeTime = Annotated[
    float,
    typer.Option(
        rich_help_panel=LIMITS,
        help="Refuse a recording that takes longer to decode than 30 s plus this many times its "
        "length.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=RESOURCES,
        help="Recordings to work on at once. 0: one after another in this process, without Ray. "
        "Default: 0 for a small job; a larger one goes on with one per core.",
    ),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(
        min=0,
        rich_help_panel=RESOURCES,
        help="Workers on Ray that share the job. Default, and 0: all in this process.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        rich_help_panel=RESOURCES,
        help="Work on a Ray cluster that is running: auto, or HOST:PORT. "
        "Default: a cluster on this machine, for this run.",
    ),
]
RayTempDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        rich_help_panel=RESOURCES,
        help="Where Ray keeps its logs and sockets, with a path of at most 32 characters. Default: /tmp.",
    ),
]


def _known(device: str) -> str:
    """Refuse what is not the name of a device, before anything else is done."""
    parse_device(device)
    return device


Device = Annotated[
    str,
    typer.Option(
        rich_help_panel=RESOURCES,
        callback=_known,
        help="Where models run: auto (a GPU that torch can use, else the CPU), cpu, cuda or cuda:N.",
    ),
]


def chosen_device(name: str) -> str:
    """The device on which a command runs models in this process. Says so if "auto" is not the GPU there is.

    Raises:
        MissingPartError: it is a GPU that is not there.
    """
    from wham_data.inference.device import choose_device, cpu_note

    if (note := cpu_note(name)) is not None:
        console.say(note, level="warning")
    return str(choose_device(name))


ComputeType = Annotated[
    DType | None,
    typer.Option(
        rich_help_panel=RESOURCES,
        help="Numbers that the world model computes with. bf16 halves memory. Default: bf16 on a GPU, "
        "float32 on a CPU.",
    ),
]
Heads = Annotated[
    int | None,
    typer.Option(
        min=1,
        rich_help_panel=MODEL,
        help="Number of attention heads, for a checkpoint that does not say it.",
    ),
]
Speculate = Annotated[
    bool,
    typer.Option(
        rich_help_panel=RESOURCES, help="Guess tokens ahead. Faster, and the tokens are the same."
    ),
]
Sample = Annotated[
    str,
    typer.Option(
        metavar="N|all",
        rich_help_panel=ESTIMATE,
        help="With --dry-run: open at most this many recordings, and estimate the rest with a range. "
        "all: open each, however long it takes.",
    ),
]
Measure = Annotated[
    bool,
    typer.Option(
        rich_help_panel=ESTIMATE,
        help="With --dry-run: decode short stretches, for about 10 s in all, to tell how much CPU "
        "time the run takes.",
    ),
]
ClusterSpec = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.toml",
        rich_help_panel=ESTIMATE,
        help="With --dry-run: tell how long these machines take, instead of this one. "
        "docs/estimate.md describes the file.",
    ),
]
PricePerHour = Annotated[
    float | None,
    typer.Option(
        min=0,
        rich_help_panel=ESTIMATE,
        help="With --dry-run: tell the cost too, in the currency of this price.",
    ),
]
EstimateFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.json",
        rich_help_panel=ESTIMATE,
        help="What --dry-run --json printed. At the end, the run compares it with what it took.",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", rich_help_panel=RUN, help="Print the result as one JSON object."),
]
ReportEvery = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        min=0,
        rich_help_panel=RUN,
        help="Print a line of progress at most this often. A terminal shows progress all the time "
        "instead, unless --log-format is json.",
    ),
]
LogFormat = Annotated[
    console.LogFormat,
    typer.Option(
        callback=console.write_log_as,
        is_eager=True,
        rich_help_panel=RUN,
        help="What is printed on stderr. json: one JSON object per line for each event, as "
        "docs/watching-a-run.md describes.",
    ),
]
MetricsPort = Annotated[
    int | None,
    typer.Option(
        metavar="PORT",
        min=0,
        max=65535,
        rich_help_panel=RUN,
        help="Serve numbers of the run for Prometheus at http://127.0.0.1:PORT/metrics. 0: a free "
        "port, which is printed.",
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", rich_help_panel=RUN, help="Show no progress.")
]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", rich_help_panel=RUN, help="Print a line for each finished item."
    ),
]

SMALLEST_SAMPLE: Final = 10


def parse_sample(text: str) -> int | None:
    """A number of recordings; None for `all`."""
    if text == "all":
        return None
    if not text.isdecimal() or int(text) < SMALLEST_SAMPLE:
        raise UsageError(
            f"--sample {text!r}: expected all, or a number of at least {SMALLEST_SAMPLE}"
        )
    return int(text)


def check_estimate_options(
    dry_run: bool,
    cluster_spec: Path | None,
    prices: tuple[float | None, float | None],
    estimate: Path | None,
) -> None:
    """Refuse options that would have no effect."""
    if cluster_spec is not None and not dry_run:
        raise UsageError("--cluster-spec goes with --dry-run")
    if prices != (None, None) and not dry_run:
        raise UsageError("--price-per-cpu-hour and --price-per-gpu-hour go with --dry-run")
    if estimate is not None and dry_run:
        raise UsageError(
            "--estimate is for the run: it reads what --dry-run --json has printed before"
        )
