"""Export to LMDB shards: rows of equal length, read by our reader and by the library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers.exports import SIZE, picture_corpus, picture_of
from makers.readings import frames_of, recordings_in

import wham_data
from wham_data.corpus.corpus import Corpus
from wham_data.pipelines.readers import discover
from wham_data.schemas.errors import Reason, UsageError

lmdb = pytest.importorskip("lmdb")

EPISODES = {
    "e0": {"split": "train", "game": "clean_up"},
    "e1": {"split": "val"},
    "e2": {"split": "train", "n_steps": 7},
}
CLIP = {"clip": "3"}


def numbers_in(corpus: Corpus, episode: str) -> list[int]:
    """Numbers of an episode's actions."""
    steps = corpus.scan().collect().filter(episode=episode)
    return [int(np.argmax(row)) for row in steps["actions"].to_list()]


def test_clips_of_a_match_come_back_frame_by_frame(tmp_path: Path) -> None:
    corpus = picture_corpus(
        tmp_path / "corpus", "meltingpot9", EPISODES, state_size=2, text=True, reward=True
    )

    report = wham_data.export(corpus, to="lmdb", out=tmp_path / "out", options=CLIP)

    assert report.written == 3
    found = recordings_in(tmp_path / "out")
    shard = "train/train-00000/data.mdb"
    assert list(found) == [*(f"{shard}#row_{k}" for k in range(4)), "val/val-00000/data.mdb#row_0",
                           "val/val-00000/data.mdb#row_1"]  # fmt: skip
    for row, (number, first) in enumerate([(0, 0), (0, 3), (2, 0), (2, 3)]):
        opened = found[f"{shard}#row_{row}"]
        truth = [picture_of(number, step) for step in range(first, first + 3)]
        np.testing.assert_array_equal(frames_of(opened, SIZE), truth)
        assert opened.actions is not None
        wanted = numbers_in(corpus, f"e{number}")[first : first + 3]
        assert opened.actions.values.argmax(axis=1).tolist() == wanted
        assert opened.states is not None
        assert opened.states.tolist() == [[k, k] for k in range(first, first + 3)]
        assert opened.texts == [f"task {first // 4}"] * 3
    games = {
        each.part: each.provenance.game for each in discover([tmp_path / "out/train"]).recordings
    }
    assert games["row_0"] == "clean_up"


def test_what_the_library_reads_has_the_shapes_that_it_says(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus", "wham16", EPISODES)
    wham_data.export(corpus, to="lmdb", out=tmp_path / "out", options=CLIP)

    folder = str(tmp_path / "out/train/train-00000")
    with lmdb.open(folder, readonly=True, lock=False) as shard, shard.begin() as transaction:
        found = {bytes(key).decode(): bytes(value) for key, value in transaction.cursor()}

    assert found["rgb_shape"] == b"4 3 64 96 3"
    assert found["action_values_shape"] == b"4 3 16"
    pictures = np.frombuffer(found["rgb_3_data"], np.uint8).reshape(3, 64, 96, 3)
    np.testing.assert_array_equal(pictures[0], picture_of(2, 3))
    steps = corpus.scan().collect().filter(episode="e2")
    rows = np.frombuffer(found["action_values_3_data"], np.float32).reshape(3, 16)
    assert rows[0].tolist() == steps["actions"][3].to_list()


def test_an_episode_shorter_than_a_clip_fails_and_no_other(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus", "meltingpot9", EPISODES)

    report = wham_data.export(corpus, to="lmdb", out=tmp_path / "out", options={"clip": "7"})

    assert (report.written, report.exit_code) == (1, 3)
    assert {(each.episode, each.reason) for each in report.failed} == {
        ("e0", Reason.TOO_SHORT),
        ("e1", Reason.TOO_SHORT),
    }
    assert len(recordings_in(tmp_path / "out")) == 1


def test_a_row_that_fits_no_memory_is_refused_with_the_way_out(tmp_path: Path) -> None:
    corpus = picture_corpus(tmp_path / "corpus")

    with pytest.raises(UsageError, match="use --option clip=N with fewer steps"):
        wham_data.export(corpus, to="lmdb", out=tmp_path / "out", options={"clip": "100000"})
