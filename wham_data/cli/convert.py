"""`wham-data convert`: a WHAM checkpoint as a folder of safetensors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli.console import emit, say
from wham_data.cli.options import RESOURCES, DType, Heads, Json
from wham_data.schemas.errors import printable


def convert(
    model: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT", help="A WHAM checkpoint (.ckpt), or a folder with one in it."
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="New folder, for config.json and two files of weights.")
    ],
    dtype: Annotated[
        DType,
        typer.Option(
            rich_help_panel=RESOURCES,
            help="Type of the world model's weights. bf16 halves the file.",
        ),
    ] = "float32",
    n_head: Heads = None,
    json: Json = False,
) -> None:
    """Convert a WHAM checkpoint to safetensors, without running anything in it.

    The folder loads faster, holds no optimizer state, and gives the same tokens and the same
    fingerprint. --dtype is the type of the world model's weights; the tokenizer stays float32.

    \b
    Example:
      wham-data convert WHAM_200M.ckpt --out wham-200m --dtype bf16
    """
    from wham_data.inference.checkpoints import convert as conversion

    done = conversion.convert(model, out, dtype, n_head)
    for note in done.notes:
        say(printable(note))
    if done.unexpected:
        some = ", ".join(done.unexpected[:3])
        say(printable(f"{model}: left out {len(done.unexpected)} unexpected keys, as {some}"))
    emit(
        asdict(done),
        f"{out}: {done.bytes / 1e6:.1f} MB, world model in {dtype}, "
        f"tokenizer {done.fingerprint[:12]}",
        as_json=json,
    )
