"""The ViT-VQGAN image tokenizer: a transformer over patches on either side of a normalised
codebook.

A frame is cut into p x p patches, row-major. The encoder turns each into a vector on the unit
sphere of e dimensions, which becomes the id of the nearest codebook row; the decoder turns the rows
of the ids back into patches. Tensors carry the names of WHAM's own checkpoints, and the arithmetic
follows theirs step by step, so that weights of either origin run here and give the same ids.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wham_data.inference.tokenizers.vit_config import ViTConfig

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Per-channel mean and deviation (RGB in [0, 1]) to which pixels are normalised."""

SMALLEST_NORM = 1e-12


class SelfAttention(nn.Module):
    """Every patch attends to every patch; one projection gives queries, keys and values."""

    def __init__(self, width: int, head_size: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(width, 3 * width, bias=False)
        self.c_proj = nn.Linear(width, width, bias=False)
        self._head_size = head_size

    def forward(self, x: Tensor) -> Tensor:
        """float [B, n, D] to the same shape."""
        batch, tokens, width = x.shape
        query, key, value = (
            part.view(batch, tokens, -1, self._head_size).transpose(1, 2)
            for part in self.c_attn(x).split(width, dim=2)
        )
        if x.is_cpu and query.dtype == torch.bfloat16:
            # Its backward pass is ten times slower than float32's.
            with torch.autocast("cpu", enabled=False):
                mixed = functional.scaled_dot_product_attention(
                    query.float(), key.float(), value.float()
                )
        else:
            mixed = functional.scaled_dot_product_attention(query, key, value)
        merged: Tensor = self.c_proj(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return merged


class MLP(nn.Module):
    """Four times wider inside, GELU in its tanh form."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width, bias=False)
        self.c_proj = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """float [..., D] to the same shape."""
        out: Tensor = self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))
        return out


class Block(nn.Module):
    """Attention, then MLP, each on a normalised copy and added to the stream."""

    def __init__(self, width: int, head_size: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=1e-5, bias=False)
        self.attn = SelfAttention(width, head_size)
        self.ln_2 = nn.LayerNorm(width, eps=1e-5, bias=False)
        self.mlp = MLP(width)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, n, D] to the same shape."""
        x = x + self.attn(self.ln_1(x))
        out: Tensor = x + self.mlp(self.ln_2(x))
        return out


class Side(nn.Module):
    """The encoder or the decoder: in-projection, position table, blocks, norm, out-projection."""

    def __init__(self, config: ViTConfig, inward: int, outward: int) -> None:
        super().__init__()
        width = config.transf_dim
        self.proj1 = nn.Linear(inward, width)
        self.pos_embeds = nn.Embedding(config.tokens, width)
        self.vit = nn.ModuleList(Block(width, config.head_size) for _ in range(config.num_layers))
        self.output_ln = nn.LayerNorm(width, eps=1e-5)
        self.output_proj = nn.Linear(width, outward)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """Vectors float [B, n, inward] to [B, n, outward].

        `places`, int64 [n] or [B, n], are their rows of the position table.
        """
        x = self.proj1(x) + self.pos_embeds(places)
        for block in self.vit:
            x = block(x)
        out: Tensor = self.output_proj(self.output_ln(x))
        return out


class Codebook(nn.Module):
    """V rows of e values, of which only the direction matters."""

    def __init__(self, vocab_size: int, embedding_dim: int) -> None:
        super().__init__()
        self._embedding = nn.Embedding(vocab_size, embedding_dim)

    def rows(self) -> Tensor:
        """The rows on the unit sphere, float [V, e]."""
        return on_sphere(self._embedding.weight)

    def set_rows(self, rows: Tensor) -> None:
        """Put other rows in place of these, float [V, e]."""
        self._embedding.weight.data.copy_(rows)

    def nearest(self, latents: Tensor) -> Tensor:
        """The nearest row's id for each vector, float [..., e] to int64 [...]; the first on ties."""
        codes = self.rows()
        code_squares, columns = codes.square().sum(1), codes.t()
        # On a CPU the distances of 64 vectors stay in the cache: four times faster.
        rows = 64 if latents.is_cpu else 8192
        ids = []
        for part in torch.split(on_sphere(latents.reshape(-1, latents.shape[-1])), rows):
            distance = part.square().sum(1, keepdim=True) + code_squares
            distance -= torch.matmul(part, columns).mul_(2)
            ids.append(distance.min(1).indices)
        return torch.cat(ids).view(latents.shape[:-1])


class ViTVQGAN(nn.Module):
    """The whole tokenizer as a torch module. `frame_tokenizer` serves it on arrays of frames."""

    spherical = True
    """Codebook rows are directions."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Side(config, config.patch_values, config.embedding_dim)
        self.decoder = Side(config, config.embedding_dim, config.patch_values)
        self.vq_vae = Codebook(config.vocab_size, config.embedding_dim)

    @property
    def codebook(self) -> Codebook:
        """The rows that ids stand for."""
        return self.vq_vae

    def prepared(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, h, w, 3] as the image float [B, 3, h, w] that is encoded and decoded.

        Its mean is about zero, its deviation about one.
        """
        image = frames.permute(0, 3, 1, 2).to(torch.float32) / 255
        return (image - _per_channel(MEAN, image)) / _per_channel(STD, image)

    def latents_of(self, image: Tensor, places: Tensor) -> Tensor:
        """An image or a crop of one, float [B, 3, h, w], to a vector on the unit sphere per token,
        float [B, n, e].

        `places`, int64 [n] or [B, n], are the tokens' rows of the position table.
        """
        return on_sphere(self.encoder(to_patches(image, self.config.patch_size), places))

    def image_of(self, codes: Tensor, places: Tensor, grid: tuple[int, int]) -> Tensor:
        """Codebook rows float [B, n, e] over a grid of tokens to an image or crop [B, 3, h, w]."""
        return from_patches(self.decoder(codes, places), grid, self.config.patch_size)

    def ids(self, frames: Tensor) -> Tensor:
        """Whole frames uint8 [B, H, W, 3] to token ids int64 [B, N]."""
        places = torch.arange(self.config.tokens, device=frames.device)
        return self.vq_vae.nearest(self.latents_of(self.prepared(frames), places))

    def frames(self, ids: Tensor) -> Tensor:
        """Token ids int64 [B, N] to frames uint8 [B, H, W, 3]; pixels are cut off, not rounded."""
        places = torch.arange(self.config.tokens, device=ids.device)
        image = self.image_of(self.vq_vae.rows()[ids], places, self.config.grid)
        image = image[:, :, : self.config.image_height, : self.config.image_width]
        pixels = image * _per_channel(STD, image) + _per_channel(MEAN, image)
        return (pixels.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1)


def on_sphere(vectors: Tensor) -> Tensor:
    """Each vector of the last axis divided by its length."""
    return functional.normalize(vectors, dim=-1, eps=SMALLEST_NORM)


def to_patches(image: Tensor, patch: int) -> Tensor:
    """Cut [B, 3, H, W] into [B, n, 3 p^2], row by row.

    The image is first filled up with the mean colour, on the right and below, to whole patches.
    """
    batch, channels, height, width = image.shape
    image = functional.pad(image, (0, -width % patch, 0, -height % patch))
    rows, columns = image.shape[2] // patch, image.shape[3] // patch
    cut = image.view(batch, channels, rows, patch, columns, patch).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(batch, rows * columns, channels * patch * patch)


def from_patches(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """Put [B, n, 3 p^2] back together as [B, 3, rows p, columns p]."""
    rows, columns = grid
    pieces = patches.view(-1, rows, columns, 3, patch, patch).permute(0, 3, 1, 4, 2, 5)
    return pieces.reshape(-1, 3, rows * patch, columns * patch)


def _per_channel(values: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(1, 3, 1, 1)
