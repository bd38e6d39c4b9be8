"""`wham-data bench`: how fast this machine is at what the toolkit does."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import numpy as np
import typer

from wham_data.cli.console import emit, say
from wham_data.cli.help import Command, Group
from wham_data.cli.options import (
    MODEL,
    RESOURCES,
    ComputeType,
    Device,
    Json,
    Speculate,
    chosen_device,
)
from wham_data.schemas.errors import UsageError
from wham_data.schemas.recording import Frames

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=Group,
    help="Measure how fast this machine dreams, and how fast it reads training windows.",
)


@app.callback()
def bench() -> None:
    """Measure this machine."""


@app.command(cls=Command)
def dream(
    model: Annotated[
        str | None,
        typer.Option(
            help="A WHAM .ckpt, the folder of a model, or a bundled name. Default: wham-tiny."
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="Use a model with random weights instead: mid, 200M, 1.6B, or LAYERSxHEADSxWIDTH."
        ),
    ] = None,
    batch: Annotated[int, typer.Option(help="Dreams to make side by side.", min=1)] = 1,
    steps: Annotated[int, typer.Option(help="Steps to dream.", min=1)] = 2,
    context: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=MODEL, help="Steps that the model sees. Default: as many as it can."
        ),
    ] = None,
    dtype: ComputeType = None,
    device: Device = "auto",
    speculate: Speculate = True,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            rich_help_panel=RESOURCES,
            help="Compile passes of fixed shapes, on a GPU as CUDA graphs. Default: on a GPU only.",
        ),
    ] = None,
    fuse: Annotated[
        bool,
        typer.Option(
            "--fuse/--no-fuse",
            rich_help_panel=RESOURCES,
            help="Give these passes to torch.compile first. Takes minutes once; only on a GPU.",
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Time how fast a model dreams from a bundled recording, and the least time that memory allows.

    Each pass has to read all weights and the KV cache of each dream once. So a frame takes at least
    passes x bytes read per pass / memory bandwidth. The bandwidth is measured in the same run, by
    copying 256 MiB, or 4 GiB on a GPU.

    \b
    Examples:
      wham-data bench dream
      wham-data bench dream --model WHAM_200M.ckpt --batch 12 --dtype bf16
      wham-data bench dream --shape 1.6B --dtype bf16 --device cuda
    """
    from wham_data.inference.device.failures import device_errors
    from wham_data.inference.gpt.bench import bench_dream, random_model
    from wham_data.inference.world_model import load_world_model

    if model is not None and shape is not None:
        raise UsageError("--model and --shape: give one of them")
    load = load_world_model if shape is None else random_model
    which = shape or model or "wham-tiny"
    lower = "Give a lower --batch, a shorter --context, a smaller model or --dtype bf16"
    where = chosen_device(device)
    with device_errors(f"bench dream, {which} on {where}", lower):
        loaded = load(which, where, dtype, compile=compile, fuse=fuse)
        measured = bench_dream(
            loaded,
            batch=batch,
            steps=steps,
            context=context,
            speculate=speculate,
            frames=gameplay(loaded.tokenizer.frame_size, loaded.spec.steps)
            if loaded.tokenizer
            else None,
        )
    gpu = measured.device_memory_bytes
    memory = f"{measured.host_memory_bytes / 2**20:.0f} MiB" + (
        f", GPU {gpu / 2**20:.0f} MiB" if gpu is not None else ""
    )
    passes = "of any shape"
    if measured.compiled:
        passes = "of fixed shapes" + (", CUDA graphs" if gpu is not None else "")
        passes += ", fused" if measured.fused else ""
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


def gameplay(size: tuple[int, int], count: int) -> Frames:
    """The first frames of a bundled recording at 10 Hz, uint8 [count, H, W, 3]; size is (W, H)."""
    from wham_data.pipelines.align import latest_at
    from wham_data.pipelines.demo import RECORDINGS
    from wham_data.pipelines.video import decode_frames, index_video

    index = index_video(RECORDINGS / "doom.mp4")
    times = index.times_ns[0] + np.arange(count) * (1_000_000_000 // 10)
    return np.concatenate(list(decode_frames(index, latest_at(index.times_ns, times), size)))


@app.command(cls=Command)
def feed(
    corpus: Annotated[str, typer.Argument(metavar="CORPUS", help="A corpus with tokens.")],
    length: Annotated[int, typer.Option(help="Steps in a window.", min=1)] = 10,
    batch_size: Annotated[int, typer.Option(help="Windows in a batch.", min=1)] = 32,
    rounds: Annotated[
        int, typer.Option(help="Times that each reader is measured. The median counts.", min=1)
    ] = 5,
    stored: Annotated[
        int, typer.Option(help="Most windows to store in the formats of other libraries.", min=1)
    ] = 10_000,
    peers: Annotated[
        bool, typer.Option(help="Measure other libraries too, where they are installed.")
    ] = True,
    json: Json = False,
) -> None:
    """Time how fast training windows are read, beside a plain memory map and other libraries.

    The readers take turns, each in its own process. A window begins at every step. "random" reads
    batches by number; "loader" reads shuffled batches through the library's DataLoader. For the other
    libraries each window is stored as a sample of its own, which is easier to read.

    \b
    Examples:
      wham-data bench feed corpus
      wham-data bench feed corpus --batch-size 256 --no-peers --json
    """
    from wham_data.corpus import Corpus
    from wham_data.feed.bench import OURS, Task, installed, measure
    from wham_data.feed.peers import PEERS

    task = Task(corpus, length, batch_size, stored)
    readers = [*OURS, *(installed(PEERS) if peers else ())]
    figures = measure(task, readers, rounds, progress=say)
    tokens = length * Corpus.open(corpus).info.n_tokens
    columns = ("random windows/s", "loader windows/s", "loader tokens/s", "first batch s", "MB")
    lines = [f"{'':32}" + "".join(f"{name:>18}" for name in columns)]
    for each in figures:
        speed = None if each.loader is None else each.loader * tokens
        values = (each.random, each.loader, speed, each.first_batch_s, each.memory_mb)
        cells = "".join(f"{_figure(value):>18}" for value in values)
        lines.append(f"{each.name:32}" + (each.failed or cells))
    result = {
        "length": length,
        "batch_size": batch_size,
        "tokens_per_window": tokens,
        "readers": [asdict(each) for each in figures],
    }
    emit(result, "\n".join(lines), as_json=json)


def _figure(value: float | None) -> str:
    """A figure as a person wants it; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
