"""A machine that sees another disk is told from one that sees the same."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from wham_data.corpus.storage.local import LocalStorage
from wham_data.pipelines.run.same_files import same_files
from wham_data.schemas.errors import MismatchError


def test_the_same_disk_passes_and_nothing_stays_on_it(tmp_path: Path) -> None:
    recording = tmp_path / "a.mp4"
    recording.write_bytes(b"video")

    with same_files([LocalStorage(tmp_path / "corpus")], [recording]) as check:
        pickle.loads(pickle.dumps(check))()

    assert list((tmp_path / "corpus" / "shards").iterdir()) == []


def test_another_corpus_in_the_same_place_is_found(tmp_path: Path) -> None:
    ours = tmp_path / "corpus"
    with same_files([LocalStorage(ours)], []) as check:
        ours.rename(tmp_path / "hidden")  # as on a machine that has its own disk there
        (ours / "shards").mkdir(parents=True)

        with pytest.raises(MismatchError, match=f"{ours} is not the corpus that the command sees"):
            check()


def test_a_missing_or_other_recording_is_named(tmp_path: Path) -> None:
    recording = tmp_path / "a.mp4"
    recording.write_bytes(b"video")
    with same_files([LocalStorage(tmp_path / "corpus")], [recording]) as check:
        recording.write_bytes(b"longer video")
        with pytest.raises(MismatchError, match=r"a\.mp4: 12 bytes, but 5 bytes where"):
            check()
        recording.unlink()
        with pytest.raises(MismatchError, match=r"a\.mp4: No such file .*same paths"):
            check()
