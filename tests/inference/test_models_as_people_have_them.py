"""Models are found and opened as they come: clones, wrapped modules, sharded weights, old pickles."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from makers.wham_checkpoints import VIT, Content, write_checkpoint
from safetensors.torch import load_file, save_file

from wham_data.files.inert_pickle import Inert, Name, read_pickle
from wham_data.inference.checkpoints.convert import convert
from wham_data.inference.checkpoints.lightning import open_checkpoint, open_tokenizer
from wham_data.inference.checkpoints.locate import locate_model
from wham_data.inference.checkpoints.wrappers import WRAPPERS, without_wrappers
from wham_data.schemas.errors import IntegrityError, UsageError

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 39123488\n"


class AttributeDict(dict[str, object]):
    """A kind of dict, as Lightning kept hyper-parameters in."""


class ModelCheckpoint:
    """A callback."""


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("plain") / "WHAM_200M.ckpt", VIT)


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    return convert(plain, tmp_path / "model").out


# Wrapped modules


def wrapped(path: Path, change: Callable[[str], str]) -> Path:
    def edit(content: Content) -> None:
        state = content["state_dict"]
        content["state_dict"] = {change(key): value for key, value in state.items()}

    return write_checkpoint(path, VIT, edit=edit)


@pytest.mark.parametrize(
    "change",
    [
        lambda key: f"_orig_mod.{key}",
        lambda key: f"module.{key}",
        lambda key: f"module._orig_mod.{key}",
        lambda key: f"_forward_module.module.{key}",
        lambda key: key.replace(".", "._orig_mod.", 1),
        lambda key: f"_orig_mod.{key}" if key.startswith("predictor") else key,
    ],
)
def test_names_of_wrappers_are_taken_out_of_the_keys_and_that_is_told(
    plain: Path, tmp_path: Path, change: Callable[[str], str]
) -> None:
    opened = open_checkpoint(wrapped(tmp_path / "w.ckpt", change))

    assert (
        opened.tokenizer.info().fingerprint == open_checkpoint(plain).tokenizer.info().fingerprint
    )
    weights, expected = (
        dict(each.world_model_tensors()) for each in (opened, open_checkpoint(plain))
    )
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert opened.notes
    assert "taken out of the keys" in opened.notes[0]
    assert open_checkpoint(plain).notes == ()


def test_keys_that_would_become_one_stay_as_they_are() -> None:
    keys = ["module.a.w", "a.w", "b"]

    assert without_wrappers(keys).keys == {key: key for key in keys}
    assert without_wrappers(keys).removed == ()


parts = st.sampled_from(["a", "b", "weight", *WRAPPERS])
keys = st.lists(parts, min_size=1, max_size=4).map(".".join)


@given(st.lists(keys, unique=True, max_size=6))
def test_no_key_is_lost_and_none_is_invented(stored: list[str]) -> None:
    found = without_wrappers(stored)

    assert sorted(found.keys.values()) == sorted(stored)
    if found.removed:
        assert not {part for key in found.keys for part in key.split(".")}.intersection(WRAPPERS)


def test_a_missing_key_is_named_beside_one_that_is_there(tmp_path: Path) -> None:
    path = wrapped(tmp_path / "w.ckpt", lambda key: f"net.{key}")

    with pytest.raises(IntegrityError, match=r"missing from state_dict, such as .*it has 'net\."):
        open_checkpoint(path)


# Folders, names and addresses


@pytest.mark.parametrize("where", ["WHAM_200M.ckpt", "models/wham.ckpt", "weights/a b.ckpt"])
def test_the_only_checkpoint_of_a_clone_is_taken_and_that_is_told(
    plain: Path, tmp_path: Path, where: str
) -> None:
    (tmp_path / where).parent.mkdir(exist_ok=True)
    (tmp_path / where).symlink_to(plain)
    (tmp_path / "config.json").write_text('{"architectures": ["WHAM"]}')

    opened = open_checkpoint(tmp_path)

    assert opened.path == tmp_path / where
    assert where in opened.notes[0]
    assert open_tokenizer(tmp_path).path == tmp_path / where


def test_a_model_folder_one_level_down_is_taken(folder: Path) -> None:
    assert locate_model(folder.parent).path == folder
    assert locate_model(folder).note == ""


def test_of_several_models_the_names_are_told(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    for name in ("WHAM_200M.ckpt", "WHAM_1.6B.ckpt"):
        (tmp_path / "models" / name).symlink_to(plain)

    with pytest.raises(UsageError, match=r"models/WHAM_1\.6B\.ckpt, models/WHAM_200M\.ckpt"):
        open_checkpoint(tmp_path)


def test_a_sharded_transformers_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {}}')

    with pytest.raises(UsageError, match=r"sharded Transformers model"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("ref", "told"),
    [
        ("microsoft/wham", "`hf download microsoft/wham --local-dir"),
        ("hf://org/model", "hf://org/model: no such"),
        ("hf://org/model", "`hf download org/model "),
        ("https://huggingface.co/org/model", "`hf download org/model "),
        (
            "https://huggingface.co/org/m/resolve/main/models/W.ckpt?download=true",
            "`hf download org/m models/W.ckpt ",
        ),
        ("https://example.org/m.ckpt", "`curl -LO https://example.org/m.ckpt`"),
        ("s3://bucket/m.ckpt", "s3://bucket/m.ckpt: an address"),
    ],
)
def test_what_is_elsewhere_is_refused_with_the_command_that_downloads_it(
    ref: str, told: str
) -> None:
    with pytest.raises(UsageError) as refused:
        open_checkpoint(ref)

    assert told in str(refused.value)
    assert "nothing is downloaded" in str(refused.value)


@pytest.mark.parametrize("ref", ["missing.ckpt", "models/missing.ckpt", "./org/model", "/no/model"])
def test_a_path_where_nothing_is_is_no_repository(ref: str) -> None:
    assert locate_model(ref).path == Path(ref)


# Sharded safetensors


def shard(folder: Path, name: str, count: int) -> Path:
    """Replace a safetensors file by `count` files and their index."""
    tensors = load_file(folder / name)
    (folder / name).unlink()
    weight_map = {}
    for k in range(count):
        mine = dict(list(tensors.items())[k::count])
        file = f"{Path(name).stem}-{k + 1:05d}-of-{count:05d}.safetensors"
        save_file(mine, folder / file)
        weight_map |= dict.fromkeys(mine, file)
    index = folder / f"{name}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def contents(path: Path) -> tuple[str, dict[str, Any]]:
    opened = open_checkpoint(path)
    return opened.tokenizer.info().fingerprint, dict(opened.world_model_tensors())


@pytest.mark.parametrize("counts", [(1, 2), (3, 1), (2, 4)])
def test_sharded_weights_are_the_same_model(folder: Path, counts: tuple[int, int]) -> None:
    fingerprint, weights = contents(folder)
    for name, count in zip(("tokenizer", "world_model"), counts, strict=True):
        shard(folder, f"{name}.safetensors", count)

    again, sharded = contents(folder)

    assert again == fingerprint
    assert all(torch.equal(sharded[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    "file",
    ["../other.safetensors", "/etc/passwd", "a/b.safetensors", "..", "", "x.bin", "a\\b.safetensors",
     ".hidden.safetensors", 7, None, "a\n.safetensors", "a" * 400 + ".safetensors"],
)  # fmt: skip
def test_an_index_names_only_files_beside_it(folder: Path, file: object) -> None:
    index = shard(folder, "world_model.safetensors", 2)
    content = json.loads(index.read_text())
    content["weight_map"][next(iter(content["weight_map"]))] = file
    index.write_text(json.dumps(content))

    with pytest.raises(IntegrityError, match="refused as unsafe"):
        open_checkpoint(folder)


def test_a_tensor_in_two_files_is_refused(folder: Path) -> None:
    index = shard(folder, "world_model.safetensors", 2)
    first, second = sorted(folder.glob("world_model-*.safetensors"))
    save_file({**load_file(first), **load_file(second)}, first)

    with pytest.raises(IntegrityError, match=rf"{first.name}: (tensors missing|\d+ bytes)"):
        open_checkpoint(folder)
    assert index.is_file()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "weight_map"),
        ("[1]", "weight_map"),
        ("[" * 100_000, "not valid JSON"),
        ('{"weight_map": {}}', "tensors missing"),
        (LFS, "Git LFS pointer"),
    ],
)
def test_a_damaged_index_is_refused(folder: Path, text: str, told: str) -> None:
    shard(folder, "tokenizer.safetensors", 2).write_text(text)

    with pytest.raises(IntegrityError, match=told):
        open_checkpoint(folder)


def test_a_missing_shard_is_named(folder: Path) -> None:
    shard(folder, "world_model.safetensors", 3)
    (folder / "world_model-00002-of-00003.safetensors").unlink()

    with pytest.raises(UsageError, match="world_model-00002-of-00003"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    "name", ["tokenizer.safetensors", "world_model.safetensors", "config.json"]
)
def test_a_pointer_in_a_models_folder_is_named(folder: Path, name: str) -> None:
    (folder / name).write_text(LFS)

    with pytest.raises(IntegrityError, match="Git LFS pointer"):
        open_checkpoint(folder)


# Pickles


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    ("value", "name", "arguments"),
    [
        (range(2, 20, 3), "range", (2, 20, 3)),
        (slice(1, None, 2), "slice", (1, None, 2)),
        (complex(1, -2), "complex", (1.0, -2.0)),
    ],
)
def test_plain_data_of_python_is_data_in_every_protocol(
    protocol: int, value: object, name: str, arguments: tuple[object, ...]
) -> None:
    found = read_pickle(pickle.dumps({"v": value}, protocol))

    assert isinstance(found, dict)
    assert isinstance(found["v"], Inert)
    assert (found["v"].name, found["v"].arguments) == (Name("builtins", name), arguments)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [int, str, bytes, range, list, dict, float, bool, complex, slice])
def test_classes_of_plain_data_are_names_in_every_protocol(protocol: int, kind: type) -> None:
    assert read_pickle(pickle.dumps(kind, protocol)) == Name("builtins", kind.__name__)


@pytest.mark.parametrize(
    "name", ["eval", "exec", "getattr", "apply", "execfile", "file", "input", "reduce", "open"]
)
def test_functions_under_their_names_of_python_2_are_refused(name: str) -> None:
    with pytest.raises(IntegrityError, match="unsafe"):
        read_pickle(b"\x80\x02c__builtin__\n" + name.encode() + b"\n.")


def test_a_checkpoint_of_lightning_before_1_6_is_opened(tmp_path: Path, plain: Path) -> None:
    def edit(content: Content) -> None:
        content["pytorch-lightning_version"] = "1.5.10"
        content["callbacks"] = {
            ModelCheckpoint: {"best_model_score": torch.tensor(0.5), "best_model_path": Path("a")},
        }
        content["hyper_parameters"] = AttributeDict(content["hyper_parameters"])
        content["hparams_type"] = AttributeDict
        content["hparams_name"] = "hparams"
        content["amp_scaling_state"] = {"scale": 65536.0}

    path = write_checkpoint(tmp_path / "old.ckpt", VIT, edit=edit)

    assert contents(path)[0] == contents(plain)[0]
