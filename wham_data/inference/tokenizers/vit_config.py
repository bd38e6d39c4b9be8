"""The configuration of a ViT-VQGAN tokenizer and the tensors that follow from it. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from wham_data.inference.tokenizers.config_file import MOST_TOKENS, FamilyConfig, wrong_config


@dataclass(frozen=True, slots=True)
class ViTConfig(FamilyConfig):
    """A ViT-VQGAN: the image, its patches, and equal transformers on either side of the codebook.

    image_width, image_height   pixels; padded on the right and at the bottom to whole patches
    patch_size                  p, pixels; one token stands for p x p pixels
    transf_dim                  D, width of the transformers
    embedding_dim               e, width of a codebook row
    num_layers                  blocks in the encoder, and again in the decoder
    head_size                   width of one attention head; divides D
    vocab_size                  V, rows of the codebook

    Raises:
        IntegrityError: a value is not a positive integer, is larger than in any tokenizer, or does
            not fit the others.
    """

    FAMILY: ClassVar = "vit-vqgan"
    LARGEST: ClassVar = {
        "image_width": 4096,
        "image_height": 4096,
        "patch_size": 64,
        "transf_dim": 4096,
        "embedding_dim": 1024,
        "num_layers": 64,
        "head_size": 1024,
        "vocab_size": 65536,  # ids must fit uint16
    }

    image_width: int
    image_height: int
    patch_size: int
    transf_dim: int
    embedding_dim: int
    num_layers: int
    head_size: int
    vocab_size: int

    def __post_init__(self) -> None:
        self.check_integers()
        if self.transf_dim % self.head_size:
            raise wrong_config(
                f"head_size {self.head_size} does not divide transf_dim {self.transf_dim}"
            )
        if self.tokens > MOST_TOKENS:
            raise wrong_config(f"{self.tokens} tokens per frame, expected at most {MOST_TOKENS}")

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return -(-self.image_height // self.patch_size), -(-self.image_width // self.patch_size)

    @property
    def patch_values(self) -> int:
        """Values of one patch: 3 p^2, in the order channel, y, x."""
        return 3 * self.patch_size**2

    def tensor_shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the tokenizer, by its name in WHAM's checkpoints after the prefix."""
        width, code = self.transf_dim, self.embedding_dim
        shapes: dict[str, tuple[int, ...]] = {"vq_vae._embedding.weight": (self.vocab_size, code)}
        for side, inward, outward in (
            ("encoder", self.patch_values, code),
            ("decoder", code, self.patch_values),
        ):
            shapes[f"{side}.proj1.weight"] = (width, inward)
            shapes[f"{side}.proj1.bias"] = (width,)
            shapes[f"{side}.pos_embeds.weight"] = (self.tokens, width)
            for layer in range(self.num_layers):
                block = f"{side}.vit.{layer}"
                shapes[f"{block}.ln_1.weight"] = (width,)
                shapes[f"{block}.attn.c_attn.weight"] = (3 * width, width)
                shapes[f"{block}.attn.c_proj.weight"] = (width, width)
                shapes[f"{block}.ln_2.weight"] = (width,)
                shapes[f"{block}.mlp.c_fc.weight"] = (4 * width, width)
                shapes[f"{block}.mlp.c_proj.weight"] = (width, 4 * width)
            shapes[f"{side}.output_ln.weight"] = (width,)
            shapes[f"{side}.output_ln.bias"] = (width,)
            shapes[f"{side}.output_proj.weight"] = (outward, width)
            shapes[f"{side}.output_proj.bias"] = (outward,)
        return shapes
