"""A converted checkpoint holds the same model, and what is not such a folder is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from makers.wham_checkpoints import TAMING, VIT, write_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from wham_data.cli.convert import convert as convert_command
from wham_data.inference.checkpoints.convert import convert
from wham_data.inference.checkpoints.lightning import open_checkpoint, open_tokenizer
from wham_data.inference.checkpoints.model_folder import WORLD_MODEL_FILE
from wham_data.inference.tokenizer import CONFIG_FILE, WEIGHTS_FILE, load_tokenizer
from wham_data.inference.tokenizers.config import TokenizerConfig
from wham_data.inference.tokenizers.taming_config import TamingConfig
from wham_data.inference.tokenizers.vit_config import ViTConfig
from wham_data.schemas.errors import IntegrityError, UsageError

TOKENIZERS = {
    "vit": TokenizerConfig(VIT),
    "taming": TokenizerConfig(TAMING),
    "pair": TokenizerConfig(VIT, VIT),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model.ckpt")


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    return convert(checkpoint, tmp_path / "model").out


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_a_converted_model_is_the_same_model(tmp_path: Path, tokenizer: TokenizerConfig) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.ckpt", tokenizer)

    done = convert(checkpoint, tmp_path / "model")

    before, after = open_checkpoint(checkpoint), open_checkpoint(done.out)
    assert (after.gpt, after.tokenizer.config) == (before.gpt, before.tokenizer.config)
    for (name, old), (same_name, new) in zip(
        before.world_model_tensors(), after.world_model_tensors(), strict=True
    ):
        assert name == same_name
        assert torch.equal(old, new)
    for (name, was), (same_name, now) in zip(
        before.tokenizer.tensors(), after.tokenizer.tensors(), strict=True
    ):
        assert name == same_name
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize("dtype", ["float32", "bf16"])
def test_the_tokenizer_keeps_its_fingerprint_and_its_ids(
    tmp_path: Path, tokenizer: TokenizerConfig, dtype: Any
) -> None:
    checkpoint = write_checkpoint(tmp_path / "model.ckpt", tokenizer)

    done = convert(checkpoint, tmp_path / "model", dtype)

    before, after = load_tokenizer(str(checkpoint), "cpu"), load_tokenizer(str(done.out), "cpu")
    assert before.fingerprint == after.fingerprint == done.fingerprint
    width, height = before.frame_size
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    assert before.encode(frames).tolist() == after.encode(frames).tolist()


def test_another_weight_gives_another_fingerprint(tmp_path: Path) -> None:
    one, other = (write_checkpoint(tmp_path / f"{n}.ckpt", seed=n) for n in (1, 2))

    assert open_tokenizer(one).info().fingerprint != open_tokenizer(other).info().fingerprint


def test_bf16_halves_the_world_model_and_rounds_to_the_nearest(
    checkpoint: Path, tmp_path: Path
) -> None:
    done = convert(checkpoint, tmp_path / "model", "bf16")

    for (_, exact), (_, rounded) in zip(
        open_checkpoint(checkpoint).world_model_tensors(),
        open_checkpoint(done.out).world_model_tensors(),
        strict=True,
    ):
        assert rounded.dtype == torch.bfloat16
        assert torch.equal(rounded, exact.to(torch.bfloat16))


def test_other_tools_read_the_files(folder: Path) -> None:
    weights = load_file(folder / WORLD_MODEL_FILE)

    assert set(weights) == set(open_checkpoint(folder).gpt.tensor_shapes())
    with safe_open(folder / WEIGHTS_FILE, framework="np") as file:
        assert set(file.keys()) == set(VIT.tensor_shapes())


def test_a_tokenizer_alone_in_a_folder_is_opened_too(folder: Path) -> None:
    (folder / CONFIG_FILE).write_text(VIT.to_json())
    (folder / WORLD_MODEL_FILE).unlink()

    assert open_tokenizer(folder).config == TokenizerConfig(VIT)
    with pytest.raises(UsageError, match="without a world model"):
        open_checkpoint(folder)


@pytest.mark.parametrize("config", [VIT, TAMING], ids=["vit", "taming"])
def test_a_configuration_survives_its_own_json(config: ViTConfig | TamingConfig) -> None:
    for whole in (TokenizerConfig(config), TokenizerConfig(config, config)):
        assert TokenizerConfig.from_mapping(json.loads(whole.to_json()), Path("x")) == whole


# Whole or not at all


def test_a_model_that_turns_out_bad_leaves_nothing_behind(tmp_path: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["state_dict"]["predictor.gpt_model.transformer.ln_f.bias"] *= float("inf")

    checkpoint = write_checkpoint(tmp_path / "model.ckpt", edit=spoil)

    with pytest.raises(IntegrityError, match="not finite"):
        convert(checkpoint, tmp_path / "model")
    assert list(tmp_path.iterdir()) == [checkpoint]


def test_what_is_there_already_is_not_touched(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").write_text("mine")

    with pytest.raises(UsageError, match="something already"):
        convert(checkpoint, tmp_path / "model")
    assert [file.name for file in (tmp_path / "model").iterdir()] == ["notes.txt"]


def test_an_empty_folder_will_do(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    assert open_checkpoint(convert(checkpoint, tmp_path / "model").out)


# Folders that nobody vouches for


def rewrite_config(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def tamper(folder: Path) -> None:
        values = json.loads((folder / CONFIG_FILE).read_text())
        change(values)
        (folder / CONFIG_FILE).write_text(json.dumps(values))

    return tamper


def rewrite_weights(name: str, change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def tamper(folder: Path) -> None:
        weights = {key: values.clone() for key, values in load_file(folder / name).items()}
        change(weights)
        save_file(weights, folder / name)

    return tamper


def cut(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-8]) and None


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (lambda folder: (folder / CONFIG_FILE).write_text("{"), "not valid JSON"),
        (lambda folder: (folder / CONFIG_FILE).write_text("[" * 50_000), "not valid JSON"),
        (lambda folder: (folder / CONFIG_FILE).write_text(" " * 70_000), "at most 65536"),
        (rewrite_config(lambda c: c.update(format="other")), "expected format"),
        (rewrite_config(lambda c: c["tokenizer"].update(vocab_size=41)), r"expected .* \(41, 4\)"),
        (rewrite_config(lambda c: c["world_model"].update(image_vocab=41)), "but the tokenizer"),
        (rewrite_config(lambda c: c["tokenizer"].update(family="jpeg")), "tokenizer family 'jpeg'"),
        (rewrite_config(lambda c: c["world_model"].update(n_embd=1 << 40)), "n_embd is"),
        (rewrite_config(lambda c: c["world_model"].update(extra=1)), r"unknown: \['extra'\]"),
        (rewrite_config(lambda c: c["world_model"].update(n_layer=3)), r"missing: .*h\.2"),
        (rewrite_weights(WORLD_MODEL_FILE, lambda w: w.pop("lm_head.weight")), "missing: lm_head"),
        (rewrite_weights(WORLD_MODEL_FILE, lambda w: w.update(x=torch.ones(1))), "unexpected: x"),
        (
            rewrite_weights(
                WORLD_MODEL_FILE,
                lambda w: w.update({"lm_head.weight": w["lm_head.weight"].double()}),
            ),
            "lm_head.weight is F64",
        ),
        (
            rewrite_weights(WORLD_MODEL_FILE, lambda w: w["lm_head.weight"].fill_(float("nan"))),
            "not finite",
        ),
        (
            rewrite_weights(
                WEIGHTS_FILE, lambda w: w["encoder.proj1.bias"].fill_(float("inf"))
            ),
            "not finite",
        ),
        (cut(WORLD_MODEL_FILE), "not a valid safetensors"),
        (cut(WEIGHTS_FILE), "not a valid safetensors"),
        (lambda folder: (folder / WEIGHTS_FILE).write_bytes(b"\xff" * 16), "not a valid safetensors"),
    ],
)  # fmt: skip
def test_a_tampered_folder_is_refused(
    folder: Path, tamper: Callable[[Path], None], words: str
) -> None:
    tamper(folder)

    with pytest.raises(IntegrityError, match=words):
        read_everything(folder)


def read_everything(folder: Path) -> None:
    opened = open_checkpoint(folder)
    for _ in opened.world_model_tensors():
        pass
    opened.tokenizer.info()


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE, WORLD_MODEL_FILE])
def test_a_folder_that_lacks_a_file_says_which(folder: Path, name: str) -> None:
    (folder / name).unlink()

    with pytest.raises(UsageError, match=name):
        open_checkpoint(folder)


# The command


def run(*arguments: str | Path) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(convert_command)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_command_says_what_it_wrote(checkpoint: Path, tmp_path: Path) -> None:
    code, said, _ = run(checkpoint, "--out", tmp_path / "model", "--dtype", "bf16", "--json")

    assert code == 0
    result = json.loads(said)
    assert result["fingerprint"] == open_tokenizer(tmp_path / "model").info().fingerprint
    assert result["bytes"] == sum(f.stat().st_size for f in (tmp_path / "model").iterdir())


def test_the_command_names_unexpected_keys(tmp_path: Path) -> None:
    def add(content: dict[str, Any]) -> None:
        content["state_dict"]["backdoor.extra"] = torch.ones(1)

    checkpoint = write_checkpoint(tmp_path / "model.ckpt", edit=add)

    code, _, told = run(checkpoint, "--out", tmp_path / "model")

    assert code == 0
    assert "left out 1 unexpected keys, as backdoor.extra" in told


def test_a_folder_is_not_converted_again(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a folder, expected a checkpoint"):
        convert(folder, tmp_path / "again")
    shutil.rmtree(folder)
