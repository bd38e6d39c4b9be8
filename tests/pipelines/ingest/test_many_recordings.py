"""Many short recordings share few shards, whatever happens on the way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from makers.recordings import PLAIN, BreaksOff, Cut, cut, digest, ingest_here

from wham_data.corpus import Corpus
from wham_data.corpus.compact import FEW_SHARDS
from wham_data.pipelines.ingest.job import run_ingest

RECORDINGS = FEW_SHARDS + 2


@pytest.fixture(scope="module")
def many_recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """More recordings than small shards are left alone; they differ in their metadata."""
    folder = tmp_path_factory.mktemp("many")
    first = cut(folder, "play0", Cut("coinrun", 1, 1))
    for number in range(1, RECORDINGS):
        for ending in (".mp4", ".csv"):
            shutil.copy(first.with_suffix(ending), folder / f"play{number}{ending}")
        about = first.with_suffix(".toml").read_text()
        (folder / f"play{number}.toml").write_text(f'{about}match = "m{number}"\n')
    return folder


@pytest.fixture(scope="module")
def whole(many_recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "corpus"
    ingest_here(many_recordings, out)
    return out


def test_they_end_in_one_file_and_a_second_run_does_nothing(
    whole: Path, many_recordings: Path
) -> None:
    corpus, before = Corpus.open(whole), digest(whole)
    assert len(corpus.episodes) == RECORDINGS
    assert len(list((whole / "shards").iterdir())) == 1
    assert corpus.verify().ok

    report = ingest_here(many_recordings, whole)

    assert (report.ingested, report.already_there) == (0, RECORDINGS)
    assert digest(whole) == before


def test_a_run_that_breaks_off_and_is_repeated_ends_with_the_same_files(
    whole: Path, many_recordings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    with pytest.raises(KeyboardInterrupt):
        run_ingest([many_recordings], out, PLAIN, BreaksOff(after=40))
    assert len(list((out / "shards").iterdir())) == 40

    ingest_here(many_recordings, out)

    assert digest(out) == digest(whole)
    names = [sorted(path.name for path in (each / "shards").iterdir()) for each in (out, whole)]
    assert names[0] == names[1]


def test_whoever_wants_a_shard_for_each_recording_gets_it(
    many_recordings: Path, tmp_path: Path
) -> None:
    ingest_here(many_recordings, tmp_path / "corpus", merge_shards=False)
    assert len(list((tmp_path / "corpus" / "shards").iterdir())) == RECORDINGS
