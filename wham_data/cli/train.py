"""`wham-data train`: make a tokenizer or a world model from a corpus."""

from __future__ import annotations

import itertools
import tempfile
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from wham_data.cli.console import emit, say
from wham_data.cli.help import Command, Group
from wham_data.cli.options import INPUT, MODEL, RESOURCES, RUN, Device, Json, Quiet, chosen_device
from wham_data.schemas.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from wham_data.inference.tokenizers.config import ImageConfig

Family = Literal["vit", "taming"]
Minutes = Annotated[
    float | None,
    typer.Option(help="Length of the whole training in minutes. Give this or --steps."),
]
Steps = Annotated[
    int | None, typer.Option(help="Length of the whole training in steps. Give this or --minutes.")
]
Resume = Annotated[
    bool,
    typer.Option(
        help="Go on from the checkpoint in --out. With --steps, on a CPU, the result is that of a run without "
        "a break; a GPU does not repeat a run bit for bit."
    ),
]
Seed = Annotated[
    int,
    typer.Option(rich_help_panel=RUN, help="Seed of the first weights and the order of batches."),
]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    cls=Group,
    help="Train a tokenizer or a world model on a corpus.",
)


@app.callback()
def train() -> None:
    """Train a tokenizer or a world model on a corpus."""


@app.command(cls=Command)
def tokenizer(
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS",
            help="A corpus with pictures (ingest --frames png or jpeg) and splits train and val.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the weights, the loss curves and the checkpoint.")
    ],
    minutes: Minutes = None,
    steps: Steps = None,
    resume: Resume = False,
    family: Annotated[
        Family,
        typer.Option(help="vit: a transformer. taming: convolutions, for square pictures only."),
    ] = "vit",
    vocab_size: Annotated[
        int, typer.Option(rich_help_panel=MODEL, help="Number of codes in the codebook.")
    ] = 4096,
    width: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=MODEL,
            help="Width of the layers, a multiple of 32. Default: 160, or for taming 32 at the first "
            "of its four levels.",
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=MODEL,
            help="Layers of the encoder, and of the decoder. Default: 4, or for taming 1 block a level.",
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a tokenizer: a ViT-VQGAN (18 x 30 tokens for 300x180) or a Taming VQGAN.

    \b
    Examples:
      wham-data ingest recordings/ --out pictures --tokenizer none --frames png --split 90,10,0
      wham-data train tokenizer pictures --out my-tokenizer --minutes 60
      wham-data train tokenizer pictures --out my-tokenizer --minutes 180 --resume
      wham-data ingest recordings/ --out corpus --tokenizer my-tokenizer
      wham-data ingest recordings/ --out squares --tokenizer none --frames png --size 128x128
      wham-data train tokenizer squares --out taming --family taming --minutes 180
    """
    if (minutes is None) == (steps is None):
        raise UsageError("training length: give either --minutes or --steps")
    from wham_data.corpus import Corpus
    from wham_data.inference.training.ranks import joined
    from wham_data.inference.training.tokenizer import TrainSettings, train_tokenizer
    from wham_data.pipelines.media.frame_cache import unpack_frames
    from wham_data.pipelines.run.claims import alone

    opened, where = Corpus.open(corpus), chosen_device(device)
    model = _tokenizer_config(family, opened.info.size, vocab_size, width, layers)
    rows, columns = model.grid
    settings = TrainSettings(
        model=model, steps=steps, minutes=minutes, seed=seed, crop=(min(6, rows), min(10, columns))
    )

    def tell(row: dict[str, float]) -> None:
        if not quiet:
            say(
                f"step {row['step']:6.0f}  {row['minutes']:6.1f} min  loss {row['loss']:.4f}  "
                f"held-out {row['psnr_db']:.2f} dB  codes used {row['codes_used']:.0f}"
            )

    with (
        joined(device) as (ranks, _),
        alone(out),
        tempfile.TemporaryDirectory(prefix="wham-data-frames-") as folder,
    ):
        if ranks.count > 1:
            raise UsageError(
                f"torchrun has started {ranks.count} processes, but a tokenizer is trained by one: "
                "start this command without torchrun"
            )
        unpacked = itertools.count(1)

        def unpacking(_: int) -> None:
            if (done := next(unpacked)) % 5000 == 0 and not quiet:
                say(f"unpacked {done} pictures")

        frames = unpack_frames(opened, Path(folder), unpacking)
        if frames.note is not None:
            say(frames.note)
        report = train_tokenizer(frames, out, settings, tell, resume=resume, device=where)
    text = (
        f"{out}: {report.steps} steps in {report.minutes:.1f} min, held-out "
        f"{report.held_out.psnr_db:.2f} dB, {report.held_out.codes_used} of {vocab_size} codes used, "
        f"perplexity {report.held_out.perplexity:.0f}"
    )
    emit(asdict(report), text, as_json=json)


def _tokenizer_config(
    family: Family, size: tuple[int, int], vocab_size: int, width: int | None, layers: int | None
) -> ImageConfig:
    """A tokenizer for frames of this size (width, height)."""
    from wham_data.inference.tokenizers.taming_config import TamingConfig
    from wham_data.inference.tokenizers.vit_config import ViTConfig

    frame_width, frame_height = size
    if family == "vit":
        return ViTConfig(
            image_width=frame_width,
            image_height=frame_height,
            patch_size=10,
            transf_dim=width or 160,
            embedding_dim=16,
            num_layers=layers or 4,
            head_size=32,
            vocab_size=vocab_size,
        )
    if frame_width != frame_height:
        raise UsageError(
            f"--family taming: frames of {frame_width}x{frame_height}, expected square ones. "
            "Ingest with --size 128x128"
        )
    return TamingConfig(
        resolution=frame_width,
        channels=width or 32,
        multipliers=(1, 1, 2, 2),
        res_blocks=layers or 1,
        attention_at=(frame_width // 8,),
        latent_channels=16,
        embedding_dim=16,
        vocab_size=vocab_size,
    )


@app.command("world-model", cls=Command)
def world_model(
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS",
            help="A corpus with tokens, actions in wham16 or a space that converts to it, and splits "
            "train and val.",
        ),
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the model, the loss curves and the checkpoint.")
    ],
    minutes: Minutes = None,
    steps: Steps = None,
    resume: Resume = False,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=INPUT,
            help="The tokenizer of the corpus, if it cannot be found by its name.",
        ),
    ] = None,
    window: Annotated[
        int, typer.Option(min=2, rich_help_panel=MODEL, help="Steps that the model holds.")
    ] = 4,
    layers: Annotated[
        int, typer.Option(rich_help_panel=MODEL, help="Layers of the transformer.")
    ] = 4,
    heads: Annotated[
        int, typer.Option(rich_help_panel=MODEL, help="Attention heads in a layer.")
    ] = 4,
    width: Annotated[
        int,
        typer.Option(
            rich_help_panel=MODEL, help="Width of the layers, a multiple of the number of heads."
        ),
    ] = 256,
    batch_size: Annotated[
        int, typer.Option(min=1, rich_help_panel=RESOURCES, help="Windows in a batch.")
    ] = 4,
    learning_rate: Annotated[
        float, typer.Option(rich_help_panel=MODEL, help="Highest learning rate, for AdamW.")
    ] = 1e-3,
    seed: Seed = 0,
    device: Device = "auto",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a world model on a corpus with tokens: predict the next token in windows of steps.

    The defaults make a model of the size of wham-tiny, for a laptop. Each checkpoint is a model that
    `wham-data dream` can use. Its losses are reported beside those of two simple predictors.

    \b
    Examples:
      wham-data ingest recordings/ --out corpus --actions wham16 --split 90,10,0
      wham-data train world-model corpus --out my-model --minutes 60
      wham-data train world-model corpus --out my-model --minutes 600 --resume --device cuda
      torchrun --nproc-per-node 8 --no-python wham-data train world-model corpus --out my-model \\
        --steps 9000 --batch-size 32
      wham-data dream corpus --model my-model --out dreams
    """
    if (minutes is None) == (steps is None):
        raise UsageError("training length: give either --minutes or --steps")
    from wham_data.corpus import Corpus
    from wham_data.feed.held_out import training_windows
    from wham_data.feed.interleave import Interleaving
    from wham_data.inference.gpt.spec import GPTSpec
    from wham_data.inference.tokenizer import tokenizer_info, tokenizer_note
    from wham_data.inference.training.ranks import joined
    from wham_data.inference.training.world_model import WorldModelSettings, train_world_model
    from wham_data.pipelines.run.claims import alone

    chosen_device(device)  # a device that is not there is told before anything is done
    opened = Corpus.open(corpus)
    made_by = opened.info.tokenizer
    if made_by is None:
        raise UsageError(f"{corpus}: holds no tokens; ingest with --tokenizer")
    ref = tokenizer or made_by.name
    if taken := tokenizer_note(ref):
        say(f"tokenizer {taken}")
    if (found := tokenizer_info(ref).fingerprint) != made_by.fingerprint:
        raise MismatchError(
            f"{corpus}: its tokens are {made_by.fingerprint[:12]}'s, but tokenizer {ref} is "
            f"{found[:12]}. Name the right one with --tokenizer."
        )
    spec = GPTSpec(
        n_layer=layers,
        n_head=heads,
        n_embd=width,
        positions=window * Interleaving.of(opened.info).tokens_per_step,
        image_tokens=made_by.n_tokens,
        image_vocab=made_by.vocab_size,
        version=2,
        bias=False,
    )
    settings = WorldModelSettings(
        spec,
        steps=steps,
        minutes=minutes,
        seed=seed,
        batch_size=batch_size,
        learning_rate=learning_rate,
    )

    def tell(row: dict[str, float]) -> None:
        if not quiet:
            say(
                f"step {row['step']:6.0f}  {row['minutes']:6.1f} min  loss {row['loss']:.4f}  "
                f"held-out: image {row['image_loss']:.4f}  action {row['action_loss']:.4f}"
            )

    with joined(device) as (ranks, own_device), alone(out) if ranks.first else nullcontext():
        windows, held_out, note = training_windows(opened, window)
        if note is not None and ranks.first:
            say(note)
        report = train_world_model(
            windows,
            held_out,
            ref,
            out,
            settings,
            tell,
            resume=resume,
            device=chosen_device(own_device),
            ranks=ranks,
        )
    if not ranks.first:
        return
    simple = report.baselines
    text = (
        f"{out}: {report.steps} steps in {report.minutes:.1f} min. Held-out nats per image token: "
        f"{report.image_loss:.3f} (copying the last frame {simple.copy:.3f}, unigram "
        f"{simple.unigram:.3f}); per action token: {report.action_loss:.3f}"
    )
    emit(asdict(report), text, as_json=json)
