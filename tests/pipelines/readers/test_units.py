"""Folders are searched piece by piece, and what is found does not depend on the pieces."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from makers.recordings import Cut, cut

from wham_data.files.found import listed
from wham_data.pipelines.readers import READERS, SourceSearch, chosen_readers, discover, recognise
from wham_data.pipelines.readers.kit.units import DIVIDED_FROM, FoundInUnit, Unit, units_in
from wham_data.schemas.recording import Recording

PAIRS = 600


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut(tmp_path_factory.mktemp("clip"), "clip", Cut("coinrun", 1, 0.6))


def pair(folder: Path, name: str, clip: Path, ending: str = ".csv") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    os.link(clip, folder / f"{name}.mp4")
    (folder / f"{name}{ending}").write_text("time_ms,a\n0,0\n100,1\n")


@pytest.fixture(scope="module")
def large(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    for number in range(PAIRS):
        pair(folder, f"play{number}", clip)
        pair(folder, f"play{number}-b", clip)
    assert 4 * PAIRS > DIVIDED_FROM
    return folder


def units(folder: Path) -> list[Unit]:
    return units_in(folder, listed(folder), lambda _: False)


def test_a_large_folder_of_pairs_is_searched_in_pieces(large: Path) -> None:
    pieces = units(large)

    assert len(pieces) > 5
    assert [name for each in pieces for name in each.names] == sorted(
        path.name for path in large.iterdir()
    )
    for each in pieces:
        assert len({name.partition(".")[0] for name in each.names}) == len(each.names) / 2


def test_what_is_found_in_pieces_is_what_is_found_at_once(large: Path) -> None:
    files = tuple(sorted(path.name for path in large.iterdir()))

    at_once = recognise(Unit(large, files), chosen_readers("auto"), [large])
    in_pieces = discover([large])

    assert in_pieces.recordings == at_once.recordings
    assert len(in_pieces.recordings) == 2 * PAIRS
    assert (in_pieces.refused, in_pieces.ignored) == ((), ())


def test_a_new_pair_changes_one_piece(large: Path, clip: Path, tmp_path: Path) -> None:
    shutil.copytree(large, tmp_path / "in", copy_function=os.link)
    before = {unit.signature(b"") for unit in units(tmp_path / "in")}
    # Not a link: that changes the entry of every other link.
    pair(tmp_path / "in", "play17-new", Path(shutil.copy(clip, tmp_path / "clip.mp4")))

    after = {unit.signature(b"") for unit in units(tmp_path / "in")}

    assert 1 <= len(after - before) <= 2
    assert len(before - after) == 1


@pytest.mark.parametrize("odd", ["notes.txt", "actions.csv", "more.mp4", "all.mpd", "x.parquet"])
def test_a_folder_in_which_files_may_belong_together_otherwise_is_one_piece(
    large: Path, tmp_path: Path, odd: str
) -> None:
    shutil.copytree(large, tmp_path / "in", copy_function=os.link)
    (tmp_path / "in" / odd).write_bytes(b"")

    assert len(units(tmp_path / "in")) == 1


def test_segments_of_a_session_are_one_piece(clip: Path, tmp_path: Path) -> None:
    for number in range(DIVIDED_FROM):
        pair(tmp_path, f"ann-0123456789ab-20220101-{number:06}", clip, ".jsonl")
    joins = next(reader.joins for reader in READERS if reader.name == "vpt")  # type: ignore[attr-defined]

    assert len(units_in(tmp_path, listed(tmp_path), joins)) == 1


def test_recordings_come_in_the_order_of_their_paths(clip: Path, tmp_path: Path) -> None:
    for name in ("b/two", "b/one", "a", "c", "b/c/three", "bb", "d/one", "B/x"):
        pair((tmp_path / name).parent, Path(name).name, clip)

    found = [each.path for each in discover([tmp_path]).recordings]

    assert found == sorted(found)
    assert len(found) == 8


def test_sources_may_overlap(clip: Path, tmp_path: Path) -> None:
    for name in ("a/one", "a/b/two", "a/.hidden/three", "c/four"):
        pair((tmp_path / name).parent, Path(name).name, clip)
    given = ["a", "a/b", "a/.hidden", "c/four.mp4", "a/one.mp4"]

    found = discover([tmp_path / name for name in given])

    assert [each.path.stem for each in found.recordings] == ["three", "two", "one", "four"]
    assert found.ignored == ()


def test_the_first_recordings_are_found_before_the_next_folders_are_listed(
    clip: Path, tmp_path: Path
) -> None:
    pair(tmp_path / "a", "one", clip)
    pair(tmp_path / "b", "two", clip)
    found: Iterator[Recording | FoundInUnit] = SourceSearch([tmp_path]).found()

    first = next(each for each in found if isinstance(each, Recording))
    shutil.rmtree(tmp_path / "b")
    pair(tmp_path / "c", "three", clip)

    assert first.path.stem == "one"
    rest = [each.path.stem for each in found if isinstance(each, Recording)]
    assert rest in (["three"], [])  # the names in the folder itself were listed before


def test_nothing_is_searched_beyond_what_is_taken(large: Path) -> None:
    looked: list[Unit] = []

    def never_known(unit: Unit) -> None:
        looked.append(unit)

    found = SourceSearch([large]).found(never_known)

    assert len(list(islice(found, 3))) == 3
    assert len(looked) == 1
