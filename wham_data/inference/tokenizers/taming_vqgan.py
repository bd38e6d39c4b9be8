"""The Taming VQGAN image tokenizer: a convolutional encoder and decoder around a codebook.

A square frame goes through levels of residual blocks, each level at half the size of the one before,
down to one vector per token, which becomes the id of the nearest codebook row (by distance, not
direction). The decoder goes the same way up. Tensors carry the names of WHAM's own checkpoints, and
the arithmetic follows theirs step by step, so that their weights run here and give the same ids.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from wham_data.inference.tokenizers.taming_config import NORM_GROUPS, TamingConfig

GREY = 127.5
"""Half the range of a pixel: pixels 0..255 are -1..1 inside."""


def group_norm(width: int) -> nn.GroupNorm:
    """The norm that is used everywhere."""
    return nn.GroupNorm(NORM_GROUPS, width, eps=1e-6)


class ResBlock(nn.Module):
    """Two convolutions, added to the input."""

    def __init__(self, into: int, width: int) -> None:
        super().__init__()
        self.norm1 = group_norm(into)
        self.conv1 = nn.Conv2d(into, width, 3, padding=1)
        self.norm2 = group_norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.nin_shortcut = nn.Conv2d(into, width, 1) if into != width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """float [B, into, h, w] to [B, width, h, w]."""
        change = self.conv1(functional.silu(self.norm1(x)))
        change = self.conv2(functional.silu(self.norm2(change)))
        out: Tensor = self.nin_shortcut(x) + change
        return out


class Attention(nn.Module):
    """Every place attends to every place, with one head as wide as the image is deep."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = group_norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, width, h, w] to the same shape."""
        normed = self.norm(x)
        query, key, value = (
            part(normed).flatten(2).transpose(1, 2).unsqueeze(1)
            for part in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = x + self.proj_out(mixed.squeeze(1).transpose(1, 2).reshape(x.shape))
        return out


class Halve(nn.Module):
    """Half the resolution: by a convolution with stride 2, or by the mean of four."""

    def __init__(self, width: int, with_conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2) if with_conv else None

    def forward(self, x: Tensor) -> Tensor:
        """float [B, width, h, w] to [B, width, h/2, w/2]."""
        if self.conv is None:
            return functional.avg_pool2d(x, 2)
        out: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))  # on the right and below alone
        return out


class Double(nn.Module):
    """Twice the resolution: every value four times, then a convolution if there is one."""

    def __init__(self, width: int, with_conv: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1) if with_conv else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """float [B, width, h, w] to [B, width, 2 h, 2 w]."""
        out: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return out


class Level(nn.Module):
    """Residual blocks at one resolution, each followed by attention if the level has any."""

    def __init__(self, into: int, width: int, blocks: int, has_attention: bool) -> None:
        super().__init__()
        widths = [into] + [width] * (blocks - 1)
        self.block = nn.ModuleList(ResBlock(each, width) for each in widths)
        self.attn = nn.ModuleList(Attention(width) for _ in range(blocks * has_attention))

    def forward(self, x: Tensor) -> Tensor:
        """float [B, into, h, w] to [B, width, h, w]."""
        for index, block in enumerate(self.block):
            x = block(x)
            if self.attn:
                x = self.attn[index](x)
        return x


class DownLevel(Level):
    """A level of the encoder; `downsample` leads to the next."""

    def __init__(self, config: TamingConfig, index: int, into: int) -> None:
        width = config.widths[index]
        super().__init__(into, width, config.res_blocks, config.has_attention(index))
        last = index == config.levels - 1
        self.downsample = nn.Identity() if last else Halve(width, config.resample_with_conv)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, into, h, w] to [B, width, h/2, w/2], or to the same size at the end."""
        out: Tensor = self.downsample(super().forward(x))
        return out


class UpLevel(Level):
    """A level of the decoder, with one block more; `upsample` leads to the next."""

    def __init__(self, config: TamingConfig, index: int, into: int) -> None:
        width = config.widths[index]
        super().__init__(into, width, config.res_blocks + 1, config.has_attention(index))
        self.upsample = Double(width, config.resample_with_conv) if index else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """float [B, into, h, w] to [B, width, 2 h, 2 w], or to the same size at the end."""
        out: Tensor = self.upsample(super().forward(x))
        return out


class Middle(nn.Module):
    """Block, attention, block at the lowest resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = ResBlock(width, width)
        self.attn_1 = Attention(width)
        self.block_2 = ResBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, width, h, w] to the same shape."""
        out: Tensor = self.block_2(self.attn_1(self.block_1(x)))
        return out


class Encoder(nn.Module):
    """Image to latents."""

    def __init__(self, config: TamingConfig) -> None:
        super().__init__()
        widths = (config.channels, *config.widths)
        self.conv_in = nn.Conv2d(3, widths[0], 3, padding=1)
        self.down = nn.Sequential(
            *(DownLevel(config, index, widths[index]) for index in range(config.levels))
        )
        self.mid = Middle(widths[-1])
        self.norm_out = group_norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, 3, R, R] to [B, z, n, n]."""
        x = self.mid(self.down(self.conv_in(x)))
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return out


class Decoder(nn.Module):
    """Latents to image. `up` counts from the highest resolution, and runs from its end."""

    def __init__(self, config: TamingConfig) -> None:
        super().__init__()
        widths = (*config.widths, config.widths[-1])
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            UpLevel(config, index, widths[index + 1]) for index in range(config.levels)
        )
        self.norm_out = group_norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, z, n, n] to [B, 3, R, R]."""
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        out: Tensor = self.conv_out(functional.silu(self.norm_out(x)))
        return out


class Codebook(nn.Module):
    """V rows of c values, as they are."""

    def __init__(self, vocab_size: int, embedding_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim)

    def rows(self) -> Tensor:
        """float [V, c]."""
        return self.embedding.weight

    def set_rows(self, rows: Tensor) -> None:
        """Put other rows in place of these, float [V, c]."""
        self.embedding.weight.data.copy_(rows)

    def nearest(self, latents: Tensor) -> Tensor:
        """The nearest row's id for each vector, float [..., c] to int64 [...]; the first on ties."""
        rows = self.rows()
        row_squares, columns = rows.square().sum(1), rows.t()
        ids = []
        for part in torch.split(latents.reshape(-1, latents.shape[-1]), 1024):
            distance = part.square().sum(1, keepdim=True) + row_squares
            distance -= torch.matmul(part, columns).mul_(2)
            ids.append(distance.argmin(1))
        return torch.cat(ids).view(latents.shape[:-1])


class TamingVQGAN(nn.Module):
    """The whole tokenizer as a torch module."""

    spherical = False
    """Codebook rows are points, not directions."""

    def __init__(self, config: TamingConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quantize = Codebook(config.vocab_size, config.embedding_dim)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.embedding_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embedding_dim, config.latent_channels, 1)

    @property
    def codebook(self) -> Codebook:
        """The rows that ids stand for."""
        return self.quantize

    def prepared(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, h, w, 3] as the image float [B, 3, h, w] that is encoded and decoded."""
        return frames.permute(0, 3, 1, 2).to(torch.float32) / GREY - 1

    def latents_of(self, image: Tensor, places: Tensor) -> Tensor:  # noqa: ARG002
        """An image or a crop of one, float [B, 3, h, w], to a vector per token, float [B, n, c].

        `places` is for families that know where a token is; this one does not.
        """
        vectors: Tensor = self.quant_conv(self.encoder(image))
        return vectors.flatten(2).transpose(1, 2)

    def image_of(self, codes: Tensor, places: Tensor, grid: tuple[int, int]) -> Tensor:  # noqa: ARG002
        """Codebook rows float [B, n, c] over a grid of tokens to an image or crop [B, 3, h, w]."""
        vectors = codes.transpose(1, 2).reshape(len(codes), -1, *grid)
        decoded: Tensor = self.decoder(self.post_quant_conv(vectors))
        return decoded

    def ids(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, R, R, 3] to token ids int64 [B, N]."""
        places = torch.arange(self.config.tokens, device=frames.device)
        return self.quantize.nearest(self.latents_of(self.prepared(frames), places))

    def frames(self, ids: Tensor) -> Tensor:
        """Token ids int64 [B, N] to frames uint8 [B, R, R, 3]; pixels are cut off, not rounded."""
        places = torch.arange(self.config.tokens, device=ids.device)
        image = self.image_of(self.quantize.rows()[ids], places, self.config.grid).clamp(-1, 1)
        return ((image + 1) * GREY).to(torch.uint8).permute(0, 2, 3, 1)
