"""A tokenizer of either family served on uint8 frames, with the same ids for a frame whatever surrounds it.

Floating-point sums depend on how a matrix product is split up, and the split depends on the batch
and on the number of threads. So every forward pass here has one fixed shape. On a CPU it is one
frame on one thread, and several frames run side by side in as many threads as torch was allowed. On
a GPU it is a batch of `GPU_BATCH` frames (`fixed_batches.py`), or fewer where they do not fit, filled up with
blank ones.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wham_data.inference.device import choose_device
from wham_data.inference.device.arithmetic import ieee_float32
from wham_data.inference.device.failures import NO_ROOM, device_errors
from wham_data.inference.tokenizers.batch_size import BatchSize
from wham_data.inference.tokenizers.config import Fingerprint, ImageConfig, TokenizerConfig
from wham_data.inference.tokenizers.contract import GPU_BATCH, TokenizerFiles
from wham_data.inference.tokenizers.fixed_batches import FixedBatches
from wham_data.inference.tokenizers.taming_vqgan import TamingVQGAN
from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.inference.tokenizers.vit_vqgan import ViTVQGAN
from wham_data.schemas.corpus_info import TokenizerInfo
from wham_data.schemas.errors import UsageError

ImageModel = ViTVQGAN | TamingVQGAN

_thread_count = threading.Lock()
"""Held while torch's thread count is lowered, lest two callers restore each other's value."""


class TokenizerPair(nn.ModuleList):
    """Two whole tokenizers: the first encodes, the second decodes."""

    def __init__(self, encoder: ImageModel, decoder: ImageModel) -> None:
        super().__init__([encoder, decoder])
        self.config = encoder.config

    def ids(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, H, W, 3] to token ids int64 [B, N]."""
        return cast(ImageModel, self[0]).ids(frames)

    def frames(self, ids: Tensor) -> Tensor:
        """Token ids int64 [B, N] to frames uint8 [B, H, W, 3]."""
        return cast(ImageModel, self[1]).frames(ids)


class FrameTokenizer:
    """A tokenizer loaded on one device; `Tokenizer` in `contract.py` is its contract."""

    def __init__(
        self,
        model: ImageModel | TokenizerPair,
        info: TokenizerInfo,
        device: torch.device,
        batch: int | None = None,
    ) -> None:
        """Move the model to the device.

        Args:
            batch: frames in a pass; 0: one frame and one thread per pass. None: 0 on a CPU, else
                `GPU_BATCH`.
        """
        self._model = model.to(device).eval().requires_grad_(False)
        self._info = info
        self._device = device
        frames = batch if batch is not None else 0 if device.type == "cpu" else GPU_BATCH
        self._batch = BatchSize(frames, device, f"tokenizer {info.name}") if frames else None
        self._batches: FixedBatches | None = None

    @classmethod
    def load(cls, files: TokenizerFiles, device: str = "auto") -> FrameTokenizer:
        """Build the model, fill it with the weights and take their fingerprint, in one pass.

        Raises:
            IntegrityError: a checksum is wrong, or a value is not finite.
            MissingPartError, UsageError: the device is not there, or is none.
            DeviceError: its memory is full, or it fails.
        """
        where = choose_device(device)
        weights: dict[str, Tensor] = {}
        fingerprint = Fingerprint(files.config)
        for name, values in files.tensors():
            fingerprint.add(name, values)
            weights[name] = torch.from_numpy(values.astype(np.float32))
        model = tokenizer_model(files.config)
        model.load_state_dict(weights, assign=True)
        info = files.config.info(files.name, fingerprint.hex())
        with device_errors(f"loading tokenizer {files.name} to {where}", NO_ROOM):
            return cls(model, info, where)

    @property
    def info(self) -> TokenizerInfo:
        """Name, fingerprint and sizes."""
        return self._info

    @property
    def fingerprint(self) -> str:
        """Hex SHA-256 over configuration, weights and arithmetic."""
        return self._info.fingerprint

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self._info.grid

    @property
    def vocab_size(self) -> int:
        """Ids are in [0, vocab_size)."""
        return self._info.vocab_size

    @property
    def frame_size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self._info.frame_size

    @property
    def device(self) -> str:
        """Where it runs: "cpu", "cuda:0", ..."""
        return str(self._device)

    @ieee_float32()
    def encode(self, frames_u8: NDArray[np.uint8]) -> NDArray[np.uint16]:
        """RGB frames uint8 [B, H, W, 3] to ids uint16 [B, N]."""
        width, height = self.frame_size
        if frames_u8.dtype != np.uint8 or frames_u8.shape[1:] != (height, width, 3):
            raise UsageError(
                f"frames to encode: {frames_u8.dtype} {frames_u8.shape}, "
                f"expected uint8 (B, {height}, {width}, 3)"
            )
        writable = np.require(frames_u8, requirements=["C", "W"])  # as torch demands
        ids = self._forward(self._model.ids, torch.from_numpy(writable))
        return ids.numpy().astype(np.uint16).reshape(len(frames_u8), self._model.config.tokens)

    @ieee_float32()
    def decode(self, tokens: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Ids of any integer dtype [B, N] to RGB frames uint8 [B, H, W, 3]."""
        count = self._model.config.tokens
        if tokens.dtype.kind not in "iu" or tokens.shape[1:] != (count,):
            raise UsageError(
                f"tokens to decode: {tokens.dtype} {tokens.shape}, expected integers (B, {count})"
            )
        if tokens.size and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.vocab_size:
            raise UsageError(
                f"tokens to decode: ids {tokens.min()}..{tokens.max()}, "
                f"but this tokenizer's are 0..{self.vocab_size - 1}"
            )
        frames = self._forward(self._model.frames, torch.from_numpy(tokens.astype(np.int64)))
        width, height = self.frame_size
        return frames.numpy().reshape(len(tokens), height, width, 3)

    def _forward(self, model: Callable[[Tensor], Tensor], items: Tensor) -> Tensor:
        """`model` over the items in passes of one fixed shape; the results on the CPU."""
        if not len(items):
            return torch.empty(0, dtype=torch.uint8)
        if self._batch is None:
            return torch.cat(_frame_by_frame(model, items))
        return self._batch.run(partial(self._in_batches, model, items))

    def _in_batches(self, model: Callable[[Tensor], Tensor], items: Tensor, size: int) -> Tensor:
        if self._batches is None or self._batches.size != size:
            self._batches = FixedBatches(self._device, size)
        return self._batches.run(model, items)


def image_model(config: ImageConfig) -> ImageModel:
    """The torch module of one tokenizer, with weights as torch draws them."""
    return ViTVQGAN(config) if isinstance(config, ViTConfig) else TamingVQGAN(config)


def tokenizer_model(config: TokenizerConfig) -> ImageModel | TokenizerPair:
    """The torch module of a configuration, without weights: its tensors have shapes alone."""
    with torch.device("meta"):
        encoder = image_model(config.encoder)
        if config.decoder is None:
            return encoder
        return TokenizerPair(encoder, image_model(config.decoder))


def _frame_by_frame(model: Callable[[Tensor], Tensor], items: Tensor) -> list[Tensor]:
    """One item and one thread per pass, as many passes at a time as torch was allowed threads."""

    def single(item: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(item)

    with _thread_count:
        allowed = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            if min(allowed, len(items)) == 1:
                return [single(item) for item in torch.split(items, 1)]
            with ThreadPoolExecutor(
                allowed, initializer=torch.set_num_threads, initargs=(1,)
            ) as pool:
                return list(pool.map(single, torch.split(items, 1)))
        finally:
            torch.set_num_threads(allowed)
