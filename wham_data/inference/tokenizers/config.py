"""The configuration of a tokenizer: of one family, or a pair, one to encode and one to decode.

No torch here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.tokenizers.taming_config import TamingConfig
from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.schemas.corpus_info import TokenizerInfo
from wham_data.schemas.errors import IntegrityError

ImageConfig = ViTConfig | TamingConfig
Family = Literal["vit", "taming"]

ARITHMETIC = {"vit": "vit-vqgan arithmetic 1", "taming": "taming-vqgan arithmetic 1"}
"""Part of every fingerprint, per family. Raise the number when the code starts to give other ids.

All of them compute in IEEE float32 (`inference/device/arithmetic.py`). A faster arithmetic gets its own name here."""


@dataclass(frozen=True, slots=True)
class TokenizerConfig:
    """The tokenizer that encodes; in a pair, also the tokenizer that decodes.

    Both of a pair are complete, each with its own codebook. Id i means row i of both.

    Raises:
        IntegrityError: the two differ in tokens, vocabulary or frame size.
    """

    encoder: ImageConfig
    decoder: ImageConfig | None = None

    def __post_init__(self) -> None:
        if self.decoder is not None and _sizes(self.decoder) != _sizes(self.encoder):
            raise IntegrityError(
                f"tokenizer config: {_sizes(self.encoder)} to encode with and "
                f"{_sizes(self.decoder)} to decode, expected the same (grid, vocabulary, frame)"
            )

    @property
    def family(self) -> Family:
        """Family of the encoder."""
        return "vit" if isinstance(self.encoder, ViTConfig) else "taming"

    @property
    def tokens(self) -> int:
        """Tokens per frame, N."""
        return self.encoder.tokens

    @property
    def vocab_size(self) -> int:
        """Number of different ids, V; ids are in [0, V)."""
        return self.encoder.vocab_size

    def parts(self) -> dict[str, ImageConfig]:
        """Each tokenizer by the prefix of its tensors: "" for a single one, "0." and "1." for a pair."""
        if self.decoder is None:
            return {"": self.encoder}
        return {"0.": self.encoder, "1.": self.decoder}

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the tokenizer or the pair."""
        return {
            prefix + name: shape
            for prefix, config in self.parts().items()
            for name, shape in config.tensor_shapes().items()
        }

    def to_mapping(self) -> dict[str, object]:
        """What `from_mapping` reads: one mapping, or two under `encoder` and `decoder`."""
        if self.decoder is None:
            return _mapping(self.encoder)
        return {"encoder": _mapping(self.encoder), "decoder": _mapping(self.decoder)}

    def to_json(self) -> str:
        """The canonical text of the configuration."""
        return json.dumps(self.to_mapping(), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_mapping(cls, values: Mapping[str, object], where: Path) -> TokenizerConfig:
        """The configuration in a parsed `config.json`.

        Raises:
            IntegrityError: an unknown family, keys missing or unknown, or a value out of bounds.
        """
        if "family" in values:
            return cls(_image_config(values, where))
        if set(values) != {"encoder", "decoder"}:
            raise IntegrityError(f"{where}: tokenizer: no family, nor an encoder and a decoder")
        return cls(_image_config(values["encoder"], where), _image_config(values["decoder"], where))

    def info(self, name: str, fingerprint: str) -> TokenizerInfo:
        """What a corpus records about its tokenizer."""
        return TokenizerInfo(
            name=name,
            fingerprint=fingerprint,
            grid=self.encoder.grid,
            vocab_size=self.vocab_size,
            frame_size=(self.encoder.image_width, self.encoder.image_height),
        )


class Fingerprint:
    """SHA-256 over arithmetic, configuration and weights. Add the weights in order of their names.

    A checkpoint and the folder converted from it have the same fingerprint.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        arithmetic = {
            ARITHMETIC["vit" if isinstance(part, ViTConfig) else "taming"]
            for part in config.parts().values()
        }
        text = "\n".join([*sorted(arithmetic), config.to_json()])
        self._digest = hashlib.sha256(text.encode())

    def add(self, name: str, values: NDArray[np.floating]) -> None:
        """Add the next tensor."""
        self._digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        self._digest.update(np.ascontiguousarray(values).data)

    def hex(self) -> str:
        """The fingerprint of all that was added, 64 hexadecimal digits."""
        return self._digest.hexdigest()


def _image_config(values: object, where: Path) -> ImageConfig:
    if not isinstance(values, dict):
        raise IntegrityError(f"{where}: tokenizer: {type(values).__name__}, expected an object")
    match values.get("family"):
        case ViTConfig.FAMILY:
            return ViTConfig.from_mapping(values, where)
        case TamingConfig.FAMILY:
            return TamingConfig.from_mapping(values, where)
        case other:
            raise IntegrityError(
                f"{where}: tokenizer family {other!r}, expected {ViTConfig.FAMILY!r} or "
                f"{TamingConfig.FAMILY!r}"
            )


def _mapping(config: ImageConfig) -> dict[str, object]:
    values: dict[str, object] = json.loads(config.to_json())
    return values


def _sizes(config: ImageConfig) -> tuple[object, ...]:
    return config.grid, config.vocab_size, (config.image_width, config.image_height)
