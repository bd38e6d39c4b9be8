"""`wham-data convert`: a WHAM checkpoint as a folder of safetensors."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli.console import emit, say
from wham_data.schemas.errors import printable


class WorldModelType(StrEnum):
    """Types that a world model's weights can be written in."""

    FLOAT32 = "float32"
    BF16 = "bf16"


def convert(
    model: Annotated[Path, typer.Argument(help="A WHAM checkpoint (.ckpt).")],
    out: Annotated[Path, typer.Option(help="New folder for config.json and two weight files.")],
    dtype: Annotated[
        WorldModelType, typer.Option(help="Of the world model; the tokenizer stays float32.")
    ] = WorldModelType.FLOAT32,
    n_head: Annotated[
        int | None, typer.Option(min=1, help="Attention heads, if the checkpoint does not say.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Convert a WHAM checkpoint to safetensors, without running anything in it.

    The folder loads faster, holds no optimizer state, and gives the same tokens and fingerprint.

    \b
    Example:
      wham-data convert WHAM_200M.ckpt --out wham-200m --dtype bf16
    """
    from wham_data.inference.checkpoints import convert as conversion

    done = conversion.convert(model, out, dtype.value, n_head)
    if done.unexpected:
        some = ", ".join(done.unexpected[:3])
        say(printable(f"{model}: left out {len(done.unexpected)} unexpected keys, as {some}"))
    emit(
        asdict(done),
        f"{out}: {done.bytes / 1e6:.1f} MB, world model in {dtype.value}, "
        f"tokenizer {done.fingerprint[:12]}",
        as_json=as_json,
    )
