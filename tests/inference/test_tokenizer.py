"""Tokenizers: frames to ids and back, the same ids every time, and weights that nobody vouches for."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from makers.commands import run_python
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file, save_file

from wham_data.inference.tokenizer import (
    BUNDLED,
    CONFIG_FILE,
    WEIGHTS_FILE,
    Tokenizer,
    load_tokenizer,
    tokenizer_info,
)
from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.inference.training.evaluate import (
    perplexity,
    psnr_db,
    side_by_side,
    tokenizer_figures,
)
from wham_data.schemas.errors import IntegrityError, MissingPartError, UsageError

Arrays = dict[str, NDArray[np.floating]]

DEMOS = Path(__file__).parents[2] / "wham_data" / "pipelines" / "demo_recordings"

SMALL = ViTConfig(
    image_width=62,
    image_height=36,
    patch_size=8,
    transf_dim=24,
    embedding_dim=4,
    num_layers=2,
    head_size=8,
    vocab_size=50,
)
"""Padded on both sides: 8 x 5 patches of 8 cover 64 x 40."""


@pytest.fixture(scope="session")
def gameplay() -> NDArray[np.uint8]:
    """Nine frames, three from each demo recording, uint8 [9, 180, 300, 3]."""
    from wham_data.pipelines.video import decode_frames, index_video

    batches = []
    for name in ("doom", "coinrun", "miniworld"):
        index = index_video(DEMOS / f"{name}.mp4")
        picks = np.linspace(0, len(index.times_ns) - 1, 4).astype(np.int64)[1:]
        batches.extend(decode_frames(index, picks))
    return np.concatenate(batches)


@pytest.fixture(scope="session")
def tiny() -> Tokenizer:
    return load_tokenizer("wham-tiny", "cpu")


@pytest.fixture
def small_folder(tmp_path: Path) -> Path:
    """A folder with a tokenizer of random weights."""
    folder = tmp_path / "small"
    write_tokenizer(folder, SMALL, random_weights(SMALL))
    return folder


def random_weights(config: ViTConfig) -> Arrays:
    rng = np.random.default_rng(4)
    return {
        name: rng.normal(0.1, 0.3, shape).astype(np.float32)
        for name, shape in config.tensor_shapes().items()
    }


def write_tokenizer(folder: Path, config: ViTConfig, weights: Arrays) -> None:
    folder.mkdir(exist_ok=True)
    (folder / CONFIG_FILE).write_text(config.to_json())
    save_file(weights, folder / WEIGHTS_FILE)


# What wham-tiny is


def test_wham_tiny_makes_540_tokens_of_a_frame_and_is_at_most_15_megabytes() -> None:
    info = tokenizer_info("wham-tiny")
    assert (info.grid, info.frame_size) == ((18, 30), (300, 180))
    assert 1024 <= info.vocab_size <= 4096
    assert (BUNDLED["wham-tiny"] / WEIGHTS_FILE).stat().st_size <= 15_000_000


def test_a_tokenizer_is_identified_without_importing_torch() -> None:
    code = (
        "import sys; from wham_data.inference.tokenizer import tokenizer_info; "
        "print(tokenizer_info('wham-tiny').fingerprint, 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [tokenizer_info("wham-tiny").fingerprint, "False"]


def test_a_loaded_tokenizer_says_what_its_files_say(tiny: Tokenizer) -> None:
    assert tiny.info == tokenizer_info("wham-tiny")
    assert (tiny.fingerprint, tiny.grid, tiny.vocab_size, tiny.frame_size) == (
        tiny.info.fingerprint,
        tiny.info.grid,
        tiny.info.vocab_size,
        tiny.info.frame_size,
    )


# Frames to ids and back


def test_frames_become_uint16_ids_and_ids_become_frames(
    tiny: Tokenizer, gameplay: NDArray[np.uint8]
) -> None:
    tokens = tiny.encode(gameplay[:2])
    assert (tokens.dtype, tokens.shape) == (np.uint16, (2, 540))
    assert tokens.max() < tiny.vocab_size
    frames = tiny.decode(tokens)
    assert (frames.dtype, frames.shape) == (np.uint8, gameplay[:2].shape)


def test_gameplay_it_has_not_seen_survives_at_20_decibels_or_more(
    tiny: Tokenizer, gameplay: NDArray[np.uint8]
) -> None:
    assert psnr_db(gameplay, tiny.decode(tiny.encode(gameplay))).min() >= 20


def test_no_frames_give_no_tokens_and_no_tokens_no_frames(tiny: Tokenizer) -> None:
    assert tiny.encode(np.empty((0, 180, 300, 3), np.uint8)).shape == (0, 540)
    assert tiny.decode(np.empty((0, 540), np.uint16)).shape == (0, 180, 300, 3)


def test_frames_may_be_read_only_and_in_any_order_of_memory(
    tiny: Tokenizer, gameplay: NDArray[np.uint8], recwarn: pytest.WarningsRecorder
) -> None:
    frozen = np.asfortranarray(gameplay[:1])
    frozen.flags.writeable = False
    assert (tiny.encode(frozen) == tiny.encode(gameplay[:1])).all()
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.uint8])
def test_ids_of_any_integer_type_are_decoded(small_folder: Path, dtype: type) -> None:
    small = load_tokenizer(str(small_folder), "cpu")
    ids = np.arange(40).reshape(1, 40)
    assert (small.decode(ids.astype(dtype)) == small.decode(ids)).all()


def test_the_arithmetic_is_the_one_written_down(small_folder: Path) -> None:
    """Against a second implementation in float64 numpy, patch by patch and head by head."""
    small, weights = load_tokenizer(str(small_folder), "cpu"), random_weights(SMALL)
    frames = np.random.default_rng(0).integers(0, 256, (3, 36, 62, 3), np.uint8)
    tokens = small.encode(frames)
    decoded = small.decode(tokens)
    for frame, ids, picture in zip(frames, tokens, decoded, strict=True):
        assert slow_encode(weights, frame).tolist() == ids.tolist()
        assert np.abs(slow_decode(weights, ids).astype(int) - picture).max() <= 1


def slow_encode(weights: Arrays, frame: NDArray[np.uint8]) -> NDArray[np.int64]:
    image = (frame / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    padded = np.zeros((40, 64, 3))
    padded[:36, :62] = image
    patches = [
        padded[y : y + 8, x : x + 8].transpose(2, 0, 1).ravel()
        for y in range(0, 40, 8)
        for x in range(0, 64, 8)
    ]
    latents = slow_side(weights, "encoder", np.array(patches))
    cosines = unit(latents) @ unit(weights["vq_vae._embedding.weight"]).T
    return np.asarray(cosines.argmax(1))


def slow_decode(weights: Arrays, ids: NDArray[np.uint16]) -> NDArray[np.uint8]:
    codes = unit(weights["vq_vae._embedding.weight"])[ids]
    image = np.zeros((40, 64, 3))
    for place, patch in enumerate(slow_side(weights, "decoder", codes)):
        y, x = 8 * (place // 8), 8 * (place % 8)
        image[y : y + 8, x : x + 8] = patch.reshape(3, 8, 8).transpose(1, 2, 0)
    pixels = image[:36, :62] * [0.229, 0.224, 0.225] + [0.485, 0.456, 0.406]
    return (pixels.clip(0, 1) * 255).astype(np.uint8)


def slow_side(weights: Arrays, side: str, x: NDArray[np.floating]) -> NDArray[np.floating]:
    own = {k.removeprefix(f"{side}."): v.astype(np.float64) for k, v in weights.items()}
    x = x @ own["proj1.weight"].T + own["proj1.bias"] + own["pos_embeds.weight"]
    for i in range(SMALL.num_layers):
        normed = centred(x) * own[f"vit.{i}.ln_1.weight"]
        query, key, value = np.split(normed @ own[f"vit.{i}.attn.c_attn.weight"].T, 3, axis=1)
        heads = []
        for h in range(0, SMALL.transf_dim, SMALL.head_size):
            part = slice(h, h + SMALL.head_size)
            scores = np.exp(query[:, part] @ key[:, part].T / np.sqrt(SMALL.head_size))
            heads.append(scores / scores.sum(1, keepdims=True) @ value[:, part])
        x = x + np.concatenate(heads, axis=1) @ own[f"vit.{i}.attn.c_proj.weight"].T
        hidden = centred(x) * own[f"vit.{i}.ln_2.weight"] @ own[f"vit.{i}.mlp.c_fc.weight"].T
        cubic = np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)
        x = x + 0.5 * hidden * (1 + np.tanh(cubic)) @ own[f"vit.{i}.mlp.c_proj.weight"].T
    x = centred(x) * own["output_ln.weight"] + own["output_ln.bias"]
    return np.asarray(x @ own["output_proj.weight"].T + own["output_proj.bias"])


def centred(x: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray((x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5))


def unit(x: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True))


# The same frame, the same ids


def test_a_frame_has_the_same_ids_in_any_batch(
    tiny: Tokenizer, gameplay: NDArray[np.uint8]
) -> None:
    together = tiny.encode(gameplay)
    assert (np.concatenate([tiny.encode(frame[None]) for frame in gameplay]) == together).all()
    assert (tiny.encode(gameplay[::-1].copy()) == together[::-1]).all()
    assert (tiny.encode(gameplay[3:8]) == together[3:8]).all()


def test_a_frame_has_the_same_ids_and_pixels_on_any_number_of_threads(
    gameplay: NDArray[np.uint8], tmp_path: Path
) -> None:
    np.save(tmp_path / "frames.npy", gameplay[:4])
    code = (
        "import numpy as np, torch; from wham_data.inference.tokenizer import load_tokenizer\n"
        "tiny, results = load_tokenizer('wham-tiny', 'cpu'), set()\n"
        "for count in (1, 2, 3):\n"
        "    torch.set_num_threads(count)\n"
        "    ids = tiny.encode(np.load('frames.npy'))\n"
        "    results.add((ids.tobytes(), tiny.decode(ids).tobytes()))\n"
        "    assert torch.get_num_threads() == count and torch.is_grad_enabled()\n"
        "print(len(results))"
    )
    assert run_python(code, tmp_path) == "1"


def test_a_frame_has_the_same_ids_in_another_process(
    tiny: Tokenizer, gameplay: NDArray[np.uint8], tmp_path: Path
) -> None:
    np.save(tmp_path / "frames.npy", gameplay)
    run_python(
        "import numpy as np; from wham_data.inference.tokenizer import load_tokenizer; "
        "ids = load_tokenizer('wham-tiny', 'cpu').encode(np.load('frames.npy')); np.save('ids.npy', ids)",
        tmp_path,
        OMP_NUM_THREADS="1",
    )
    assert (np.load(tmp_path / "ids.npy") == tiny.encode(gameplay)).all()


# Fingerprints


def test_the_fingerprint_changes_with_one_bit_of_one_weight(small_folder: Path) -> None:
    before = tokenizer_info(str(small_folder)).fingerprint
    weights = load_file(small_folder / WEIGHTS_FILE)
    weights["decoder.proj1.bias"].view(np.uint32)[3] ^= 1
    save_file(weights, small_folder / WEIGHTS_FILE)
    assert tokenizer_info(str(small_folder)).fingerprint != before


def test_the_fingerprint_changes_with_the_configuration(small_folder: Path) -> None:
    before = tokenizer_info(str(small_folder)).fingerprint
    config = json.loads((small_folder / CONFIG_FILE).read_text())
    (small_folder / CONFIG_FILE).write_text(json.dumps({**config, "head_size": 12}))
    assert tokenizer_info(str(small_folder)).fingerprint != before


def test_the_fingerprint_does_not_depend_on_where_the_folder_lies(
    small_folder: Path, tmp_path: Path
) -> None:
    moved = shutil.copytree(small_folder, tmp_path / "moved")
    here, there = tokenizer_info(str(small_folder)), tokenizer_info(str(moved))
    assert (here.fingerprint, here.name, there.name) == (there.fingerprint, "small", "moved")


# Weights and settings that nobody vouches for


def cut_short(folder: Path) -> None:
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])


def swell(folder: Path) -> None:
    with (folder / WEIGHTS_FILE).open("ab") as file:
        file.truncate(500_000_000)  # sparse


def change(name: str, value: NDArray[np.generic] | None) -> Callable[[Path], None]:
    """Put another tensor under a name, or take it away."""

    def damage(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS_FILE)
        weights.pop(name, None)
        if value is not None:
            weights[name] = value
        save_file(weights, folder / WEIGHTS_FILE)

    return damage


def configure(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text())
        (folder / CONFIG_FILE).write_text(json.dumps({**config, **changes}))

    return damage


def write_config(text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / CONFIG_FILE).write_text(text) and None


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut_short, "not a valid safetensors"),
        (
            lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\xff" * 64),
            "not a valid safetensors",
        ),
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b""), "not a valid safetensors"),
        (swell, "expected at most"),
        (change("encoder.proj1.bias", None), "missing: encoder.proj1.bias"),
        (change("patch_gan.weight", np.zeros(3, np.float32)), "unexpected: patch_gan.weight"),
        (change("encoder.proj1.bias", np.zeros(25, np.float32)), "expected F32 or F16 (24,)"),
        (change("encoder.proj1.bias", np.zeros(24, np.int32)), "is I32"),
        (change("encoder.proj1.bias", np.full(24, np.nan, np.float32)), "not finite"),
        (change("vq_vae._embedding.weight", np.full((50, 4), np.inf, np.float32)), "not finite"),
        (configure(family="taming"), "family 'taming'"),
        (configure(vocab_size=70_000), "vocab_size is 70000"),
        (configure(vocab_size=True), "vocab_size is True"),
        (configure(num_layers=10**12), "num_layers"),
        (configure(num_layers=1.5), "num_layers"),
        (configure(patch_size=0), "patch_size is 0"),
        (configure(patch_size=1, image_width=4096, image_height=4096), "tokens per frame"),
        (configure(head_size=7), "does not divide"),
        (configure(surprise=1), "unknown: ['surprise']"),
        (write_config("{"), "not valid JSON"),
        (write_config("[1]"), "expected an object"),
        (write_config("[" * 60_000), "not valid JSON"),
        (write_config(" " * 70_000), "70000 bytes"),
    ],
)
def test_a_tokenizer_that_is_damaged_or_hostile_is_refused_with_what_is_wrong(
    small_folder: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(small_folder)
    with pytest.raises(IntegrityError) as refusal:
        load_tokenizer(str(small_folder), "cpu")
    assert said in str(refusal.value)


def test_half_precision_weights_are_accepted(small_folder: Path) -> None:
    weights = {k: v.astype(np.float16) for k, v in load_file(small_folder / WEIGHTS_FILE).items()}
    save_file(weights, small_folder / WEIGHTS_FILE)
    assert load_tokenizer(str(small_folder), "cpu").vocab_size == 50


def test_an_unknown_tokenizer_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    for ref in ("wham-huge", str(tmp_path)):
        with pytest.raises(UsageError, match="wham-tiny"):
            tokenizer_info(ref)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((1, 36, 62, 3), np.float32),
        np.zeros((1, 62, 36, 3), np.uint8),
        np.zeros((1, 3, 36, 62), np.uint8),
        np.zeros((36, 62, 3), np.uint8),
    ],
)
def test_frames_of_another_type_or_size_are_refused(
    small_folder: Path, frames: NDArray[np.generic]
) -> None:
    with pytest.raises(UsageError, match=r"expected uint8 \(B, 36, 62, 3\)"):
        load_tokenizer(str(small_folder), "cpu").encode(frames)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (np.full((1, 40), 50), "0..49"),
        (np.full((1, 40), -1), "0..49"),
        (np.zeros((1, 41), int), r"expected integers \(B, 40\)"),
        (np.zeros((1, 40)), "expected integers"),
    ],
)
def test_ids_outside_the_vocabulary_are_refused(
    small_folder: Path, tokens: NDArray[np.integer], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        load_tokenizer(str(small_folder), "cpu").decode(tokens)


def test_a_device_that_is_not_there_is_named(small_folder: Path) -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda or cuda:N"):
        load_tokenizer(str(small_folder), "tpu")
    with pytest.raises(MissingPartError, match="'cuda:99' is not there"):
        load_tokenizer(str(small_folder), "cuda:99")


# Figures


def test_figures_are_those_of_the_definition(tiny: Tokenizer, gameplay: NDArray[np.uint8]) -> None:
    tokens = tiny.encode(gameplay)
    figures = tokenizer_figures(tiny, gameplay)
    assert figures.psnr_db == pytest.approx(psnr_db(gameplay, tiny.decode(tokens)).mean())
    assert figures.codes_used == len(np.unique(tokens))
    assert 1 <= figures.perplexity <= figures.codes_used
    assert perplexity(np.array([5, 0, 5])) == pytest.approx(2)
    off_by_one = np.zeros((1, 2, 2, 3), np.uint8)
    assert psnr_db(off_by_one, off_by_one + np.uint8(1))[0] == pytest.approx(48.13, abs=0.01)


def test_the_comparison_shows_each_frame_beside_its_copy() -> None:
    frames = np.arange(5, dtype=np.uint8).repeat(2 * 3 * 3).reshape(5, 2, 3, 3)
    sheet = side_by_side(frames, frames + np.uint8(100))
    assert sheet.shape == (4, 12, 3)
    assert sheet[::2, ::3, 0].tolist() == [[0, 100, 1, 101], [2, 102, 3, 103]]


# On a GPU


@pytest.mark.gpu
def test_a_gpu_gives_the_ids_of_the_cpu_and_the_same_ones_in_any_batch(
    tiny: Tokenizer, cuda: str
) -> None:
    frames = held_out_frames()
    gpu = load_tokenizer("wham-tiny", cuda)
    ids = gpu.encode(frames)
    assert (np.concatenate([gpu.encode(frame[None]) for frame in frames]) == ids).all()
    assert (ids == tiny.encode(frames)).mean() > 0.999  # near ties may fall the other way
    assert tokenizer_info("wham-tiny") == gpu.info


def held_out_frames() -> NDArray[np.uint8]:
    """The frames of the bundled picture, uint8 [N, 180, 300, 3]; PyAV is not needed."""
    sheet = np.asarray(Image.open(BUNDLED["wham-tiny"] / "held_out.png").convert("RGB"))
    tops, lefts = range(0, len(sheet), 180), range(0, sheet.shape[1], 600)
    return np.stack([sheet[y : y + 180, x : x + 300] for y in tops for x in lefts])
