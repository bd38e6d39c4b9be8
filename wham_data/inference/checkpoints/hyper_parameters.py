"""Reads the hyper-parameters of a WHAM checkpoint from inert data. This module does not use torch.

The file names classes and gives their arguments. Classes are recognised by the last part of their
name, because the published files were pickled from a package that is not public. Every number is
checked here or in its configuration class. Nothing is guessed except the number of attention heads:
no tensor shows it, so it is taken from the published sizes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from wham_data.files.inert_pickle import Inert, Name
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.tokenizers.config import ImageConfig, TokenizerConfig
from wham_data.inference.tokenizers.taming_config import TamingConfig
from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.schemas.errors import IntegrityError, UsageError
from wham_data.schemas.wham_tokens import ACTION_SIZE

MODALITIES = ("images", "actions_output")
"""The parts of a step's tokens, in their order."""

GPT_PREFIX = "predictor.gpt_model."
IMAGE_PREFIX = "context_encoders.images."

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Size:
    layers: int
    heads: int
    width: int


_SIZES = {
    "chinchilla-251M": _Size(16, 16, 1024),
    "chinchilla-1018M": _Size(23, 14, 1792),
    "wham-4kvocab-1.6b": _Size(24, 18, 2304),
    "wham-3b": _Size(30, 24, 3072),
}
"""The published sizes, by their `model_size`."""


@dataclass(frozen=True, slots=True)
class _Arguments:
    """A class that the file names, and its keyword arguments."""

    class_name: str
    given: dict[str, object]


def read_tokenizer_config(hyper_parameters: object) -> TokenizerConfig:
    """The configuration of a checkpoint's image tokenizer, or of its pair of tokenizers.

    Raises:
        IntegrityError: a value is missing, has a wrong type or refers to a second file, or the
            tokenizer is of a kind that cannot run here.
    """
    encoders = _dict(_dict(hyper_parameters, "hyper_parameters"), "context_encoder_args")
    if tuple(encoders) != MODALITIES:
        raise IntegrityError(
            f"context_encoder_args are {_listed(encoders)}, expected {' then '.join(MODALITIES)}"
        )
    actions = _arguments(encoders["actions_output"], "actions_output")
    if actions.class_name != "ActionTokenEncoder":
        raise IntegrityError(f"actions_output is {actions.class_name}, expected ActionTokenEncoder")
    images = encoders["images"]
    if not isinstance(images, list | tuple):
        return TokenizerConfig(_image_config(_arguments(images, "images")))
    if len(images) != 2:
        raise IntegrityError(f"images: {len(images)} tokenizers, expected one or a pair")
    encoder, decoder = (_image_config(_arguments(part, "images")) for part in images)
    return TokenizerConfig(encoder, decoder)


def image_prefix(config: TokenizerConfig, part: str) -> str:
    """The prefix of the names of a tokenizer's tensors in the state dict.

    Args:
        config: of the tokenizer.
        part: one of `config.parts()`.
    """
    taming = isinstance(config.parts()[part], TamingConfig)
    return IMAGE_PREFIX + part + ("vq_model." if taming else "")


def read_gpt_spec(
    hyper_parameters: object, tokenizer: TokenizerConfig, shapes: Shapes, n_head: int | None
) -> GPTSpec:
    """The configuration of the world model.

    Args:
        hyper_parameters: of the checkpoint, inert.
        tokenizer: configuration of the tokenizer.
        shapes: shapes of the state dict's tensors, by their names after `GPT_PREFIX`.
        n_head: number of attention heads, for a file that does not contain it.

    Raises:
        IntegrityError: a value is missing, has a wrong type or refers to a second file, or the
            tensors are not those of such a model.
        UsageError: `n_head` is needed and is None, or differs from the number in the file.
    """
    predictor = _arguments(
        _item(_dict(hyper_parameters, "hyper_parameters"), "predictor_args"), "predictor_args"
    )
    if predictor.class_name != "GPTTokenPredictor":
        raise IntegrityError(f"predictor is {predictor.class_name}, expected GPTTokenPredictor")
    model = _dict(predictor.given, "model_spec")
    version, bias = _integer(model, "nanogpt_version", 1), _flag(model, "bias", True)
    layers = 0
    while f"transformer.h.{layers}.attn.c_attn.weight" in shapes:
        layers += 1
    table = shapes.get("transformer.wte.weight", ())
    if not layers or len(table) != 2:
        raise IntegrityError(f"missing {GPT_PREFIX}transformer: no world model in state_dict")
    for what, stated, seen in (
        ("version 1", version == 1, "transformer.h.0.ln_1.weight" in shapes),
        ("bias", bias, "transformer.h.0.attn.c_attn.bias" in shapes),
    ):
        if stated != seen:
            raise IntegrityError(
                f"world model: by its hyper-parameters {what} is {stated}, by its tensors {seen}"
            )
    width = table[1]
    return GPTSpec(
        n_layer=layers,
        n_head=_heads(model, layers, width, n_head),
        n_embd=width,
        positions=_integer(model, "seq_len") * (tokenizer.tokens + ACTION_SIZE),
        image_tokens=tokenizer.tokens,
        image_vocab=tokenizer.vocab_size,
        version=version,
        bias=bias,
    )


def _heads(model: dict[str, object], layers: int, width: int, n_head: int | None) -> int:
    """The number of attention heads.

    It is known from the name of the size, from `gpt_config`, or from a published size with the same
    layers and width; else it is `n_head`.
    """
    size_name = model.get("model_size")
    stated = _SIZES.get(size_name) if isinstance(size_name, str) else None
    if stated is None and "gpt_config" in model:
        spelled = _dict(model, "gpt_config")
        stated = _Size(*(_integer(spelled, name) for name in ("n_layer", "n_head", "n_embd")))
    if stated is not None and (stated.layers, stated.width) != (layers, width):
        raise IntegrityError(
            f"model_size {_text(size_name)} means {stated.layers} layers of width "
            f"{stated.width}, but the tensors have {layers} layers of width {width}"
        )
    if stated is None:
        alike = [s for s in _SIZES.values() if (s.layers, s.width) == (layers, width)]
        stated = alike[0] if alike else None
    if stated is None and n_head is None:
        raise UsageError(
            f"the number of attention heads is not in the file: model_size {_text(size_name)}, "
            f"{layers} layers of width {width}, is not a published size. Give it with --n-head N."
        )
    if stated is not None and n_head not in (None, stated.heads):
        raise UsageError(f"--n-head is {n_head}, but the model has {stated.heads} attention heads")
    return stated.heads if stated is not None else n_head or 0


def _image_config(tokenizer: _Arguments) -> ImageConfig:
    match tokenizer.class_name:
        case "VQGANModel":
            return _vit_config(tokenizer.given)
        case "TamingVQModel":
            return _taming_config(tokenizer.given)
        case other:
            raise IntegrityError(f"images is {_text(other)}, expected VQGANModel or TamingVQModel")


def _vit_config(given: dict[str, object]) -> ViTConfig:
    """Either `variant` holds the sizes and the model, or `model_spec` does; both may be there."""
    variant = _dict(given, "variant") if given.get("variant") is not None else None
    model = (
        _dict(given, "model_spec")
        if variant is None or given.get("model_spec") is not None
        else _dict(variant, "model_spec")
    )
    image = model if variant is None else variant
    return ViTConfig(
        image_width=_integer(image, "image_size_per_x_axis"),
        image_height=_integer(image, "image_size_per_y_axis"),
        patch_size=_integer(model, "patch_size"),
        transf_dim=_integer(model, "transf_dim"),
        embedding_dim=_integer(model, "embedding_dim"),
        num_layers=_integer(model, "num_layers"),
        head_size=_integer(model, "head_size"),
        vocab_size=_integer(model, "vocab_size"),
    )


def _taming_config(given: dict[str, object]) -> TamingConfig:
    model = _dict(given, "model_spec")
    layers = _dict(model, "taming_ddconfig")
    if _flag(layers, "double_z", False):
        raise IntegrityError("tokenizer config: double_z is true, expected false")
    for name in ("in_channels", "out_ch"):
        if (channels := _integer(layers, name)) != 3:
            raise IntegrityError(f"tokenizer config: {name} is {channels}, expected 3 (RGB)")
    config = TamingConfig(
        resolution=_integer(layers, "resolution"),
        channels=_integer(layers, "ch"),
        multipliers=_integers(layers, "ch_mult"),
        res_blocks=_integer(layers, "num_res_blocks"),
        attention_at=_integers(layers, "attn_resolutions"),
        latent_channels=_integer(layers, "z_channels"),
        embedding_dim=_integer(model, "taming_embed_dim"),
        vocab_size=_integer(model, "taming_n_embed"),
        resample_with_conv=_flag(layers, "resamp_with_conv", True),
    )
    if (side := _integer(model, "taming_num_indices_per_axis")) != config.grid[0]:
        raise IntegrityError(
            f"tokenizer config: {side} tokens per axis, but its levels give {config.grid[0]}"
        )
    return config


def _arguments(value: object, where: str) -> _Arguments:
    """The class and arguments in a LightningModuleCreationArgs object.

    Raises:
        IntegrityError: it is another object, or it refers to a second file.
    """
    if not isinstance(value, Inert) or not isinstance(value.state, dict):
        raise IntegrityError(f"{where} is {_kind(value)}, expected LightningModuleCreationArgs")
    if value.name.last != "LightningModuleCreationArgs":
        raise IntegrityError(f"{where} is {value}, expected LightningModuleCreationArgs")
    class_ = value.state.get("pl_class")
    if not isinstance(class_, Name):
        raise IntegrityError(f"{where}: pl_class is {_kind(class_)}, expected a class")
    given = _dict(value.state, "pl_kwargs")
    for name, place in (("pl_checkpoint_path", value.state), ("ckpt_path", given)):
        if (path := place.get(name)) not in (None, "None"):
            raise IntegrityError(
                f"refused: {where} has {name} {_text(path)}, a reference to a second file. "
                "Save the whole model in one file."
            )
    return _Arguments(class_.last, given)


def _dict(parent: object, name: str) -> dict[str, object]:
    """The dict, or subclass of dict, under a name; for "hyper_parameters" `parent` itself."""
    value = parent if name == "hyper_parameters" else _item(parent, name)
    if isinstance(value, Inert) and value.entries:
        value = value.entries
    if not isinstance(value, dict):
        raise IntegrityError(
            f"{name} is {_kind(value)}, expected a plain dict. Convert it with "
            "`vars()` or `dict()` before you save the checkpoint."
        )
    return {key: part for key, part in value.items() if isinstance(key, str)}


def _item(parent: object, name: str) -> object:
    if not isinstance(parent, dict) or name not in parent:
        found = _listed(parent) if isinstance(parent, dict) else _kind(parent)
        raise IntegrityError(
            f"hyper_parameters: missing {name}, expected as in a WHAM checkpoint (found: {found})"
        )
    return parent[name]


def _integer(parent: dict[str, object], name: str, default: int | None = None) -> int:
    value = parent.get(name, default)
    if isinstance(value, Inert):
        value = _numpy_integer(value)
    if type(value) is not int:
        raise IntegrityError(f"hyper_parameters: {name} is {_kind(value)}, expected an integer")
    return value


def _integers(parent: dict[str, object], name: str) -> tuple[int, ...]:
    value = parent.get(name)
    items = value.items if isinstance(value, Inert) else value
    if not isinstance(items, list | tuple) or not all(type(item) is int for item in items):
        raise IntegrityError(f"hyper_parameters: {name} is {_kind(value)}, expected integers")
    return tuple(items)


def _flag(parent: dict[str, object], name: str, default: bool) -> bool:
    value = parent.get(name, default)
    if type(value) is not bool:
        raise IntegrityError(f"hyper_parameters: {name} is {_kind(value)}, expected true or false")
    return value


def _numpy_integer(value: Inert) -> int | None:
    """The number in a numpy scalar of some integer type."""
    match value:
        case Inert(
            name=Name(name="scalar"),
            arguments=(Inert(name=Name(name="dtype"), arguments=(str(code), *_)), bytes(raw)),
        ) if code[:1] in "iu" and len(raw) <= 8:
            return int.from_bytes(raw, "little", signed=code[0] == "i")
    return None


def _kind(value: object) -> str:
    """The type of a value, for an error message."""
    if isinstance(value, Inert | Name):
        return str(value)
    return "missing" if value is None else f"a {type(value).__name__}"


def _text(value: object) -> str:
    shown = repr(value) if isinstance(value, str) else _kind(value)
    return shown if len(shown) <= 80 else shown[:80] + "..."


def _listed(names: Collection[object]) -> str:
    shown = [_text(name) for name in list(names)[:4]]
    return ", ".join(shown) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
