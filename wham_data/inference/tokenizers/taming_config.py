"""The configuration of a Taming VQGAN tokenizer and the tensors that follow from it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wham_data.inference.tokenizers.config_file import MOST_TOKENS, FamilyConfig, wrong_config

NORM_GROUPS = 32
"""Every width is a multiple of this."""

_MOST_LEVELS = 9
_WIDEST = 8192


@dataclass(frozen=True, slots=True)
class TamingConfig(FamilyConfig):
    """A convolutional VQGAN over square images: levels of residual blocks, each half the size.

    resolution            R, pixels a side
    channels              width of the first convolution
    multipliers           per level, its width in units of `channels`; level i has R / 2^i pixels
    res_blocks            per level of the encoder; the decoder has one more
    attention_at          the resolutions whose blocks are each followed by attention
    latent_channels       z, out of the encoder and into the decoder
    embedding_dim         c, width of a codebook row
    vocab_size            V, rows of the codebook
    resample_with_conv    whether a convolution goes with each change of resolution

    Raises:
        IntegrityError: a value is of another type, larger than in any tokenizer, or does not fit
            the others.
    """

    FAMILY: ClassVar = "taming-vqgan"
    LARGEST: ClassVar = {
        "resolution": 1024,
        "channels": 1024,
        "res_blocks": 16,
        "latent_channels": 4096,
        "embedding_dim": 4096,
        "vocab_size": 65536,  # ids must fit uint16
    }
    TUPLES: ClassVar = ("multipliers", "attention_at")

    resolution: int
    channels: int
    multipliers: tuple[int, ...]
    res_blocks: int
    attention_at: tuple[int, ...]
    latent_channels: int
    embedding_dim: int
    vocab_size: int
    resample_with_conv: bool = True

    def __post_init__(self) -> None:
        self.check_integers()
        for name in self.TUPLES:
            values = getattr(self, name)
            whole = type(values) is tuple and all(type(n) is int and n > 0 for n in values)
            if not whole or len(values) > _MOST_LEVELS:
                raise wrong_config(
                    f"{name} is {values!r}, expected up to {_MOST_LEVELS} positive integers"
                )
        if type(self.resample_with_conv) is not bool:
            raise wrong_config(
                f"resample_with_conv is {self.resample_with_conv!r}, expected true or false"
            )
        if not self.multipliers:
            raise wrong_config("no level")
        widths = (self.channels, *self.widths)
        if any(width % NORM_GROUPS or width > _WIDEST for width in widths):
            raise wrong_config(
                f"widths {widths}, expected multiples of {NORM_GROUPS} up to {_WIDEST}"
            )
        if self.resolution % self.patch_size:
            raise wrong_config(f"{self.resolution} pixels can't be halved {self.levels - 1} times")
        attended = [self.resolution >> i for i in range(self.levels) if self.has_attention(i)]
        if max(self.tokens, *(side * side for side in attended), 0) > MOST_TOKENS:
            raise wrong_config(
                f"{self.tokens} tokens per frame and attention at {attended}: too many"
            )

    @property
    def image_width(self) -> int:
        """Pixels."""
        return self.resolution

    @property
    def image_height(self) -> int:
        """Pixels."""
        return self.resolution

    @property
    def patch_size(self) -> int:
        """Pixels a side that one token stands for, though it sees more."""
        return int(2 ** (self.levels - 1))

    @property
    def levels(self) -> int:
        """Number of resolutions."""
        return len(self.multipliers)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tokens: the last level's pixels."""
        side = self.resolution // self.patch_size
        return side, side

    def has_attention(self, level: int) -> bool:
        """Whether the blocks of a level are each followed by attention."""
        return self.resolution >> level in self.attention_at

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the tokenizer, by its name in WHAM's checkpoints after the prefix."""
        first, last, latent = self.widths[0], self.widths[-1], self.latent_channels
        shapes = {
            "quantize.embedding.weight": (self.vocab_size, self.embedding_dim),
            **_conv("quant_conv", latent, self.embedding_dim, 1),
            **_conv("post_quant_conv", self.embedding_dim, latent, 1),
            **_conv("encoder.conv_in", 3, self.channels, 3),
            **_middle("encoder.mid", last),
            **_norm("encoder.norm_out", last),
            **_conv("encoder.conv_out", last, latent, 3),
            **_conv("decoder.conv_in", latent, last, 3),
            **_middle("decoder.mid", last),
            **_norm("decoder.norm_out", first),
            **_conv("decoder.conv_out", first, 3, 3),
        }
        width = self.channels
        for level in range(self.levels):
            below = f"encoder.down.{level}"
            shapes |= self._level(below, level, width, self.res_blocks)
            width = self.widths[level]
            if self.resample_with_conv and level < self.levels - 1:
                shapes |= _conv(f"{below}.downsample.conv", width, width, 3)
        for level in reversed(range(self.levels)):
            above = f"decoder.up.{level}"
            shapes |= self._level(above, level, width, self.res_blocks + 1)
            width = self.widths[level]
            if self.resample_with_conv and level > 0:
                shapes |= _conv(f"{above}.upsample.conv", width, width, 3)
        return shapes

    def _level(self, name: str, level: int, into: int, blocks: int) -> dict[str, tuple[int, ...]]:
        width = self.widths[level]
        shapes: dict[str, tuple[int, ...]] = {}
        for block in range(blocks):
            shapes |= _res_block(f"{name}.block.{block}", into, width)
            if self.has_attention(level):
                shapes |= _attention(f"{name}.attn.{block}", width)
            into = width
        return shapes


def _conv(name: str, into: int, out: int, size: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, into, size, size), f"{name}.bias": (out,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _res_block(name: str, into: int, width: int) -> dict[str, tuple[int, ...]]:
    shapes = {
        **_norm(f"{name}.norm1", into),
        **_conv(f"{name}.conv1", into, width, 3),
        **_norm(f"{name}.norm2", width),
        **_conv(f"{name}.conv2", width, width, 3),
    }
    return shapes | _conv(f"{name}.nin_shortcut", into, width, 1) if into != width else shapes


def _attention(name: str, width: int) -> dict[str, tuple[int, ...]]:
    shapes = _norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
        shapes |= _conv(f"{name}.{part}", width, width, 1)
    return shapes


def _middle(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {
        **_res_block(f"{name}.block_1", width, width),
        **_attention(f"{name}.attn_1", width),
        **_res_block(f"{name}.block_2", width, width),
    }
