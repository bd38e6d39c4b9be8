"""The image tokenizer of a WHAM model, served on frames: either family, single or in a pair."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from wham_data.inference.checkpoint import open_tokenizer
from wham_data.inference.taming_vqgan import TamingVQGAN
from wham_data.inference.tokenizer import Tokenizer
from wham_data.inference.tokenizer_config import Fingerprint, ImageConfig, TokenizerConfig
from wham_data.inference.vit_config import ViTConfig
from wham_data.inference.vit_tokenizer import ViTTokenizer, choose_device
from wham_data.inference.vit_vqgan import ViTVQGAN

ImageModel = ViTVQGAN | TamingVQGAN


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


def load_wham_tokenizer(path: Path | str, device: str = "auto") -> Tokenizer:
    """Load the tokenizer of a WHAM checkpoint, of a converted folder, or alone in a folder.

    Raises:
        UsageError, IntegrityError: as `open_tokenizer`, and for a device of another name.
        MissingPartError: CUDA was asked for and is not there.
    """
    files = open_tokenizer(path)
    weights: dict[str, Tensor] = {}
    fingerprint = Fingerprint(files.config)
    for name, values in files.tensors():
        fingerprint.add(name, values)
        weights[name] = torch.from_numpy(values.astype(np.float32))
    model = tokenizer_model(files.config)
    model.load_state_dict(weights, assign=True)
    info = files.config.info(files.name, fingerprint.hex())
    return ViTTokenizer(cast(ViTVQGAN, model), info, choose_device(device))


def tokenizer_model(config: TokenizerConfig) -> ImageModel | TokenizerPair:
    """The torch module of a configuration, without weights: its tensors have shapes alone."""
    with torch.device("meta"):
        encoder = _image_model(config.encoder)
        return (
            encoder
            if config.decoder is None
            else TokenizerPair(encoder, _image_model(config.decoder))
        )


def _image_model(config: ImageConfig) -> ImageModel:
    return ViTVQGAN(config) if isinstance(config, ViTConfig) else TamingVQGAN(config)
