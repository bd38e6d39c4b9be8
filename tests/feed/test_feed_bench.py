"""The measurement measures what it says."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from makers.corpora import small_corpus

from wham_data.corpus import Corpus
from wham_data.feed.bench import OURS, MemoryMap, Reader, Task, WhamData, measure
from wham_data.feed.peers import PEERS


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return small_corpus(tmp_path_factory.mktemp("bench") / "corpus")


def task_of(corpus: Corpus) -> Task:
    return Task(corpus.location, length=4, batch_size=8, stored=20, turn_s=0.02)


def test_the_memory_map_reads_the_same_windows(corpus: Corpus, tmp_path: Path) -> None:
    numbers = np.array([0, 67, 30, 31])
    readers = [kind(task_of(corpus), tmp_path) for kind in (WhamData, MemoryMap)]
    for reader in readers:
        reader.prepare()
    (n, ours), (n_mapped, mapped) = (reader.by_number() or (0, None) for reader in readers)
    assert ours is not None
    assert mapped is not None

    found, (tokens, actions) = ours(numbers), mapped(numbers)

    assert n == n_mapped == 68
    assert (found["tokens"] == tokens).all()
    assert np.array_equal(found["actions"], actions, equal_nan=True)


def test_readers_take_turns_in_processes_of_their_own(corpus: Corpus) -> None:
    ours, mapped = measure(task_of(corpus), OURS, rounds=1, warm_up=1)

    for figures in (ours, mapped):
        assert figures.failed is None
        for value in (figures.random, figures.loader, figures.first_batch_s, figures.memory_mb):
            assert value is not None
            assert value > 0


@pytest.mark.parametrize("kind", PEERS, ids=lambda kind: kind.name)
@pytest.mark.filterwarnings("ignore")
def test_a_peer_reads_what_was_stored_for_it(
    kind: type[Reader], corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kind.needs is not None
    if find_spec(kind.needs) is None:
        pytest.skip(f"{kind.needs} is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reader = kind(task_of(corpus), tmp_path)
    reader.prepare()

    assert len(list(islice(reader.batches(), 5))) == 5
    by_number = reader.by_number()
    if by_number is not None:
        n, read = by_number
        assert n > 10
        assert read(np.array([0, 5, 9])) is not None
