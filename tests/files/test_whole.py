"""A file that can be seen under its name is whole."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from wham_data.files.whole import (
    folder_whole,
    private_folder,
    put_in_place,
    read_object,
    written_whole,
)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_file_appears_when_all_of_it_is_written(tmp_path: Path) -> None:
    with written_whole(tmp_path / "a.txt") as beside:
        beside.write_text("new")
        assert not (tmp_path / "a.txt").exists()

    assert (tmp_path / "a.txt").read_text() == "new"
    assert names_in(tmp_path) == ["a.txt"]


def test_writing_that_breaks_off_leaves_the_earlier_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")

    def break_off() -> None:
        with written_whole(tmp_path / "a.txt") as beside:
            beside.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()

    assert (tmp_path / "a.txt").read_text() == "old"
    assert names_in(tmp_path) == ["a.txt"]


def test_a_folder_appears_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with folder_whole(tmp_path / "out") as beside:
        (beside / "deep").mkdir()
        (beside / "deep/a").write_text("1")

    assert names_in(tmp_path) == ["out", "out/deep", "out/deep/a"]


def test_a_folder_never_replaces_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("1")

    with pytest.raises(OSError, match="not empty"), folder_whole(tmp_path / "out") as beside:
        (beside / "other").write_text("2")

    assert names_in(tmp_path) == ["out", "out/mine"]


def test_files_of_a_private_folder_are_put_in_place_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "out/pictures").mkdir(parents=True)
    (tmp_path / "out/pictures/old").write_text("1")
    with private_folder(tmp_path / "out", ".mine-") as folder:
        assert folder.name.startswith(".mine-")
        (folder / "pictures").mkdir()
        (folder / "pictures/new").write_text("2")
        (folder / "a").write_text("3")
        put_in_place(folder / "pictures", tmp_path / "out/pictures")
        put_in_place(folder / "a", tmp_path / "out/deep/a")

    assert names_in(tmp_path / "out") == ["deep", "deep/a", "pictures", "pictures/new"]


def test_an_object_that_is_damaged_or_not_there_is_none(tmp_path: Path) -> None:
    (tmp_path / "good.json").write_text('{"a": 1}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "half.json").write_text('{"a": ')

    found = [read_object(tmp_path / f"{name}.json", 100) for name in ("good", "list", "half", "no")]

    assert found == [{"a": 1}, None, None, None]


def test_a_disk_that_cannot_sync_folders_gets_its_files_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    with written_whole(tmp_path / "note.txt") as path:
        path.write_text("whole")

    assert (tmp_path / "note.txt").read_text() == "whole"
