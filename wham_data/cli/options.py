"""Options that several commands have, said once."""

from __future__ import annotations

from typing import Annotated

import typer

Workers = Annotated[
    int | None,
    typer.Option(help="Recordings in work at once. 0: in this process, without Ray.", min=0),
]
RayWorkers = Annotated[
    int | None,
    typer.Option(
        help="Workers on Ray that share the job. Default, and 0: all in this process.", min=0
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(help="auto or HOST:PORT of a running Ray cluster. Default: one for this run."),
]
DecodeMemory = Annotated[
    int, typer.Option(help="Refuse a recording that takes more to decode, in MB.")
]
DecodeTime = Annotated[
    float, typer.Option(help="Refuse one that takes more than 30 s and this many times its length.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="A line for every recording.")]
