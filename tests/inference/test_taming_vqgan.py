"""The second tokenizer family: what its description says, to the id and to the pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from makers.commands import run_python
from makers.taming_slowly import SlowTaming
from makers.wham_checkpoints import TAMING, VIT, Content, Edit, write_checkpoint
from numpy.typing import NDArray

from wham_data.inference.checkpoints.lightning import open_tokenizer
from wham_data.inference.tokenizer import Tokenizer, load_tokenizer
from wham_data.inference.tokenizers.config import TokenizerConfig
from wham_data.inference.tokenizers.frame_tokenizer import tokenizer_model
from wham_data.inference.tokenizers.taming_config import TamingConfig
from wham_data.inference.tokenizers.taming_vqgan import Codebook, TamingVQGAN
from wham_data.schemas.errors import IntegrityError, UsageError

SHAPES = {
    "two levels, attention below": TAMING,
    "attention above, mean of four": replace(
        TAMING, attention_at=(16,), resample_with_conv=False, multipliers=(2, 1)
    ),
    "three levels of two blocks": replace(TAMING, res_blocks=2, multipliers=(1, 2, 2)),
    "no attention but in the middle": replace(TAMING, attention_at=()),
}


@pytest.fixture
def frames() -> NDArray[np.uint8]:
    """Five frames of noise on a ramp, uint8 [5, 16, 16, 3]."""
    rng = np.random.default_rng(1)
    ramp = np.linspace(0, 200, 16)[None, :, None, None]
    return (ramp + rng.integers(0, 56, (5, 16, 16, 3))).astype(np.uint8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_ids_and_pixels_are_those_of_the_description(
    path: Path, frames: NDArray[np.uint8], config: TamingConfig
) -> None:
    slow = slow_twin(write_checkpoint(path, config), config)
    book = slow.latents(frames[4]).reshape(config.embedding_dim, -1).T[::2][: config.vocab_size]
    write_checkpoint(path, config, edit=with_codebook(book.astype(np.float32)))
    slow = slow_twin(path, config)
    tokenizer = load_tokenizer(str(path), "cpu")

    tokens = tokenizer.encode(frames[:2])
    decoded = tokenizer.decode(tokens)

    assert tokens.tolist() == [slow.encode(frame).tolist() for frame in frames[:2]]
    exact = np.stack([slow.decode(ids) for ids in tokens])
    near_a_whole_number = np.abs(exact - exact.round()) < 1e-3
    assert len(np.unique(tokens)) > 5
    assert ((decoded == np.floor(exact)) | near_a_whole_number).all()
    assert near_a_whole_number.mean() < 0.5  # most of them cut off at 0 or 255


def slow_twin(path: Path, config: TamingConfig) -> SlowTaming:
    return SlowTaming(config, dict(open_tokenizer(path).tensors()))


def with_codebook(rows: NDArray[np.float32]) -> Edit:
    """Puts rows where latents are, so that many of them are used."""

    def edit(content: Content) -> None:
        key = "context_encoders.images.vq_model.quantize.embedding.weight"
        content["state_dict"][key][: len(rows)] = torch.from_numpy(rows)

    return edit


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES)
def test_the_tensors_that_are_demanded_are_the_modules(config: TamingConfig) -> None:
    module = TamingVQGAN(config)

    assert config.tensor_shapes() == {
        name: tuple(values.shape) for name, values in module.state_dict().items()
    }


def test_of_two_equally_near_rows_the_first_is_taken() -> None:
    codebook = Codebook(4, 2)
    codebook.set_rows(torch.tensor([[5.0, 5.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]))

    assert codebook.nearest(torch.tensor([[0.5, 0.5], [2.0, 0.0]])).tolist() == [1, 1]


def test_length_matters_to_the_codebook_and_not_direction_alone() -> None:
    codebook = Codebook(2, 2)
    codebook.set_rows(torch.tensor([[9.0, 0.0], [1.0, 0.2]]))

    assert codebook.nearest(torch.tensor([[1.0, 0.0]])).tolist() == [1]


def test_a_frames_ids_do_not_depend_on_the_batch_or_the_threads(
    path: Path, frames: NDArray[np.uint8]
) -> None:
    np.save(path.parent / "frames.npy", frames)
    code = (
        "import numpy as np, sys, torch; from wham_data.inference.tokenizer import load_tokenizer\n"
        f"tokenizer = load_tokenizer({str(write_checkpoint(path, TAMING))!r}, 'cpu')\n"
        "frames = np.load('frames.npy')\n"
        "torch.set_num_threads(1)\n"
        "alone = np.concatenate([tokenizer.encode(frame[None]) for frame in frames])\n"
        "torch.set_num_threads(3)\n"
        "print((alone == tokenizer.encode(frames)).all())"
    )
    assert run_python(code, path.parent) == "True"


def test_it_is_a_tokenizer_like_the_others(path: Path, frames: NDArray[np.uint8]) -> None:
    tokenizer: Tokenizer = load_tokenizer(str(write_checkpoint(path, TAMING)), "cpu")

    assert (tokenizer.grid, tokenizer.vocab_size, tokenizer.frame_size) == ((8, 8), 30, (16, 16))
    assert tokenizer.info == open_tokenizer(path).info()
    assert tokenizer.encode(frames[:0]).shape == (0, 64)
    with pytest.raises(UsageError, match=r"expected uint8 \(B, 16, 16, 3\)"):
        tokenizer.encode(frames[:, :8])
    with pytest.raises(UsageError, match=r"ids 30..30, but this tokenizer's are 0..29"):
        tokenizer.decode(np.full((1, 64), 30))


@pytest.mark.parametrize("config", [TAMING, VIT], ids=["taming", "vit"])
def test_of_a_pair_the_first_encodes_and_the_second_decodes(
    path: Path, config: TamingConfig
) -> None:
    pair = TokenizerConfig(config, config)
    tokenizer = load_tokenizer(str(write_checkpoint(path, pair)), "cpu")
    weights = {
        name: torch.from_numpy(values.copy()) for name, values in open_tokenizer(path).tensors()
    }
    first, second = (
        load_part(config, {n[2:]: w for n, w in weights.items() if n.startswith(part)})
        for part in ("0.", "1.")
    )
    frames = np.random.default_rng(3).integers(
        0, 256, (1, config.image_height, config.image_width, 3), np.uint8
    )

    ids = tokenizer.encode(frames)

    assert ids.tolist() == first.ids(torch.from_numpy(frames)).tolist()
    assert ids.tolist() != second.ids(torch.from_numpy(frames)).tolist()
    decoded = second.frames(torch.from_numpy(ids.astype(np.int64))).numpy()
    assert np.abs(tokenizer.decode(ids).astype(int) - decoded.astype(int)).max() <= 1


def load_part(config: TamingConfig, weights: dict[str, torch.Tensor]) -> TamingVQGAN:
    model = tokenizer_model(TokenizerConfig(config))
    model.load_state_dict(weights, assign=True)
    assert isinstance(model.requires_grad_(False), torch.nn.Module)
    return model  # type: ignore[return-value]  # of either family


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": 33}, "multiples of 32"),
        ({"resolution": 15}, "halved"),
        ({"multipliers": ()}, "no level"),
        ({"multipliers": (1, -2)}, "positive integers"),
        ({"multipliers": (1, 1 << 20)}, "up to 8192"),
        ({"vocab_size": 65537}, r"1\.\.65536"),
        ({"resolution": 1024, "attention_at": (1024,)}, "too many"),
        ({"resample_with_conv": 1}, "true or false"),
    ],
)
def test_an_impossible_configuration_is_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(IntegrityError, match=words):
        replace(TAMING, **change)  # type: ignore[arg-type]
