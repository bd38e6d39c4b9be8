"""A world model that is a transformer over image and action tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from wham_data.inference.device.arithmetic import ieee_float32
from wham_data.inference.gpt import saved_session, session
from wham_data.inference.gpt.attention import kernel_for
from wham_data.inference.gpt.kept import KeptDecoders
from wham_data.inference.gpt.model import GPT
from wham_data.inference.gpt.session import GPTSession, SessionSettings
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.sampling import Sampling
from wham_data.inference.session import Context
from wham_data.inference.tokenizers.config_file import config_json
from wham_data.inference.tokenizers.contract import Tokenizer
from wham_data.schemas.errors import UsageError
from wham_data.schemas.wham_tokens import ACTION_SPACE

DType = Literal["float32", "bf16"]

_DTYPES: dict[DType, torch.dtype] = {"float32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class GPTWorldModel:
    """A transformer with its tokenizer. It implements the protocol `WorldModel`.

    name       the file's or folder's name, or that of a bundled model
    gpt        the transformer, on its device, in its dtype
    tokenizer  turns frames into image tokens and back; None for a transformer without tokenizer
    wham       it is a WHAM checkpoint, possibly converted: its outputs must say so
    unexpected unknown keys of the checkpoint, which were left out
    notes      what was taken or changed to open the checkpoint, one line each
    compiled   dreaming goes through passes of fixed shapes, which a GPU replays as CUDA graphs
    fused      such passes go through torch.compile before they are recorded; only on a GPU
    kept       decoders of such passes, kept from one session to the next

    Raises:
        UsageError: `fused` on a CPU.
    """

    name: str
    gpt: GPT
    tokenizer: Tokenizer | None
    wham: bool = False
    unexpected: tuple[str, ...] = ()
    compiled: bool = False
    notes: tuple[str, ...] = ()
    fused: bool = False
    kept: KeptDecoders = field(default_factory=KeptDecoders, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # On a CPU it gained nothing, and torch 2.13 made code of `sampling.gumbel` that writes past its
        # memory where the number of ids is not a multiple of 8, as WHAM's 16452 is not.
        if self.fused and self.gpt.lm_head.weight.device.type == "cpu":
            raise UsageError("fuse: only on a GPU. On a CPU it is no faster, and was found unsafe")

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
    def dtype(self) -> DType:
        """The type in which it computes: "float32" or "bf16"."""
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

    def dream_bytes(self, context_steps: int) -> int:
        """Bytes of the keys and values of one dream that sees `context_steps` steps."""
        spec = self.spec
        positions = min(context_steps + 1, spec.steps) * spec.tokens_per_step
        width = self.gpt.lm_head.weight.element_size()
        return 2 * spec.n_layer * spec.n_embd * positions * width

    def begin(
        self,
        contexts: Sequence[Context],
        seeds: Sequence[int],
        *,
        indices: Sequence[int] | None = None,
        sampling: Sampling | None = None,
        context_steps: int | None = None,
        speculate: bool = True,
    ) -> GPTSession:
        """Begin dreams, as `WorldModel.begin`."""
        settings = self._settings(sampling or Sampling(), context_steps, speculate)
        return session.begin(settings, contexts, seeds, indices)

    def restore(self, saved: bytes) -> GPTSession:
        """Go on with a saved session, as `WorldModel.restore`."""
        found = saved_session.read(saved, self.fingerprint(), self.spec)
        settings = self._settings(found.sampling, found.context_steps, found.speculate)
        return session.resume(settings, found.dreams)

    def let_go(self) -> None:
        """Free the memory that is kept for further dreams: caches, and recorded passes."""
        self.kept.let_go()

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
        with ieee_float32(), torch.inference_mode():
            scores: NDArray[np.float32] = self.gpt(tokens.to(self.device)).float().cpu().numpy()
        return scores

    def _settings(
        self, sampling: Sampling, context_steps: int | None, speculate: bool
    ) -> SessionSettings:
        return SessionSettings(
            self.gpt,
            self.tokenizer,
            self.fingerprint,
            self.kept if self.compiled else None,
            self.fused,
            sampling,
            context_steps,
            speculate,
        )

    @classmethod
    def from_tensors(
        cls,
        name: str,
        spec: GPTSpec,
        tensors: Iterable[tuple[str, torch.Tensor]],
        tokenizer: Tokenizer | None,
        device: torch.device,
        dtype: torch.dtype,
        *,
        wham: bool,
        unexpected: tuple[str, ...],
        compiled: bool,
        fused: bool = False,
        notes: tuple[str, ...] = (),
    ) -> GPTWorldModel:
        """The model with these weights, which are copied to the device."""
        with torch.device("meta"):
            gpt = GPT(spec)
        # Copied: if a mapped file is changed, the model would change or the process would crash.
        weights = {name: tensor.to(device, dtype, copy=True) for name, tensor in tensors}
        gpt.load_state_dict(weights, assign=True)
        gpt.eval().requires_grad_(False)
        kernel_for(gpt.lm_head.weight, spec.head_size)  # tries flash-attn now, not within a pass
        return cls(name, gpt, tokenizer, wham, unexpected, compiled, notes, fused)


def torch_dtype(name: DType | None, device: torch.device) -> torch.dtype:
    """The torch type of this name; None: bf16 on a GPU, and float32 on a CPU.

    Raises:
        UsageError: another name.
    """
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in _DTYPES:
        raise UsageError(f"dtype {name!r}: expected {' or '.join(_DTYPES)}")
    return _DTYPES[name]
