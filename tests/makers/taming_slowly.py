"""The Taming VQGAN once more: from its description, in float64, without torch, one sum at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wham_data.inference.tokenizers.taming_config import TamingConfig

Array = NDArray[np.float64]


class SlowTaming:
    """Encodes one frame and decodes one row of ids."""

    def __init__(self, config: TamingConfig, weights: dict[str, NDArray[np.float32]]) -> None:
        self.config = config
        self.weights = {name: values.astype(np.float64) for name, values in weights.items()}

    def encode(self, frame: NDArray[np.uint8]) -> NDArray[np.int64]:
        """uint8 [R, R, 3] to ids [N]."""
        vectors = self.latents(frame).reshape(self.config.embedding_dim, -1).T
        book = self.weights["quantize.embedding.weight"]
        distances = np.square(vectors[:, None, :] - book[None]).sum(2)
        return distances.argmin(1)

    def latents(self, frame: NDArray[np.uint8]) -> Array:
        """uint8 [R, R, 3] to [c, n, n]."""
        config = self.config
        x = self.conv("encoder.conv_in", frame.transpose(2, 0, 1) / 127.5 - 1, 1)
        for level in range(config.levels):
            name = f"encoder.down.{level}"
            x = self.level(name, x, config.res_blocks)
            if level < config.levels - 1:
                x = self.halve(f"{name}.downsample.conv", x)
        x = self.middle("encoder.mid", x)
        x = self.conv("encoder.conv_out", swish(self.norm("encoder.norm_out", x)), 1)
        return self.conv("quant_conv", x, 0)

    def decode(self, ids: NDArray[np.integer]) -> Array:
        """Ids [N] to pixels [R, R, 3] in 0..255, not yet cut off to whole numbers."""
        config = self.config
        rows = self.weights["quantize.embedding.weight"][ids]
        x = self.conv("post_quant_conv", rows.T.reshape(-1, *config.grid), 0)
        x = self.middle("decoder.mid", self.conv("decoder.conv_in", x, 1))
        for level in reversed(range(config.levels)):
            name = f"decoder.up.{level}"
            x = self.level(name, x, config.res_blocks + 1)
            if level:
                x = x.repeat(2, axis=1).repeat(2, axis=2)
                if config.resample_with_conv:
                    x = self.conv(f"{name}.upsample.conv", x, 1)
        x = self.conv("decoder.conv_out", swish(self.norm("decoder.norm_out", x)), 1)
        return ((x.clip(-1, 1) + 1) * 127.5).transpose(1, 2, 0)

    def level(self, name: str, x: Array, blocks: int) -> Array:
        for block in range(blocks):
            x = self.res_block(f"{name}.block.{block}", x)
            if f"{name}.attn.{block}.q.weight" in self.weights:
                x = self.attention(f"{name}.attn.{block}", x)
        return x

    def middle(self, name: str, x: Array) -> Array:
        x = self.attention(f"{name}.attn_1", self.res_block(f"{name}.block_1", x))
        return self.res_block(f"{name}.block_2", x)

    def res_block(self, name: str, x: Array) -> Array:
        change = self.conv(f"{name}.conv1", swish(self.norm(f"{name}.norm1", x)), 1)
        change = self.conv(f"{name}.conv2", swish(self.norm(f"{name}.norm2", change)), 1)
        if f"{name}.nin_shortcut.weight" in self.weights:
            x = self.conv(f"{name}.nin_shortcut", x, 0)
        return x + change

    def attention(self, name: str, x: Array) -> Array:
        width = len(x)
        normed = self.norm(f"{name}.norm", x)
        query, key, value = (
            self.conv(f"{name}.{part}", normed, 0).reshape(width, -1) for part in "qkv"
        )
        scores = query.T @ key / np.sqrt(width)
        shares = np.exp(scores - scores.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        return x + self.conv(f"{name}.proj_out", (value @ shares.T).reshape(x.shape), 0)

    def halve(self, name: str, x: Array) -> Array:
        if not self.config.resample_with_conv:
            return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
        return self.correlate(name, np.pad(x, ((0, 0), (0, 1), (0, 1))))[:, ::2, ::2]

    def conv(self, name: str, x: Array, pad: int) -> Array:
        return self.correlate(name, np.pad(x, ((0, 0), (pad, pad), (pad, pad))))

    def correlate(self, name: str, x: Array) -> Array:
        kernel, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        size = kernel.shape[2]
        rows, columns = x.shape[1] - size + 1, x.shape[2] - size + 1
        total = np.zeros((len(kernel), rows, columns)) + bias[:, None, None]
        for y in range(size):
            for z in range(size):
                part = x[:, y : y + rows, z : z + columns]
                total += np.einsum("oi,ihw->ohw", kernel[:, :, y, z], part)
        return total

    def norm(self, name: str, x: Array) -> Array:
        groups = x.reshape(32, -1)
        groups = groups - groups.mean(1, keepdims=True)
        groups = groups / np.sqrt(np.square(groups).mean(1, keepdims=True) + 1e-6)
        scale, shift = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return groups.reshape(x.shape) * scale[:, None, None] + shift[:, None, None]


def swish(x: Array) -> Array:
    return x / (1 + np.exp(-x))
