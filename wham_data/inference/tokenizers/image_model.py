"""The torch module of a tokenizer, of whichever family, and what training asks of it."""

from __future__ import annotations

from wham_data.inference.tokenizers.config import ImageConfig
from wham_data.inference.tokenizers.taming_vqgan import TamingVQGAN
from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.inference.tokenizers.vit_vqgan import ViTVQGAN

ImageModel = ViTVQGAN | TamingVQGAN


def image_model(config: ImageConfig) -> ImageModel:
    """The module, with weights as torch draws them."""
    return ViTVQGAN(config) if isinstance(config, ViTConfig) else TamingVQGAN(config)
