"""Where world models are loaded: which kind of model a file holds is decided here."""

from __future__ import annotations

from pathlib import Path

from wham_data.inference.checkpoints.lightning import open_checkpoint
from wham_data.inference.device import choose_device
from wham_data.inference.gpt.world_model import DType, GPTWorldModel, torch_dtype
from wham_data.inference.session import WorldModel
from wham_data.inference.tokenizer import BUNDLED, load_tokenizer

__all__ = ["DType", "WorldModel", "load_world_model"]


def load_world_model(
    ref: str | Path,
    device: str = "auto",
    dtype: DType = "float32",
    n_head: int | None = None,
    *,
    compile: bool | None = None,
) -> GPTWorldModel:
    """Load a world model and its tokenizer, ready to dream.

    Args:
        ref: a bundled name, a WHAM `.ckpt`, or the folder of a converted or trained model.
        device: "cpu", "cuda", "cuda:1", ..., or "auto": a GPU where there is one.
        dtype: what the transformer computes in. The tokenizer keeps to float32.
        n_head: attention heads, for a checkpoint that does not say.
        compile: short passes have fixed shapes and, on a GPU, are recorded once and replayed as
            CUDA graphs. None is where that wins: on a GPU. On a CPU it only costs.

    Raises:
        UsageError: nothing of that name, no world model in it, a device or dtype of another name.
        IntegrityError: the file is damaged, unsafe, or no WHAM model.
        MissingPartError: CUDA was asked for and is not there.
    """
    kind = torch_dtype(dtype)
    where = choose_device(device)
    checkpoint = open_checkpoint(BUNDLED.get(str(ref), Path(ref)), n_head)
    return GPTWorldModel.from_tensors(
        name=str(ref) if str(ref) in BUNDLED else checkpoint.tokenizer.name,
        spec=checkpoint.gpt,
        tensors=checkpoint.world_model_tensors(),
        tokenizer=load_tokenizer(str(checkpoint.path), str(where)),
        device=where,
        dtype=kind,
        wham=checkpoint.wham,
        unexpected=checkpoint.unexpected,
        compiled=where.type == "cuda" if compile is None else compile,
    )
