"""Makes small checkpoints of random weights, laid out as Lightning lays them out for WHAM."""

from __future__ import annotations

import math
import sys
import types
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.tokenizers.config import ImageConfig, TokenizerConfig
from wham_data.inference.tokenizers.taming_config import TamingConfig
from wham_data.inference.tokenizers.vit_config import ViTConfig

Content = dict[str, Any]
Edit = Callable[[Content], None]

VIT = ViTConfig(
    image_width=30,
    image_height=18,
    patch_size=8,
    transf_dim=16,
    embedding_dim=4,
    num_layers=2,
    head_size=8,
    vocab_size=40,
)
"""Padded on both sides: 4 x 3 patches of 8 cover 32 x 24."""

TAMING = TamingConfig(
    resolution=16,
    channels=32,
    multipliers=(1, 2),
    res_blocks=1,
    attention_at=(8,),
    latent_channels=8,
    embedding_dim=4,
    vocab_size=30,
)
"""8 x 8 tokens, attention at the lower of two levels."""


def gpt(config: ImageConfig, version: int = 1, bias: bool = True) -> GPTSpec:
    """Two layers of two heads over two steps of the tokenizer's tokens."""
    return GPTSpec(
        n_layer=2,
        n_head=2,
        n_embd=8,
        positions=2 * (config.tokens + 16),
        image_tokens=config.tokens,
        image_vocab=config.vocab_size,
        version=version,
        bias=bias,
    )


def write_checkpoint(
    path: Path,
    tokenizer: ImageConfig | TokenizerConfig = VIT,
    spec: GPTSpec | None = None,
    *,
    edit: Edit = lambda _: None,
    seed: int = 0,
) -> Path:
    """Save a checkpoint, after `edit` has had its way with what goes into it."""
    if not isinstance(tokenizer, TokenizerConfig):
        tokenizer = TokenizerConfig(tokenizer)
    content = checkpoint_content(tokenizer, spec or gpt(tokenizer.encoder), seed)
    edit(content)
    with wham_modules():
        torch.save(content, path)
    return path


def checkpoint_content(tokenizer: TokenizerConfig, spec: GPTSpec, seed: int = 0) -> Content:
    """What `Trainer.save_checkpoint` saves: weights, hyper-parameters, and much besides."""
    weights = state_dict(tokenizer, spec, np.random.default_rng(seed))
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(50)}}
    return {
        "epoch": 1,
        "global_step": 3,
        "pytorch-lightning_version": "1.9.4",
        "state_dict": weights,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": ""}},
        "optimizer_states": [{"state": moments, "param_groups": [{"lr": 1e-4, "params": [0]}]}],
        "lr_schedulers": [],
        "hparams_name": "kwargs",
        "hyper_parameters": hyper_parameters(tokenizer, spec),
    }


def state_dict(
    tokenizer: TokenizerConfig, spec: GPTSpec, rng: np.random.Generator
) -> OrderedDict[str, Tensor]:
    """Every tensor under its name in a checkpoint; the word table and the head are one."""
    weights: OrderedDict[str, Tensor] = OrderedDict()
    for part, config in tokenizer.parts().items():
        inner = "vq_model." if isinstance(config, TamingConfig) else ""
        for name, shape in config.tensor_shapes().items():
            weights[f"context_encoders.images.{part}{inner}{name}"] = random_tensor(
                rng, name, shape
            )
    for name, shape in spec.tensor_shapes().items():
        weights[f"predictor.gpt_model.{name}"] = random_tensor(rng, name, shape)
    weights["predictor.gpt_model.transformer.wte.weight"] = weights[
        "predictor.gpt_model.lm_head.weight"
    ]
    return weights


def random_tensor(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> Tensor:
    """Normal, so that what flows through stays near one: biases small, norms near one."""
    values = rng.standard_normal(shape, np.float32)
    if name.endswith("bias"):
        return torch.from_numpy(0.1 * values)
    if len(shape) == 1:
        return torch.from_numpy(1 + 0.2 * values)
    return torch.from_numpy(values / math.prod(shape[1:]) ** 0.5)


def hyper_parameters(tokenizer: TokenizerConfig, spec: GPTSpec) -> Content:
    """The arguments that WHAM's top module was built with."""
    model = {
        "model_size": "none that was published",
        "seq_len": spec.steps,
        "nanogpt_version": spec.version,
        "bias": spec.bias,
        "gpt_config": {"n_layer": spec.n_layer, "n_head": spec.n_head, "n_embd": spec.n_embd},
    }
    images = [image_arguments(config) for config in tokenizer.parts().values()]
    return {
        "predictor_args": CreationArgs(GPTTokenPredictor, {"model_spec": model}),
        "context_encoder_args": {
            "images": images[0] if len(images) == 1 else tuple(images),
            "actions_output": CreationArgs(ActionTokenEncoder, {}),
        },
        "variant": {"model_spec": {"bc_loss_only": False}},
    }


def image_arguments(config: ImageConfig) -> CreationArgs:
    """How one of the two families is to be built."""
    if isinstance(config, ViTConfig):
        return CreationArgs(VQGANModel, {"model_spec": vit_model_spec(config)})
    layers = {
        "double_z": False,
        "z_channels": config.latent_channels,
        "resolution": config.resolution,
        "in_channels": 3,
        "out_ch": 3,
        "ch": config.channels,
        "ch_mult": list(config.multipliers),
        "num_res_blocks": config.res_blocks,
        "attn_resolutions": list(config.attention_at),
        "dropout": 0.0,
        "resamp_with_conv": config.resample_with_conv,
    }
    model = {
        "taming_n_embed": config.vocab_size,
        "taming_embed_dim": config.embedding_dim,
        "taming_num_indices_per_axis": config.grid[0],
        "taming_ddconfig": layers,
    }
    return CreationArgs(TamingVQModel, {"model_spec": model, "ckpt_path": None})


def vit_model_spec(config: ViTConfig) -> Content:
    """The ViT's own numbers, image size included."""
    return {
        "image_size_per_x_axis": config.image_width,
        "image_size_per_y_axis": config.image_height,
        "patch_size": config.patch_size,
        "transf_dim": config.transf_dim,
        "embedding_dim": config.embedding_dim,
        "num_layers": config.num_layers,
        "head_size": config.head_size,
        "vocab_size": config.vocab_size,
        "commitment_cost": 1.0,
        "is_perceptual": True,
        "use_gan": False,
    }


class CreationArgs:
    """Stands for WHAM's class of that purpose; saved under that one's name."""

    def __init__(self, pl_class: type, pl_kwargs: Content) -> None:
        self.pl_class = pl_class
        self.pl_checkpoint_path: str | None = None
        self.pl_kwargs = pl_kwargs
        self.pl_stored_params_override = None


class GPTTokenPredictor: ...


class ActionTokenEncoder: ...


class VQGANModel: ...


class TamingVQModel: ...


_PUBLISHED_AS: Mapping[type, tuple[str, str]] = {
    CreationArgs: ("models.wham_base.pl_creation_args", "LightningModuleCreationArgs"),
    GPTTokenPredictor: (
        "models.wham_token_model.gpt_token_transformer_predictor",
        "GPTTokenPredictor",
    ),
    ActionTokenEncoder: ("models.wham_token_model.token_action_encoder", "ActionTokenEncoder"),
    VQGANModel: ("models.vqgan.vqgan", "VQGANModel"),
    TamingVQModel: ("models.vqgan.taming_vq_model", "TamingVQModel"),
}


@contextmanager
def wham_modules() -> Iterator[None]:
    """While a checkpoint is saved, its classes can be found where the published files name them."""
    added: dict[str, types.ModuleType] = {}
    for class_, (module, name) in _PUBLISHED_AS.items():
        class_.__module__, class_.__qualname__ = f"humanmodelling.{module}", name
        class_.__name__ = name
        place = types.ModuleType(class_.__module__)
        setattr(place, name, class_)
        added[class_.__module__] = place
    for name in (
        "humanmodelling",
        "humanmodelling.models",
        "humanmodelling.models.wham_base",
        "humanmodelling.models.wham_token_model",
        "humanmodelling.models.vqgan",
    ):
        added.setdefault(name, types.ModuleType(name))
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
