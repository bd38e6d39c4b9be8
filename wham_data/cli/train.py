"""`wham-data train`: make a tokenizer from a corpus."""

from __future__ import annotations

import itertools
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from wham_data.cli.console import emit, say
from wham_data.schemas.errors import UsageError

app = typer.Typer(no_args_is_help=True, help="Train a tokenizer on a corpus' pictures.")


@app.callback()
def train() -> None:
    """Train a tokenizer on a corpus' pictures."""


@app.command()
def tokenizer(
    corpus: Annotated[
        Path,
        typer.Argument(help="Made with `ingest --frames png` or jpeg; has train and val parts."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the weights, curves and checkpoint.")],
    minutes: Annotated[float | None, typer.Option(help="Length of the whole run.")] = None,
    steps: Annotated[int | None, typer.Option(help="Length of the whole run, in steps.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the checkpoint in --out.")] = False,
    vocab_size: Annotated[int, typer.Option(help="Codes in the codebook.")] = 4096,
    width: Annotated[int, typer.Option(help="Width of the transformer, a multiple of 32.")] = 160,
    layers: Annotated[int, typer.Option(help="Layers of encoder and decoder each.")] = 4,
    seed: Annotated[int, typer.Option(help="Of weights and batches.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train a ViT-VQGAN tokenizer (18 x 30 tokens for 300x180).

    \b
    Examples:
      wham-data ingest recordings/ --out pictures --tokenizer none --frames png --split 90,10,0
      wham-data train tokenizer pictures --out my-tokenizer --minutes 60
      wham-data train tokenizer pictures --out my-tokenizer --minutes 180 --resume
      wham-data ingest recordings/ --out corpus --tokenizer my-tokenizer
    """
    if (minutes is None) == (steps is None):
        raise UsageError("training length: give either --minutes or --steps")
    from wham_data.corpus import Corpus
    from wham_data.inference.frame_tokenizer import choose_device
    from wham_data.inference.train_tokenizer import TrainSettings, train_tokenizer
    from wham_data.inference.vit_config import ViTConfig
    from wham_data.pipelines.frame_cache import unpack_frames

    opened = Corpus.open(corpus)
    frame_width, frame_height = opened.info.size
    settings = TrainSettings(
        model=ViTConfig(
            image_width=frame_width,
            image_height=frame_height,
            patch_size=10,
            transf_dim=width,
            embedding_dim=16,
            num_layers=layers,
            head_size=32,
            vocab_size=vocab_size,
        ),
        steps=steps,
        minutes=minutes,
        seed=seed,
    )

    def tell(row: dict[str, float]) -> None:
        if not quiet:
            say(
                f"step {row['step']:6.0f}  {row['minutes']:6.1f} min  loss {row['loss']:.4f}  "
                f"held-out {row['psnr_db']:.2f} dB  codes used {row['codes_used']:.0f}"
            )

    with tempfile.TemporaryDirectory(prefix="wham-data-frames-") as folder:
        unpacked = itertools.count(1)

        def unpacking(_: int) -> None:
            if (done := next(unpacked)) % 5000 == 0 and not quiet:
                say(f"unpacked {done} pictures")

        frames = unpack_frames(opened, Path(folder), unpacking)
        report = train_tokenizer(
            frames, out, settings, tell, resume=resume, device=str(choose_device(device))
        )
    text = (
        f"{out}: {report.steps} steps in {report.minutes:.1f} min, held-out "
        f"{report.held_out.psnr_db:.2f} dB, {report.held_out.codes_used} of {vocab_size} codes used, "
        f"perplexity {report.held_out.perplexity:.0f}"
    )
    emit(asdict(report), text, as_json=json)
