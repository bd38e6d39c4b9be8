"""The shape of a world model and its tensors. This module does not use torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from wham_data.schemas.errors import IntegrityError
from wham_data.schemas.wham_tokens import ACTION_SIZE, ACTION_VOCAB

_LARGEST = {
    "n_layer": 256,
    "n_head": 256,
    "n_embd": 16384,
    "positions": 1 << 18,
    "image_tokens": 16384,
    "image_vocab": 65536,
}
"""A configuration with a larger value is damaged or hostile. Image ids must fit uint16."""


@dataclass(frozen=True, slots=True)
class GPTSpec:
    """A causal transformer over steps of image tokens followed by action tokens.

    n_layer, n_head, n_embd   L blocks of h heads, d wide; h divides d
    positions                 rows of the position table: S whole steps
    image_tokens              N, image tokens of a step; its 16 action tokens follow them
    image_vocab               V; image ids are 0..V-1, the 68 action ids follow
    version                   1, or 2: no weights in the norms of the blocks, only in the last one
    bias                      whether projections (and, in version 1, norms) carry a bias

    Raises:
        IntegrityError: a value is of another type, out of bounds, or does not fit the others.
    """

    n_layer: int
    n_head: int
    n_embd: int
    positions: int
    image_tokens: int
    image_vocab: int
    version: int = 1
    bias: bool = True

    def __post_init__(self) -> None:
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if type(value) is not int or not 1 <= value <= largest:
                raise IntegrityError(
                    f"world model config: {name} is {value!r}, expected an integer in 1..{largest}"
                )
        if self.version not in (1, 2) or type(self.version) is not int:
            raise IntegrityError(f"world model config: version {self.version!r}, expected 1 or 2")
        if type(self.bias) is not bool:
            raise IntegrityError(f"world model config: bias {self.bias!r}, expected true or false")
        if self.n_embd % self.n_head:
            raise IntegrityError(
                f"world model config: {self.n_head} heads do not divide a width of {self.n_embd}"
            )
        if self.positions % self.tokens_per_step:
            raise IntegrityError(
                f"world model config: {self.positions} positions are no whole number of steps of "
                f"{self.tokens_per_step} tokens"
            )

    @property
    def tokens_per_step(self) -> int:
        """P = N + 16."""
        return self.image_tokens + ACTION_SIZE

    @property
    def steps(self) -> int:
        """S, the steps that the position table holds. A prediction needs one of them for itself."""
        return self.positions // self.tokens_per_step

    @property
    def vocabulary(self) -> int:
        """V + 68 ids."""
        return self.image_vocab + ACTION_VOCAB

    @property
    def head_size(self) -> int:
        """Width of one attention head."""
        return self.n_embd // self.n_head

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the model, by its name in WHAM's checkpoints after the prefix.

        `lm_head.weight` stands for `transformer.wte.weight` too: the two are one matrix.
        """
        width = self.n_embd
        shapes: dict[str, tuple[int, ...]] = {
            "transformer.wpe.weight": (self.positions, width),
            "lm_head.weight": (self.vocabulary, width),
            "transformer.ln_f.weight": (width,),
        }
        if self.bias:
            shapes["transformer.ln_f.bias"] = (width,)
        for layer in range(self.n_layer):
            block = f"transformer.h.{layer}"
            if self.version == 1:
                for norm in ("ln_1", "ln_2"):
                    shapes[f"{block}.{norm}.weight"] = (width,)
                    if self.bias:
                        shapes[f"{block}.{norm}.bias"] = (width,)
            for name, out, into in (
                ("attn.c_attn", 3 * width, width),
                ("attn.c_proj", width, width),
                ("mlp.c_fc", 4 * width, width),
                ("mlp.c_proj", width, 4 * width),
            ):
                shapes[f"{block}.{name}.weight"] = (out, into)
                if self.bias:
                    shapes[f"{block}.{name}.bias"] = (out,)
        return shapes

    def to_mapping(self) -> dict[str, int | bool]:
        """The values in the form that `from_mapping` reads."""
        return asdict(self)

    @classmethod
    def from_mapping(cls, values: Mapping[str, object], where: Path) -> GPTSpec:
        """The specification in a parsed `config.json`.

        Raises:
            IntegrityError: a key missing or unknown, or a value out of bounds.
        """
        names = {field.name for field in fields(cls)}
        if set(values) != names:
            raise IntegrityError(
                f"{where}: world model: keys missing: {sorted(names - set(values))}, "
                f"unknown: {sorted(set(values) - names)}"
            )
        return cls(**dict(values))  # type: ignore[arg-type]  # checked when built
