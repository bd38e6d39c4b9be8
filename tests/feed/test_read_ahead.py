"""Windows that come from a disk are requested before they are read, each one once."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.corpora import add_shard, info
from numpy.typing import NDArray

from wham_data import WindowDataset
from wham_data.corpus import Corpus
from wham_data.feed.mapped_file import merged
from wham_data.feed.read_ahead import AHEAD_BYTES, MOST_AT_ONCE, MOST_PIECES, Disk, ReadAhead
from wham_data.feed.windows import Numbers

WINDOW_BYTES = 10_000
BATCH = 32


class Piece(NamedTuple):
    shard: NDArray[np.int32]
    row: Numbers


def pieces(count: int, windows: int = 4_096) -> Iterator[Piece]:
    for first in range(0, count * windows, windows):
        yield Piece(np.zeros(windows, np.int32), np.arange(first, first + windows))


class BusyDisk(Disk):
    def is_read(self) -> bool:
        return True


class Requests:
    """What was requested, and what was read when."""

    def __init__(self, disk: Disk | None, window_bytes: int = WINDOW_BYTES) -> None:
        self.rows: list[int] = []
        self.disk, self.window_bytes = disk, window_bytes
        self.ahead: list[int] = []

    def announce(self, _shard: NDArray[np.int32], row: Numbers) -> int:
        assert len(row) <= MOST_AT_ONCE
        self.rows += row.tolist()
        return len(row) * self.window_bytes

    def read(self, source: Iterator[Piece]) -> list[int]:
        ahead = ReadAhead(source, self.announce, self.disk, self.window_bytes)
        rows: list[int] = []
        for piece in ahead:
            for low in range(0, len(piece.row), BATCH):
                batch = piece.row[low : low + BATCH].tolist()
                ahead.advance(len(batch))
                self.ahead.append(len(self.rows) - len(rows))
                rows += batch
        return rows


def test_every_window_is_requested_once_and_before_it_is_read_also_across_pieces() -> None:
    requests = Requests(BusyDisk())
    assert requests.read(pieces(5)) == requests.rows == list(range(5 * 4_096))
    enough = AHEAD_BYTES // WINDOW_BYTES
    assert min(requests.ahead[: -enough // BATCH]) >= enough
    assert max(requests.ahead) <= enough + MOST_AT_ONCE + BATCH


def test_large_windows_are_requested_one_at_a_time_and_not_far_ahead() -> None:
    requests = Requests(BusyDisk(), window_bytes=AHEAD_BYTES)
    requests.read(pieces(1, 64))
    assert max(requests.ahead) <= BATCH + 1


def test_no_more_than_some_pieces_of_the_plan_are_held() -> None:
    taken = 0

    def counted() -> Iterator[Piece]:
        nonlocal taken
        for piece in pieces(40, 64):
            taken += 1
            yield piece

    requests = Requests(BusyDisk(), window_bytes=1)
    ahead = ReadAhead(counted(), requests.announce, requests.disk, 1)
    next(iter(ahead))
    ahead.advance(BATCH)
    assert taken == MOST_PIECES


@pytest.mark.parametrize("in_order", [False, True])
def test_nothing_is_requested_while_the_disk_is_not_read_or_read_in_order(in_order: bool) -> None:
    requests = Requests(None if in_order else Disk())
    assert requests.read(pieces(2)) == list(range(2 * 4_096))
    assert requests.rows == []


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20)), max_size=30))
def test_merged_ranges_hold_the_same_addresses_once(ranges: list[tuple[int, int]]) -> None:
    given_ranges = np.array([[a, a + n] for a, n in ranges], np.int64).reshape(-1, 2).T
    expected = {each for a, n in ranges for each in range(a, a + n)}
    found = [each for a, b in merged(given_ranges).T.tolist() for each in range(a, b)]
    assert found == sorted(expected)


def in_page_cache(path: Path) -> bool:
    """Whether all bytes of a file can be read without waiting for the disk."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            return os.preadv(file.fileno(), [bytearray(size)], 0, os.RWF_NOWAIT) == size
        except BlockingIOError:
            return False


def test_requested_windows_come_into_memory_without_being_read(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    corpus.commit(add_shard(corpus, "ann-0", n_steps=3_000))
    (shard,) = corpus.shard_paths()
    data = WindowDataset(corpus, length=5, batch_size=8, unknown_actions="keep")
    view = data.windows
    numbers = np.arange(0, len(view), 4)
    with shard.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if in_page_cache(shard):
        pytest.skip("this file system keeps the file in memory")
    view._mapped.announce(*view.locate(numbers))
    until = time.monotonic() + 20
    while not in_page_cache(shard) and time.monotonic() < until:
        time.sleep(0.01)
    assert in_page_cache(shard)
    tokens = corpus.read_episode("ann-0").tokens
    assert np.array_equal(view[7]["tokens"], tokens[7:12])


def test_a_bad_shard_is_an_error_when_it_is_read_not_when_it_is_requested(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    for name in ("ann-0", "bob-0"):
        corpus.commit(add_shard(corpus, name))
    data = WindowDataset(corpus, length=5, batch_size=8, unknown_actions="keep")
    gone = corpus.shard_path(data.windows.shards.names[0][1].decode())
    gone.unlink()
    places = data.windows.locate(np.arange(len(data.windows)))
    assert data.windows._mapped.announce(*places) > 0
    assert len(data.windows[[0, 1]]["tokens"]) == 2
    with pytest.raises(Exception, match="the shard is missing"):
        data.windows[[len(data.windows) - 1]]
