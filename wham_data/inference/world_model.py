"""A world model, loaded: the transformer, and the tokenizer whose tokens it speaks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wham_data.inference.checkpoints.lightning import open_checkpoint
from wham_data.inference.device import choose_device
from wham_data.inference.gpt.model import GPT
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.tokenizer import BUNDLED, Tokenizer, load_tokenizer
from wham_data.inference.tokenizers.config_file import config_json
from wham_data.schemas.errors import UsageError

DType = Literal["float32", "bf16"]

_DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}

ACTION_SPACE = "wham16"
"""The space of the actions that every world model reads and makes."""


@dataclass(frozen=True, slots=True)
class WorldModel:
    """What `dream` needs.

    name       the file's or folder's name, or that of a bundled model
    gpt        the transformer, on its device, in its dtype
    tokenizer  frames to its image tokens and back; None for a transformer alone
    wham       a WHAM checkpoint, as it is or converted: what it makes has to say so
    unexpected keys of the checkpoint that nobody knows and that were left out
    compiled   dreaming goes through passes of fixed shapes, which a GPU replays as CUDA graphs
    """

    name: str
    gpt: GPT
    tokenizer: Tokenizer | None
    wham: bool = False
    unexpected: tuple[str, ...] = ()
    compiled: bool = False

    @property
    def spec(self) -> GPTSpec:
        """Tokens per step, vocabulary, steps that it holds, and the transformer's sizes."""
        return self.gpt.spec

    @property
    def action_space(self) -> str:
        """The name of the space that its actions are in."""
        return ACTION_SPACE

    @property
    def device(self) -> str:
        """Where the transformer runs: "cpu", "cuda:0", ..."""
        return str(self.gpt.lm_head.weight.device)

    @property
    def dtype(self) -> str:
        """In what it computes: "float32" or "bf16"."""
        return next(
            name for name, dtype in _DTYPES.items() if dtype == self.gpt.lm_head.weight.dtype
        )

    def fingerprint(self) -> str:
        """Hex SHA-256 over the transformer's sizes and its weights, in the type it computes in.

        Reads every weight, each time: about a second per gigabyte.
        """
        digest = hashlib.sha256(config_json("gpt", self.spec.to_mapping()).encode())
        weights = self.gpt.state_dict()
        for name in sorted(self.spec.tensor_shapes()):
            values = weights[name].cpu().contiguous()
            digest.update(f"{name} {values.dtype}\n".encode())
            digest.update(values.view(torch.uint8).numpy())
        return digest.hexdigest()

    def logits(self, flat_tokens: NDArray[np.integer] | torch.Tensor) -> NDArray[np.float32]:
        """How likely each id is to follow each token.

        Args:
            flat_tokens: integer [B, n] in the joint vocabulary (image ids, then V + action token),
                steps one after another, the first token at position 0.

        Returns:
            float32 [B, n, V + 68], before temperature and filters.

        Raises:
            UsageError: another shape, more tokens than positions, or an id outside the vocabulary.
        """
        tokens = torch.as_tensor(np.asarray(flat_tokens).astype(np.int64, casting="same_kind"))
        if tokens.dim() != 2 or not 0 < tokens.shape[1] <= self.spec.positions:
            raise UsageError(
                f"tokens of shape {tuple(tokens.shape)}: expected (B, n) with n from 1 to "
                f"{self.spec.positions}"
            )
        if (
            tokens.numel()
            and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.spec.vocabulary
        ):
            raise UsageError(
                f"tokens {tokens.min()}..{tokens.max()}: expected 0..{self.spec.vocabulary - 1}"
            )
        with torch.inference_mode():
            scores: NDArray[np.float32] = self.gpt(tokens.to(self.device)).float().cpu().numpy()
        return scores


def torch_dtype(name: DType) -> torch.dtype:
    """What torch calls it.

    Raises:
        UsageError: another name.
    """
    if name not in _DTYPES:
        raise UsageError(f"dtype {name!r}: expected {' or '.join(_DTYPES)}")
    return _DTYPES[name]


def load_world_model(
    ref: str | Path,
    device: str = "auto",
    dtype: DType = "float32",
    n_head: int | None = None,
    *,
    compile: bool | None = None,
) -> WorldModel:
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
    with torch.device("meta"):
        gpt = GPT(checkpoint.gpt)
    # Copied, for a file that is changed while mapped would change the model or end the process.
    weights = {
        name: tensor.to(where, kind, copy=True) for name, tensor in checkpoint.world_model_tensors()
    }
    gpt.load_state_dict(weights, assign=True)
    gpt.eval().requires_grad_(False)
    tokenizer = load_tokenizer(str(checkpoint.path), str(where))
    return WorldModel(
        name=str(ref) if str(ref) in BUNDLED else checkpoint.tokenizer.name,
        gpt=gpt,
        tokenizer=tokenizer,
        wham=checkpoint.wham,
        unexpected=checkpoint.unexpected,
        compiled=where.type == "cuda" if compile is None else compile,
    )
