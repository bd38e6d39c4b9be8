"""Dreams and exports are the same whether they are made in this process or by workers on Ray."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from makers.dreams import GREEDY, dream, small_checkpoint, wham_episode, write_npz
from makers.exports import picture_corpus

import wham_data
from wham_data.corpus import Corpus
from wham_data.inference.tokenizer import tokenizer_info
from wham_data.pipelines.run.choose import choose_workers, workers_at_once
from wham_data.pipelines.run.ray_jobs import RayRunner
from wham_data.schemas.errors import UsageError
from wham_data.schemas.manifest import EpisodeRow

WHAM: dict[str, Any] = {"size": (300, 180)}


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A small cluster that all tests here share: starting one takes ten seconds."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    yield cluster.address
    cluster.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder; of `dream.json` what does not depend on the clock."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }
    for name in [name for name in found if name.endswith("dream.json")]:
        told: dict[str, Any] = json.loads(found[name])
        del told["stats"]["ms_per_frame"]
        found[name] = json.dumps(told).encode()
    return found


@pytest.mark.timeout(400)  # two workers load torch, twice
def test_dreams_on_ray_are_those_of_this_process(address: str, tmp_path: Path) -> None:
    for number in range(4):
        write_npz(tmp_path / "data" / f"{number}.npz", wham_episode(seed=number))
    write_npz(tmp_path / "data" / "short.npz", wham_episode(steps=2))
    checkpoint = small_checkpoint(tmp_path)
    flags = (
        "--context", 3, "--steps", 2, "--seed", 7, "--batch-size", 2,
        "--save", "npz,csv,png", "--device", "cpu",
    )  # fmt: skip
    given = (tmp_path / "data", "--model", checkpoint, *flags, "--json")

    here = dream(*given, "--out", tmp_path / "here")
    there = dream(*given, "--out", tmp_path / "there", "--workers", 2, "--ray-address", address)

    assert here.code == there.code == 3, there.error
    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    kept = ("found", "made", "failed", "dreams", "frames", "acceptance", "tokens_per_pass")
    assert [here.report[name] for name in kept] == [there.report[name] for name in kept]
    assert there.report["made"] == 4

    for folder in ("here", "there"):
        (tmp_path / folder / "0.npz").unlink()
    again = dream(*given, "--out", tmp_path / "there", "--workers", 2, "--ray-address", address)

    assert (again.report["completed"], again.report["made"]) == (1, 0)
    dream(*given, "--out", tmp_path / "here")
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_a_cluster_is_asked_for_its_room(address: str) -> None:
    assert workers_at_once(None, RayRunner(None, address), "auto", gpus=8) == 2  # not our GPUs


def test_a_damaged_model_ends_the_run_on_ray_as_it_does_here(address: str, tmp_path: Path) -> None:
    write_npz(tmp_path / "data" / "a.npz", wham_episode())
    (tmp_path / "m.ckpt").write_bytes(b"no model")
    given = (tmp_path / "data", "--model", tmp_path / "m.ckpt", "--out", tmp_path / "out", *GREEDY)

    here, there = dream(*given), dream(*given, "--ray-address", address)

    assert (here.code, here.error) == (there.code, there.error)
    assert here.code not in (0, 3)


@pytest.mark.parametrize("to", ["wham-npz", "lerobot"])
def test_an_export_on_ray_is_that_of_this_process(address: str, tmp_path: Path, to: str) -> None:
    corpus = one_damaged(tmp_path)

    here = wham_data.export(corpus, to=to, out=tmp_path / "here")
    there = wham_data.export(corpus, to=to, out=tmp_path / "there", workers=2, ray_address=address)

    assert contents(tmp_path / "here") == contents(tmp_path / "there")
    assert (here.found, here.written, here.failed) == (there.found, there.written, there.failed)
    assert there.written == here.written == 2


def one_damaged(folder: Path) -> Corpus:
    """Three episodes; the second cannot be read."""
    corpus = picture_corpus(folder / "corpus", "wham16", {"a": {}, "z": {}}, **WHAM)
    poor = picture_corpus(folder / "poor", "wham16", {"m": {}}, **WHAM)
    (shard,) = poor.episodes["shard"]
    content = bytearray((folder / "poor/shards" / shard).read_bytes())
    content[len(content) // 2] ^= 255
    (folder / "corpus/shards" / shard).write_bytes(content)
    rows = poor.episodes.drop("created").rows(named=True)
    Corpus.open(corpus.location).commit([EpisodeRow.from_record(row) for row in rows])
    return Corpus.open(corpus.location)


def test_pictures_decoded_on_ray_are_those_of_this_process(address: str, tmp_path: Path) -> None:
    made_by = tokenizer_info("wham-tiny")
    corpus = picture_corpus(
        tmp_path / "corpus", n_steps=2, frames="none", tokenizer=made_by, **WHAM
    )

    wham_data.export(corpus, to="wham-npz", out=tmp_path / "here", device="cpu")
    report = wham_data.export(
        corpus, to="wham-npz", out=tmp_path / "there", device="cpu", ray_address=address
    )

    assert (report.pictures, report.written) == ("decoded", 2)
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_without_workers_and_address_all_is_done_in_this_process() -> None:
    assert choose_workers(None, None) is None
    assert choose_workers(0, None) is None
    assert choose_workers(2, None) is not None
    with pytest.raises(UsageError, match="--workers 0 runs without Ray"):
        choose_workers(0, "auto")
