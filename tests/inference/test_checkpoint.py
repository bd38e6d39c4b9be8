"""WHAM checkpoints are opened whole, checked and unharmed, or refused in one line."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from makers.wham_checkpoints import (
    TAMING,
    VIT,
    ActionTokenEncoder,
    Content,
    CreationArgs,
    Edit,
    gpt,
    vit_model_spec,
    write_checkpoint,
)

from wham_data.files.inert_pickle import Inert, Name
from wham_data.files.torch_archive import LARGEST_PICKLE, TorchArchive
from wham_data.inference.checkpoints.hyper_parameters import read_gpt_spec
from wham_data.inference.checkpoints.lightning import open_checkpoint, open_tokenizer
from wham_data.inference.gpt.spec import GPTSpec
from wham_data.inference.tokenizers.config import TokenizerConfig
from wham_data.schemas.errors import IntegrityError, UsageError

TOKENIZERS = {
    "vit": TokenizerConfig(VIT),
    "taming": TokenizerConfig(TAMING),
    "pair of vit": TokenizerConfig(VIT, VIT),
    "pair of taming": TokenizerConfig(TAMING, TAMING),
}
CODES = "context_encoders.images.vq_vae._embedding.weight"
HEAD = "predictor.gpt_model.lm_head.weight"
WORD_TABLE = "predictor.gpt_model.transformer.wte.weight"


class Calls:
    """Pickles as a call of a function with arguments."""

    def __init__(self, function: Callable[..., Any], *arguments: object) -> None:
        self._call = function, arguments

    def __reduce__(self) -> Any:
        return self._call


class AttributeDict(dict[str, object]):
    """A kind of dict, as training frameworks keep settings in."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.ckpt"


def refused(path: Path, edit: Edit, words: str) -> None:
    """The edited checkpoint is refused in one line that has these words and the file's name."""
    write_checkpoint(path, edit=edit)
    with pytest.raises(IntegrityError, match=words) as refusal:
        read_everything(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


def read_everything(path: Path) -> None:
    opened = open_checkpoint(path)
    for _ in opened.world_model_tensors():
        pass
    opened.tokenizer.info()


# What is in a checkpoint


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
@pytest.mark.parametrize(("version", "bias"), [(1, True), (1, False), (2, True), (2, False)])
def test_a_checkpoint_says_what_model_it_holds(
    path: Path, tokenizer: TokenizerConfig, version: int, bias: bool
) -> None:
    spec = gpt(tokenizer.encoder, version, bias)
    write_checkpoint(path, tokenizer, spec)

    opened = open_checkpoint(path)

    assert opened.tokenizer.config == tokenizer
    assert opened.gpt == spec
    assert opened.family == tokenizer.family
    assert (opened.ignored, opened.unexpected) == ((), ())


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_every_weight_comes_out_as_it_went_in(path: Path, tokenizer: TokenizerConfig) -> None:
    saved: dict[str, torch.Tensor] = {}
    write_checkpoint(path, tokenizer, edit=lambda content: saved.update(content["state_dict"]))

    opened = open_checkpoint(path)

    for name, world in opened.world_model_tensors():
        assert torch.equal(world, saved.pop(f"predictor.gpt_model.{name}"))
    for name, image in opened.tokenizer.tensors():
        inner = "vq_model." if tokenizer.family == "taming" else ""
        part = name[:2] if tokenizer.decoder else ""
        key = f"context_encoders.images.{part}{inner}{name.removeprefix(part)}"
        np.testing.assert_array_equal(image, saved.pop(key))
    assert list(saved) == [WORD_TABLE]  # which is the head


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
def test_permuted_weights_come_out_as_torch_shows_them(
    path: Path, tokenizer: TokenizerConfig
) -> None:
    def permuted(value: torch.Tensor) -> torch.Tensor:
        if value.ndim == 4:  # as a model in `torch.channels_last` saves it
            return value.contiguous(memory_format=torch.channels_last)
        return value.t().contiguous().t() if value.ndim == 2 else value

    def permute(content: Content) -> None:
        weights = content["state_dict"]
        weights.update({name: permuted(value) for name, value in weights.items()})
        assert not weights[HEAD].is_contiguous()

    plain = open_checkpoint(write_checkpoint(path, tokenizer))
    other = path.with_name("permuted.ckpt")
    opened = open_checkpoint(write_checkpoint(other, tokenizer, edit=permute))

    for name, world in opened.world_model_tensors():
        assert torch.equal(world, dict(plain.world_model_tensors())[name])
    for name, image in opened.tokenizer.tensors():
        np.testing.assert_array_equal(image, dict(plain.tokenizer.tensors())[name])


def test_of_two_different_word_tables_the_heads_is_used(path: Path) -> None:
    def untie(content: Content) -> None:
        content["state_dict"][WORD_TABLE] = torch.zeros_like(content["state_dict"][HEAD])

    write_checkpoint(path, edit=untie)

    assert dict(open_checkpoint(path).world_model_tensors())["lm_head.weight"].any()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_widened(path: Path, kind: torch.dtype) -> None:
    halved: list[torch.Tensor] = []

    def halve(content: Content) -> None:
        content["state_dict"][HEAD] = content["state_dict"][HEAD].to(kind)
        halved.append(content["state_dict"][HEAD])

    opened = open_checkpoint(write_checkpoint(path, edit=halve))

    assert torch.equal(dict(opened.world_model_tensors())["lm_head.weight"], halved[0].float())


def test_settings_that_are_objects_do_no_harm(path: Path) -> None:
    def enrich(content: Content) -> None:
        content["hyper_parameters"]["variant"] |= {
            "out": PurePosixPath("/data"),
            "rate": np.float64(0.1),
            "table": np.arange(3),
            "args": argparse.Namespace(x=1),
        }
        spec = content["hyper_parameters"]["predictor_args"].pl_kwargs["model_spec"]
        spec["seq_len"] = np.int64(spec["seq_len"])
        content["hyper_parameters"]["predictor_args"].pl_kwargs["model_spec"] = AttributeDict(spec)
        content["callbacks"]["best"] = torch.tensor(1.0)

    write_checkpoint(path, edit=enrich)

    assert open_checkpoint(path).gpt == gpt(VIT)


def test_the_vits_numbers_may_stand_in_variant(path: Path) -> None:
    def move(content: Content) -> None:
        images = content["hyper_parameters"]["context_encoder_args"]["images"]
        spec = vit_model_spec(VIT)
        size = {name: spec.pop(name) for name in list(spec) if name.startswith("image_size")}
        images.pl_kwargs = {"variant": {"model_spec": spec, **size}, "ckpt_path": "None"}

    write_checkpoint(path, edit=move)

    assert open_checkpoint(path).tokenizer.config.encoder == VIT


def test_keys_that_inference_has_no_use_for_are_listed_apart_from_unknown_ones(path: Path) -> None:
    ignorable = [
        "context_encoders.images.patch_gan.main.0.weight",
        "context_encoders.images.encoder.vit.0.attn.attn_mask",
        "predictor.gpt_model.transformer.h.0.attn.bias",
    ]

    def add(content: Content) -> None:
        for key in [*ignorable, "backdoor.extra"]:
            content["state_dict"][key] = torch.ones(2, 2, dtype=torch.bool)

    opened = open_checkpoint(write_checkpoint(path, edit=add))

    assert opened.ignored == tuple(ignorable)
    assert opened.unexpected == ("backdoor.extra",)


def test_the_optimizers_state_is_never_read(path: Path) -> None:
    def recognisable(content: Content) -> None:
        moments = torch.full((1000,), float.fromhex("0x1.abcdefp0"))
        content["optimizer_states"][0]["state"][0]["exp_avg"] = moments

    write_checkpoint(path, edit=recognisable)
    moment = struct.pack("<f", float.fromhex("0x1.abcdefp0"))
    data = path.read_bytes()
    assert data.count(moment * 1000) == 1
    path.write_bytes(data.replace(moment * 1000, b"\xff" * 4000))  # its checksum is now wrong

    opened = open_checkpoint(path)

    assert len(list(opened.world_model_tensors())) == len(opened.gpt.tensor_shapes())
    assert opened.tokenizer.info()


# Attention heads


@pytest.mark.parametrize(
    ("size", "layers", "heads", "width"),
    [
        ("chinchilla-251M", 16, 16, 1024),
        ("chinchilla-1018M", 23, 14, 1792),
        ("wham-4kvocab-1.6b", 24, 18, 2304),
        ("wham-3b", 30, 24, 3072),
    ],
)
@pytest.mark.parametrize("known_by", ["name", "shape"])
def test_heads_of_the_published_sizes_are_known(
    size: str, layers: int, heads: int, width: int, known_by: str
) -> None:
    tokenizer = TokenizerConfig(VIT)
    spec = GPTSpec(layers, heads, width, 10 * (VIT.tokens + 16), VIT.tokens, VIT.vocab_size)
    model = {"model_size": size if known_by == "name" else "renamed", "seq_len": 10}

    read = read_gpt_spec(predictor(model), tokenizer, shapes_of(spec), None)

    assert read == spec


def predictor(model: Content) -> Content:
    """Hyper-parameters as they come out of a file."""
    state = {
        "pl_class": Name("humanmodelling.models", "GPTTokenPredictor"),
        "pl_checkpoint_path": None,
        "pl_kwargs": {"model_spec": model},
    }
    name = Name("humanmodelling.models", "LightningModuleCreationArgs")
    return {"predictor_args": Inert(name, state=state)}


def shapes_of(spec: GPTSpec) -> dict[str, tuple[int, ...]]:
    shapes = spec.tensor_shapes()
    return {**shapes, "transformer.wte.weight": shapes["lm_head.weight"]}


def test_heads_that_are_nowhere_are_asked_for(path: Path) -> None:
    def forget(content: Content) -> None:
        del content["hyper_parameters"]["predictor_args"].pl_kwargs["model_spec"]["gpt_config"]

    write_checkpoint(path, edit=forget)

    with pytest.raises(UsageError, match="--n-head"):
        open_checkpoint(path)
    assert open_checkpoint(path, n_head=4).gpt.n_head == 4
    assert open_tokenizer(path).config.encoder == VIT


def test_heads_asked_for_against_the_file_are_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="--n-head is 4, but the model has 2 attention heads"):
        open_checkpoint(write_checkpoint(path), n_head=4)


# Poisoned checkpoints


@pytest.mark.parametrize(
    "place", ["hyper_parameters", "callbacks", "optimizer_states", "state_dict"]
)
def test_a_poisoned_checkpoint_is_refused_by_the_name_it_asks_for(path: Path, place: str) -> None:
    canary = path.with_name("canary")

    def poison(content: Content) -> None:
        attack = Calls(os.system, f"touch {canary}")
        content[place] = [attack] if place == "optimizer_states" else {"x": attack}

    refused(path, poison, "refused as unsafe: its pickle asks for (posix|nt).system")
    assert not canary.exists()


def torch_save_as_before_zip(value: object, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def save_pickle(value: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(value))


def test_a_bare_pickle_is_refused(path: Path) -> None:
    path.write_bytes(pickle.dumps({"state_dict": {}}, 2))

    with pytest.raises(IntegrityError, match="bare pickle"):
        open_checkpoint(path)


@pytest.mark.parametrize("save", [torch_save_as_before_zip, save_pickle])
def test_a_poisoned_file_of_no_archive_is_refused_by_the_name_it_asks_for(
    path: Path, save: Callable[[object, Path], None]
) -> None:
    save({"x": Calls(os.mkdir, str(path.with_name("made")))}, path)

    with pytest.raises(IntegrityError, match=r"refused as unsafe: .* asks for \w+\.mkdir"):
        open_checkpoint(path)
    assert not path.with_name("made").exists()


def test_the_form_from_before_zip_is_refused(path: Path) -> None:
    torch_save_as_before_zip({"state_dict": {}}, path)

    with pytest.raises(IntegrityError, match="bare pickle"):
        open_checkpoint(path)


# Files that are not what they should be


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3980245067\n", "LFS"),
        (b"<!doctype html>", "not a checkpoint"),
        (b"PK\3\4", "truncated"),
    ],
)
def test_a_file_that_is_no_archive_is_refused(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)

    with pytest.raises(IntegrityError, match=words):
        open_checkpoint(path)


@pytest.mark.parametrize("percent", range(5, 100, 10))
def test_a_truncated_checkpoint_is_refused(path: Path, percent: int) -> None:
    data = write_checkpoint(path).read_bytes()
    path.write_bytes(data[: len(data) * percent // 100])

    with pytest.raises(IntegrityError, match="truncated"):
        open_checkpoint(path)


def test_a_file_that_is_not_there_is_the_users_mistake(path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        open_checkpoint(path)


def rezip(path: Path, change: Callable[[zipfile.ZipFile, str, bytes], None]) -> None:
    """Copy an archive member by member, each in the hands of `change`."""
    old = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(old) as before, zipfile.ZipFile(path, "w") as after:
        for name in before.namelist():
            change(after, name, before.read(name))


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("tampered", "words"),
    [
        (lambda z, n, b: z.writestr(n, b, zipfile.ZIP_DEFLATED), "compressed"),
        (lambda z, n, b: (z.writestr(n, b), z.writestr(n, b)), "one name"),
        (lambda z, n, b: (z.writestr(n, b), z.writestr(n.upper() + "Z", b), z.writestr(n + "z", b)), "one name"),
        (lambda z, n, b: z.writestr(n if "data/" in n else f"x{n}", b), "2 folders"),
        (lambda z, n, b: z.writestr(n, b"big" if n.endswith("byteorder") else b), "little-endian"),
        (lambda z, n, b: None if n.endswith("data.pkl") else z.writestr(n, b), "no data.pkl"),
        (lambda z, n, b: None if n.endswith("data/1") else z.writestr(n, b), "no data/1"),
        (lambda z, n, b: z.writestr(n, b[:-4] if n.endswith("data/1") else b), "larger than its storage"),
        (lambda z, n, b: z.writestr(n, b + bytes(LARGEST_PICKLE) if n.endswith(".pkl") else b), "too large"),
    ],
)  # fmt: skip
def test_an_archive_that_torch_would_not_write_is_refused(
    path: Path, tampered: Callable[[zipfile.ZipFile, str, bytes], None], words: str
) -> None:
    rezip(write_checkpoint(path), tampered)

    with pytest.raises(IntegrityError, match=words):
        open_tokenizer(path).info()


def test_a_flipped_bit_in_a_weight_is_found(path: Path) -> None:
    write_checkpoint(path)
    archive = TorchArchive.open(path)
    content: Any = archive.content
    weight = bytes(archive.array("codes", content["state_dict"][CODES]).data)
    data = path.read_bytes()
    assert data.count(weight) == 1
    at = data.index(weight)
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])

    with pytest.raises(IntegrityError, match=r"corrupt: the checksum of data/\d+ is wrong"):
        open_tokenizer(path).info()


# Models that are not whole


def put(key: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Edit:
    def edit(content: Content) -> None:
        content["state_dict"][key] = value(content["state_dict"][key])

    return edit


def model_spec(**values: object) -> Edit:
    def edit(content: Content) -> None:
        spec = content["hyper_parameters"]["predictor_args"].pl_kwargs["model_spec"]
        spec.update(values)

    return edit


def image_spec(**values: object) -> Edit:
    def edit(content: Content) -> None:
        images = content["hyper_parameters"]["context_encoder_args"]["images"]
        images.pl_kwargs["model_spec"].update(values)

    return edit


def at_top(**values: object) -> Edit:
    return lambda content: content.update(values)


def without(key: str) -> Edit:
    def edit(content: Content) -> None:
        del content["state_dict"][key]

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (without(CODES), r"1 tensors missing from state_dict, such as .*_embedding\.weight"),
        (without(HEAD), "missing.*lm_head"),
        (put(CODES, lambda t: t[:, :3].clone()), r"has shape \(40, 3\), expected \(40, 4\)"),
        (put(CODES, lambda t: t * float("nan")), "not finite"),
        (put(HEAD, lambda t: t / 0), "not finite"),
        (put(CODES, lambda t: t.double()), "DoubleStorage, expected float32"),
        (put(CODES, lambda t: torch.zeros(1, 1).expand(t.shape)), r"strides.*\.contiguous\(\)"),
        (image_spec(vocab_size=41), "expected"),
        (image_spec(vocab_size=1 << 40), "expected an integer in 1..65536"),
        (image_spec(num_layers=-1), "expected an integer in 1..64"),
        (image_spec(num_layers="2"), "num_layers is a str, expected an integer"),
        (model_spec(seq_len=3), "expected"),
        (model_spec(seq_len=True), "seq_len is a bool"),
        (model_spec(nanogpt_version=2), "version 1 is False, by its tensors True"),
        (model_spec(bias=False), "bias is False, by its tensors True"),
        (model_spec(model_size="wham-3b"), "means 30 layers"),
        (model_spec(gpt_config={"n_layer": 2, "n_head": 3, "n_embd": 8}), "3 heads do not divide"),
        (at_top(state_dict=[]), "state_dict is a list"),
        (at_top(hyper_parameters=argparse.Namespace(x=1)), "argparse.Namespace, expected a plain"),
        (at_top(hyper_parameters={}), "missing context_encoder_args"),
        (lambda content: content.pop("state_dict"), "missing state_dict"),
        (lambda content: content.pop("hyper_parameters"), "missing hyper_parameters"),
    ],
)
def test_a_checkpoint_without_the_model_it_speaks_of_is_refused(
    path: Path, edit: Edit, words: str
) -> None:
    refused(path, edit, words)


def swap_modalities(content: Content) -> None:
    encoders = content["hyper_parameters"]["context_encoder_args"]
    encoders["images"] = encoders.pop("images")


def other_encoder(content: Content) -> None:
    encoders = content["hyper_parameters"]["context_encoder_args"]
    encoders["images"] = CreationArgs(ActionTokenEncoder, {})


def second_file(content: Content) -> None:
    content["hyper_parameters"]["predictor_args"].pl_checkpoint_path = "/models/other.ckpt"


def second_tokenizer_file(content: Content) -> None:
    images = content["hyper_parameters"]["context_encoder_args"]["images"]
    images.pl_kwargs["ckpt_path"] = "https://example.org/other.ckpt"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (swap_modalities, "'actions_output', 'images', expected images then actions_output"),
        (other_encoder, "ActionTokenEncoder', expected VQGANModel or TamingVQModel"),
        (second_file, "a reference to a second file"),
        (second_tokenizer_file, "ckpt_path 'https://example.org/other.ckpt'.* second file"),
    ],
)
def test_a_model_of_other_parts_is_refused(path: Path, edit: Edit, words: str) -> None:
    refused(path, edit, words)


def test_two_tokenizers_that_do_not_fit_are_no_pair() -> None:
    with pytest.raises(IntegrityError, match="to encode with"):
        TokenizerConfig(VIT, TAMING)
