"""WindowDataset under torch's DataLoader and torchdata's StatefulDataLoader."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("pyarrow", reason="a machine only for GPU tests may lack it")
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
# ruff: noqa: E402  only where there are both
from makers.windows import dataset, feed_corpus
from torch.utils.data import DataLoader

from wham_data.corpus import Corpus
from wham_data.feed import WindowDataset, to_torch
from wham_data.schemas.errors import UsageError


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return feed_corpus(tmp_path_factory.mktemp("feed") / "corpus")


def loader(data: WindowDataset, workers: int, start: str | None = None, **more: Any) -> Any:
    context = (start or "fork") if workers else None
    return DataLoader(
        data, batch_size=None, num_workers=workers, multiprocessing_context=context, **more
    )


def numbers(batches: Iterable[dict[str, Any]]) -> list[int]:
    return [int(n) for batch in batches for n in np.atleast_1d(np.asarray(batch["window"]))]


@pytest.mark.parametrize(("workers", "start"), [(0, None), (1, "fork"), (2, "fork"), (1, "spawn")])
def test_the_order_knows_nothing_of_workers(
    corpus: Corpus, workers: int, start: str | None
) -> None:
    data = dataset(corpus, epochs=2)

    batches = list(loader(data, workers, start))

    assert numbers(batches) == numbers(dataset(corpus, epochs=2))
    assert batches[0]["tokens"].dtype == torch.uint16
    assert batches[0]["tokens"].is_contiguous()


def test_a_forked_worker_reads_on_in_shards_that_are_open(corpus: Corpus) -> None:
    data = dataset(corpus)
    before = numbers(data)
    data.set_epoch(0)

    assert numbers(loader(data, 2)) == before


def test_single_windows_come_in_the_same_order(corpus: Corpus) -> None:
    data = dataset(corpus, batch_size=None)

    assert numbers(loader(data, 2)) == numbers(dataset(corpus))


def test_a_loader_may_put_single_windows_into_batches(corpus: Corpus) -> None:
    data = dataset(corpus, batch_size=None)

    batches = list(DataLoader(data, batch_size=5))

    assert batches[0]["tokens"].shape == (5, 4, 6)
    assert numbers(batches) == numbers(dataset(corpus))


def test_windows_by_number_are_a_map_style_dataset(corpus: Corpus) -> None:
    windows = dataset(corpus).windows

    batches = list(DataLoader(windows, batch_size=5, shuffle=True))

    assert sum(len(batch["tokens"]) for batch in batches) == len(windows) == 32
    assert batches[0]["tokens"].shape == (5, 4, 6)


@pytest.mark.gpu
def test_pinned_batches_reach_the_device_in_sixteen_bits(corpus: Corpus, cuda: str) -> None:
    pinned = next(iter(loader(dataset(corpus), 1, "spawn", pin_memory=True)))
    assert pinned["tokens"].is_pinned()

    there = to_torch(pinned, cuda, widen=False)
    widened = to_torch(pinned, cuda)

    assert (there["tokens"].dtype, widened["tokens"].dtype) == (torch.uint16, torch.int64)
    assert (widened["tokens"].cpu() == pinned["tokens"].to(torch.int64)).all()


def test_workers_hear_of_an_epoch_that_is_set(corpus: Corpus) -> None:
    data = dataset(corpus)
    running = loader(data, 2, persistent_workers=True)

    loops = []
    for epoch in (0, 1, 4, 4):
        data.set_epoch(epoch)
        loops.append(numbers(running))

    expected = []
    for epoch in (0, 1, 4, 4):
        other = dataset(corpus)
        other.set_epoch(epoch)
        expected.append(numbers(other))
    assert loops == expected


def test_the_last_batch_tells_where_workers_stood(corpus: Corpus) -> None:
    data = dataset(corpus)
    seen = list(islice(iter(loader(data, 2)), 4))

    with pytest.raises(UsageError, match="only the caller knows which"):
        data.state_dict()
    state = data.state_dict(seen[-1])

    other = dataset(corpus)
    other.load_state_dict(json.loads(json.dumps(state)))
    assert numbers(seen) + numbers(loader(other, 1)) == numbers(dataset(corpus))


def test_two_ranks_of_two_workers_go_on_as_four_ranks_of_one(corpus: Corpus) -> None:
    consumed, state = [], {}
    for rank in range(2):
        data = dataset(corpus, rank=rank, world_size=2, batch_size=4)
        seen = list(islice(iter(loader(data, 2)), 2))
        consumed += numbers(seen)
        state = data.state_dict(seen[-1])
    rest = []
    for rank in range(4):
        data = dataset(corpus, rank=rank, world_size=4, batch_size=2)
        data.load_state_dict(state)
        rest += numbers(loader(data, 1))

    assert len(consumed) == 16
    assert sorted(consumed + rest) == list(range(32))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stateful_loader_goes_on_by_itself(corpus: Corpus, workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    straight = numbers(dataset(corpus, epochs=2))
    for taken in (0, 1, 3, 11, 14):
        first = stateful(dataset(corpus, epochs=2), batch_size=None, num_workers=workers)
        seen = numbers(islice(iter(first), taken)) if taken else []
        second = stateful(dataset(corpus, epochs=2), batch_size=None, num_workers=workers)
        second.load_state_dict(first.state_dict())
        assert seen + numbers(second) == straight


@pytest.mark.parametrize(("every", "taken"), [(1, 1), (1, 4), (3, 5)])
def test_the_state_of_a_stateful_loader_serves_other_workers(
    corpus: Corpus, every: int, taken: int
) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    first = stateful(dataset(corpus), batch_size=None, num_workers=2, snapshot_every_n_steps=every)
    seen = numbers(islice(iter(first), taken))
    other = dataset(corpus)
    other.load_state_dict(first.state_dict())

    assert seen + numbers(loader(other, 1)) == numbers(dataset(corpus))


def test_a_stateful_loader_of_single_windows_in_batches_needs_as_many_workers(
    corpus: Corpus,
) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    data = dataset(corpus, batch_size=None)
    first = stateful(data, batch_size=5, num_workers=2)
    next(iter(first))

    with pytest.raises(UsageError, match="the same number of workers"):
        dataset(corpus, batch_size=None).load_state_dict(first.state_dict())
