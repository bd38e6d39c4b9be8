"""`wham-data bench`: how fast this machine is at what the toolkit does."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from wham_data.cli.console import emit
from wham_data.schemas.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Measure this machine.")

DTYPES = ("float32", "bf16")


@app.callback()
def bench() -> None:
    """Measure this machine."""


@app.command()
def dream(
    model: Annotated[
        str | None, typer.Option(help="A WHAM .ckpt, a model's folder, or a bundled name.")
    ] = None,
    shape: Annotated[
        str | None, typer.Option(help="Instead, random weights: mid, 200M, 1.6B, or LxHxD.")
    ] = None,
    batch: Annotated[int, typer.Option(help="Dreams side by side.", min=1)] = 1,
    steps: Annotated[int, typer.Option(help="Steps to dream.", min=1)] = 2,
    context: Annotated[
        int | None, typer.Option(help="Steps that the model sees. Default: all it can.")
    ] = None,
    dtype: Annotated[str, typer.Option(help="float32 or bf16.")] = "float32",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    speculate: Annotated[bool, typer.Option(help="Guess tokens ahead.")] = True,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Time dreaming, beside the floor that memory sets.

    A pass must read every weight and every dream's keys and values once, so a frame takes at least
    passes x bytes / bandwidth; the bandwidth is measured in the same run.

    \b
    Examples:
      wham-data bench dream
      wham-data bench dream --model WHAM_200M.ckpt --batch 12 --dtype bf16
      wham-data bench dream --shape 1.6B --dtype bf16 --device cuda
    """
    from wham_data.inference.bench_dream import bench_dream, random_model
    from wham_data.inference.world_model import load_world_model

    if model is not None and shape is not None:
        raise UsageError("--model and --shape: give one of them")
    if dtype not in DTYPES:
        raise UsageError(f"--dtype {dtype[:40]!r}: expected {' or '.join(DTYPES)}")
    loaded = (
        random_model(shape, device, dtype)  # type: ignore[arg-type]  # just checked
        if shape is not None
        else load_world_model(model or "wham-tiny", device, dtype)  # type: ignore[arg-type]
    )
    measured = bench_dream(loaded, batch=batch, steps=steps, context=context, speculate=speculate)
    gpu = measured.device_memory_bytes
    memory = f"{measured.host_memory_bytes / 2**20:.0f} MiB" + (
        f", GPU {gpu / 2**20:.0f} MiB" if gpu is not None else ""
    )
    passes = "fixed shapes, CUDA graphs" if measured.compiled else "as they come"
    text = "\n".join(
        [
            f"{measured.model}, {measured.dtype} on {measured.device}, batch {measured.batch}, "
            f"{measured.context} steps of context",
            f"  {measured.ms_per_frame:.1f} ms per frame   {measured.tokens_per_second:.0f} tokens/s",
            f"  {measured.tokens_per_pass:.2f} tokens per pass, {measured.acceptance:.0%} of guesses "
            "right",
            f"  attention {measured.attention}   passes {passes}   peak memory {memory}",
            f"  floor {measured.floor_ms_per_frame:.1f} ms per frame: "
            f"{measured.bytes_per_pass / 2**20:.0f} MiB a pass at {measured.bandwidth / 1e9:.1f} GB/s; "
            f"this is {measured.times_floor:.1f} times that",
        ]
    )
    emit({**asdict(measured), "times_floor": measured.times_floor}, text, as_json=json)
