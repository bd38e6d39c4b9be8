"""The cache of copies stays within its bounds, holds only what it should, and is shared in peace."""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from wham_data.corpus.storage.cache import Cache
from wham_data.corpus.storage.contract import Leased
from wham_data.schemas.errors import IntegrityError, UsageError, WhamDataError


def get(cache: Cache, content: bytes) -> Leased:
    """Lease a file with this content, fetched if it is not there."""
    sha256 = hashlib.sha256(content).hexdigest()
    return cache.lease(sha256, lambda: len(content), lambda to: os.pwrite(to, content, 0))


def held(cache: Cache) -> int:
    return sum(path.stat().st_size for path in cache.folder.iterdir())


def pieces(n: int) -> list[bytes]:
    return [bytes([number]) * 100 for number in range(n)]


def test_what_has_not_been_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 300)
    a, b, c, d = pieces(4)
    for content in (a, b, c, a, d):
        get(cache, content)
        time.sleep(0.01)  # the clock of a file system is coarse
    assert held(cache) == 300
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {hashlib.sha256(each).hexdigest() for each in (a, c, d)}


def test_a_file_in_use_stays_even_where_room_is_needed(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 100)
    a, b, c = pieces(3)
    leased = get(cache, a)
    get(cache, b)
    assert leased.path.read_bytes() == a
    del leased
    get(cache, c)
    assert held(cache) == 100


def test_what_is_larger_than_the_cache_is_fetched_alone(tmp_path: Path) -> None:
    cache = Cache(tmp_path, 50)
    a, b = pieces(2)
    get(cache, a)
    assert get(cache, b).path.read_bytes() == b
    assert held(cache) == 100


def test_many_that_ask_at_once_have_one_fetch(tmp_path: Path) -> None:
    cache, fetched = Cache(tmp_path, 1000), []

    def fill(to: int) -> None:
        fetched.append(to)
        time.sleep(0.05)
        os.pwrite(to, b"abc", 0)

    with ThreadPoolExecutor(8) as pool:
        leases = list(pool.map(lambda _: cache.lease("0" * 64, lambda: 3, fill), range(8)))
    assert len(fetched) == 1
    assert {each.path.read_bytes() for each in leases} == {b"abc"}


def test_nothing_is_left_of_a_fetch_that_failed(tmp_path: Path) -> None:
    def fill(to: int) -> None:
        os.pwrite(to, b"half", 0)
        raise IntegrityError("corrupt")

    with pytest.raises(IntegrityError, match="corrupt"):
        Cache(tmp_path, 1000).lease("0" * 64, lambda: 8, fill)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_half_fetched_makes_room(tmp_path: Path) -> None:
    (tmp_path / ("0" * 64 + ".part")).write_bytes(b"x" * 500)
    cache = Cache(tmp_path, 200)
    get(cache, pieces(1)[0])
    assert held(cache) == 100


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WhamDataError, match=r"file/cache \(the cache; WHAM_DATA_CACHE_DIR"):
        get(Cache(tmp_path / "file" / "cache"), b"x")


def test_sizes_are_told_with_units(monkeypatch: pytest.MonkeyPatch) -> None:
    for text, n_bytes in (("20GB", 20e9), ("1.5 M", 1.5e6), ("7", 7)):
        monkeypatch.setenv("WHAM_DATA_CACHE_BYTES", text)
        assert Cache.of_user("x").most_bytes == n_bytes
    monkeypatch.setenv("WHAM_DATA_CACHE_BYTES", "lots")
    with pytest.raises(UsageError, match="expected a size such as 20GB"):
        Cache.of_user("x")
