"""What is in the place of a file that was not downloaded is recognised by its first bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.exports import picture_corpus

from wham_data.corpus import Corpus
from wham_data.files.found import is_pointer, sniff, stand_in, stand_in_of
from wham_data.files.torch_archive import TorchArchive
from wham_data.files.torch_file import TorchFile
from wham_data.pipelines.dream.actions import read_actions
from wham_data.pipelines.readers import discover, open_recording
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import IntegrityError, Reason, RefusedInput, UsageError

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:{:064x}\nsize 39123488\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LFS.format(7), "`git lfs pull`"),
        (LFS.format(8).replace("\n", "\r\n"), "`git lfs pull`"),
        ("\ufeff" + LFS.format(9), "`git lfs pull`"),
        ("version https://hawser.github.com/spec/v1\noid sha256:00\nsize 1\n", "`git lfs pull`"),
        ("# xet version 0\nfilesize = 12\nhash = 'ab'\n", "Xet pointer"),
        ("/annex/objects/SHA256E-s1048576--ab.mp4\n", "`git annex get`"),
        ("<!DOCTYPE html><html><title>Log in</title>", "HTML page"),
        ("\n  <html lang='en'>", "HTML page"),
        ("Entry not found", "server"),
        ('{"error":"Invalid credentials in Authorization header"}', "server"),
        ("<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "server"),
        ("", "0 bytes"),
    ],
)
def test_what_stands_in_for_a_file_is_named_with_what_to_do(text: str, told: str) -> None:
    assert told in (stand_in_of(text.encode()) or "")


@pytest.mark.parametrize(
    "text",
    [
        "time,left_x\n0,0.5\n",
        '{"error": 0.5, "t": 1}\n' * 40,
        "# a comment\nversion 1\n",
        "<svg></svg>",
        "version https://example.org/spec/v1\n",
    ],
)
def test_a_file_of_its_own_is_none(text: str) -> None:
    assert stand_in_of(text.encode()) is None


@given(st.binary(max_size=400))
def test_any_bytes_are_looked_at_without_an_error(head: bytes) -> None:
    assert stand_in_of(head) is None or isinstance(stand_in_of(head), str)


def test_a_large_file_with_the_start_of_a_pointer_is_no_pointer(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_text(LFS.format(1) + "x" * 2000)
    (tmp_path / "b.bin").write_text(LFS.format(1))

    assert [is_pointer(tmp_path / name) for name in ("a.bin", "b.bin", "none")] == [
        False, True, False,
    ]  # fmt: skip
    assert sniff(tmp_path / "b.bin") == "lfs"


def test_a_pointer_is_seen_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "blob").write_text(LFS.format(2))
    (tmp_path / "model.ckpt").symlink_to(tmp_path / "blob")

    assert "Git LFS pointer" in (stand_in(tmp_path / "model.ckpt") or "")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (LFS.format(3).encode(), "Git LFS pointer"),
        (b"<html>sign in</html>", "an HTML page"),
        (b"\x1f\x8b\x08\x00rest", "gunzip"),
        (b"Access to model org/x is restricted.", "server"),
    ],
)
def test_a_checkpoint_that_was_not_downloaded_is_refused(
    tmp_path: Path, content: bytes, told: str
) -> None:
    (tmp_path / "w.ckpt").write_bytes(content)

    with pytest.raises(IntegrityError, match=told):
        TorchArchive.open(tmp_path / "w.ckpt")
    with pytest.raises(RefusedInput, match=told):
        TorchFile.open(tmp_path / "w.ckpt")


@pytest.mark.parametrize(
    "name", ["a.npz", "b.h5", "c.parquet", "d.mcap", "e.tar.gz", "f.pt", "g.MKV", "h.arrow", "i"]
)
def test_a_pointer_is_an_input_and_is_refused_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(LFS.format(4))

    ((path, why),) = discover([tmp_path]).refused

    assert (path.name, why.reason) == (name, Reason.NOT_DOWNLOADED)
    assert "git lfs pull" in why.message


def test_a_picture_of_the_readme_is_no_input(tmp_path: Path) -> None:
    (tmp_path / "banner.png").write_text(LFS.format(5))

    assert discover([tmp_path]).refused == ()


@pytest.mark.parametrize("log", ["b.csv", "b.toml"])
def test_a_recording_of_which_one_file_is_a_pointer_is_refused(tmp_path: Path, log: str) -> None:
    (tmp_path / "b.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(400))
    (tmp_path / "b.csv").write_text("time_ms,left_x\n0,0\n")
    (tmp_path / log).write_text(LFS.format(6))

    found = discover([tmp_path])

    assert found.recordings == ()
    assert all("git lfs pull" in why.message for _, why in found.refused)
    assert "b.mp4" in [path.name for path, _ in found.refused]


def test_a_data_set_whose_tables_are_pointers_says_so(tmp_path: Path) -> None:
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"codebase_version": "v3.0", "fps": 10}')
    (tmp_path / "data.parquet").write_text(LFS.format(8))

    assert all("git lfs pull" in why.message for _, why in discover([tmp_path]).refused)


def test_a_log_that_is_an_error_page_is_named(tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(400))
    (tmp_path / "b.csv").write_text("<!doctype html><title>Log in</title>")

    (recording,) = discover([tmp_path]).recordings

    with pytest.raises(RefusedInput, match=r"b\.csv: an HTML page"):
        open_recording(recording)


def test_a_list_of_actions_that_is_a_pointer_is_named(tmp_path: Path) -> None:
    (tmp_path / "moves.csv").write_text(LFS.format(10))

    with pytest.raises(UsageError, match=r"moves\.csv: a Git LFS pointer"):
        read_actions(tmp_path / "moves.csv", load_space("wham16"))


@pytest.mark.parametrize("name", ["corpus.json", "shards", "episodes"])
def test_a_corpus_that_was_cloned_without_lfs_says_so(tmp_path: Path, name: str) -> None:
    corpus = picture_corpus(tmp_path / "corpus", episodes=1)
    found = tmp_path / "corpus" / name
    path = found if found.is_file() else next(found.glob("*.parquet"))
    (row,) = corpus.episodes.rows(named=True)
    path.write_text(LFS.format(11))

    def read() -> None:
        opened = Corpus.open(corpus.location)
        assert len(opened.episodes) == 1
        opened.open_shard(row["shard"])

    with pytest.raises(IntegrityError, match="a Git LFS pointer"):
        read()
