"""DreamerV3's replay: chunks joined, only what was written read, episodes whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.readings import frames_of, recordings_in, the_recording
from makers.recordings import ingest_here
from makers.video_clips import read_stamp, stamped
from numpy.typing import NDArray

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers import discover
from wham_data.schemas.errors import Reason, RefusedInput

SIZE = (96, 64)
ROOM = 8
UUIDS = ("Zzz1", "Aaa2", "Mmm3", "Bbb4")
NATIVE = IngestSettings(rate=None, size=SIZE, tokenizer=None)


def stream(lengths: list[int], actions: NDArray[np.float32] | None = None) -> dict[str, Any]:
    """Episodes of these lengths, one after the other; row k shows number k and earned k."""
    count = sum(lengths)
    firsts = np.cumsum([0, *lengths[:-1]])
    lasts = np.cumsum(lengths) - 1
    numbered = np.eye(3, dtype=np.float32)[np.arange(count) % 3]
    rows = {
        "image": np.stack([stamped(k, *SIZE) for k in range(count)]),
        "action": numbered if actions is None else actions,
        "reward": np.arange(count, dtype=np.float32),
        "is_first": np.isin(np.arange(count), firsts),
        "is_last": np.isin(np.arange(count), lasts),
    }
    rows["action"] = np.where(rows["is_last"][:, None], 0, rows["action"])
    return rows


def write(folder: Path, rows: dict[str, Any], skip: int | None = None, **broken: Any) -> None:
    """Chunks of ROOM rows; what was not written is garbage, and so is the order of the names."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(rows["reward"])
    starts = range(0, count, ROOM)
    for number, start in enumerate(starts):
        written = min(ROOM, count - start)
        chunk = {}
        for name, values in rows.items():
            room = np.full((ROOM, *values.shape[1:]), 1, values.dtype)
            room[:written] = values[start : start + written]
            chunk[name] = broken.get(name, room)
        after = UUIDS[number + 1] if number + 1 < len(starts) else "0" * 4
        name = f"20261121T03595{number}F9-{UUIDS[number]}-{after}-{written}.npz"
        if number != skip:
            np.savez_compressed(folder / name, **chunk)


def test_an_episode_goes_from_one_beginning_to_the_next_over_as_many_files_as_it_takes(
    tmp_path: Path,
) -> None:
    write(tmp_path, stream([5, 13, 2]))

    found = recordings_in(tmp_path)

    shown = [[read_stamp(f) for f in frames_of(opened, SIZE)] for opened in found.values()]
    assert sorted(shown) == [list(range(5)), list(range(5, 18)), [18, 19]]
    assert [name.partition("#")[2] for name in found] == ["row_0", "row_5", "row_2"]


def test_actions_act_after_their_frame_and_the_last_one_is_not_known(tmp_path: Path) -> None:
    write(tmp_path, stream([4]))

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert opened.actions.space.name == "discrete3"
    assert opened.actions.values[:3].argmax(axis=1).tolist() == [0, 1, 2]
    assert np.isnan(opened.actions.values[3]).all()


def test_a_reward_is_counted_to_the_action_that_earned_it(tmp_path: Path) -> None:
    write(tmp_path, stream([4]))

    assert the_recording(tmp_path).rewards.tolist() == [1, 2, 3, 0]  # type: ignore[union-attr]


def test_actions_that_are_no_choice_of_one_are_a_vector(tmp_path: Path) -> None:
    moves = np.linspace(-1.5, 30, 8, dtype=np.float32).reshape(4, 2)
    write(tmp_path, stream([4], moves))

    opened = the_recording(tmp_path, frame_rate="20")

    assert opened.actions is not None
    assert opened.actions.space.name == "numbers2"
    assert opened.actions.values[:3].tolist() == moves[:3].tolist()
    assert opened.actions.clamped == 0
    assert opened.frame_times_ns.tolist() == [0, 50_000_000, 100_000_000, 150_000_000]


def test_an_episode_whose_beginning_is_gone_says_so(tmp_path: Path) -> None:
    write(tmp_path, stream([12, 3]), skip=0)

    first, second = recordings_in(tmp_path).values()

    assert "the episode begins before the first chunk there is" in first.notes
    assert [read_stamp(f) for f in frames_of(first, SIZE)] == [8, 9, 10, 11]
    assert len(second.notes) == 1


def test_a_missing_chunk_parts_the_stream(tmp_path: Path) -> None:
    write(tmp_path, stream([20]), skip=1)

    shown = [[read_stamp(f) for f in frames_of(o, SIZE)] for o in recordings_in(tmp_path).values()]

    assert shown == [list(range(8)), [16, 17, 18, 19]]


def test_every_episode_is_in_the_corpus_once_and_a_second_run_is_free(tmp_path: Path) -> None:
    write(tmp_path / "in", stream([5, 13, 2]))

    first = ingest_here(tmp_path / "in", tmp_path / "corpus", NATIVE)
    again = ingest_here(tmp_path / "in", tmp_path / "corpus", NATIVE)

    assert (first.found, first.ingested, first.episodes, first.steps) == (3, 3, 3, 20)
    assert (again.ingested, again.already_there) == (0, 3)
    corpus = Corpus.open(tmp_path / "corpus")
    assert len(set(corpus.episodes["recording"])) == 3
    assert all("#row_" in source for source in corpus.episodes["source"])
    assert corpus.verify().ok


def test_one_bad_episode_leaves_its_neighbours_in_the_file_alone(tmp_path: Path) -> None:
    moves = np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2, 0, 1]]
    moves[6] = 0.5
    write(tmp_path / "in", stream([4, 4], moves))

    settings = replace(NATIVE, actions="discrete3")
    report = ingest_here(tmp_path / "in", tmp_path / "corpus", settings)

    assert (report.ingested, report.quarantined) == (1, 1)
    ((path, reason),) = Corpus.open(tmp_path / "corpus").quarantine.select("path", "reason").rows()
    assert path.endswith("-8.npz#row_4")
    assert reason == Reason.SPACE_MISMATCH


def test_other_npz_files_are_left_alone(tmp_path: Path) -> None:
    np.savez(tmp_path / "20261121T035950F9-Aaa2-0000-3.npz", weights=np.zeros(3))
    np.savez(tmp_path / "notes.npz", **stream([3]))

    assert recordings_in(tmp_path, "dreamer-replay") == {}


@pytest.mark.parametrize("damage", ["cut", "shorter than its name says"])
def test_a_damaged_chunk_is_refused(tmp_path: Path, damage: str) -> None:
    write(tmp_path, stream([6]))
    (path,) = tmp_path.iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-50])
    else:
        path.rename(path.with_name(path.name.replace("-6.npz", "-9.npz")))

    ((refused, why),) = discover([tmp_path]).refused

    assert refused.parent == tmp_path
    assert why.reason is Reason.TRUNCATED


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    write(tmp_path, stream([6]), is_first=np.array([None] * ROOM))

    ((_, why),) = discover([tmp_path]).refused

    assert why.reason is Reason.PICKLED_OBJECTS


def test_pictures_of_another_kind_are_refused(tmp_path: Path) -> None:
    write(tmp_path, stream([6]), image=np.zeros((ROOM, 4, 4, 1), np.uint8))

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)

    assert refused.value.reason is Reason.NOT_A_VIDEO
