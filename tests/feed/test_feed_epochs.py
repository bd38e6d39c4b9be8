"""Epochs of a WindowDataset: the number of workers, their start and a restart do not change them."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.windows import dataset, feed_corpus

from wham_data.corpus import Corpus
from wham_data.feed import WindowDataset
from wham_data.feed.batches import Place
from wham_data.feed.loop_state import LOOPS, LoopState, Span

torch = pytest.importorskip("torch")
pytestmark = [
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
]
from torch.utils.data import DataLoader, IterableDataset  # noqa: E402  only where there is torch

Batches = Iterable[dict[str, Any]]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return feed_corpus(tmp_path_factory.mktemp("feed") / "corpus")


def loader(data: Any, workers: int, **more: Any) -> Any:
    if workers:
        more.setdefault("multiprocessing_context", "fork")
    return DataLoader(data, batch_size=None, num_workers=workers, **more)


def numbers(batches: Batches) -> list[int]:
    return [int(n) for batch in batches for n in np.atleast_1d(np.asarray(batch["window"]))]


def epochs(corpus: Corpus, *which: int, **changes: Any) -> list[list[int]]:
    """The windows of some epochs, as one process reads them."""
    found = []
    for epoch in which:
        data = dataset(corpus, **changes)
        data.set_epoch(epoch)
        found.append(numbers(data))
    return found


@pytest.fixture
def stderr(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What this process and its workers have written to stderr, with the warnings."""

    def show(message: Warning | str, *_: Any) -> None:
        os.write(2, f"{message}\n".encode())

    monkeypatch.setattr("warnings.showwarning", show)
    return lambda: capfd.readouterr().err


# Each loop is the next epoch


@pytest.mark.parametrize(
    ("workers", "more"),
    [
        (0, {}),
        (1, {}),
        (2, {}),
        (2, {"persistent_workers": True}),
        (4, {"persistent_workers": True, "prefetch_factor": 5}),
        (1, {"multiprocessing_context": "spawn", "persistent_workers": True}),
    ],
)
def test_each_loop_is_the_next_epoch(corpus: Corpus, workers: int, more: dict[str, Any]) -> None:
    again = loader(dataset(corpus), workers, **more)

    assert [numbers(again) for _ in range(3)] == epochs(corpus, 0, 1, 2)


def test_a_loop_of_two_epochs_is_followed_by_the_two_after_them(corpus: Corpus) -> None:
    again = loader(dataset(corpus, epochs=2), 2)

    assert [numbers(again) for _ in range(2)] == epochs(corpus, 0, 2, epochs=2)


def test_workers_without_a_batch_do_not_hold_up_the_next_epoch(corpus: Corpus) -> None:
    again = loader(dataset(corpus, batch_size=20), 3)

    assert [numbers(again) for _ in range(2)] == epochs(corpus, 0, 1, batch_size=20)


def test_a_seed_of_torch_that_is_set_before_each_loop_changes_nothing(corpus: Corpus) -> None:
    again = loader(dataset(corpus), 2)
    loops = []
    for _ in range(2):
        torch.manual_seed(7)
        loops.append(numbers(again))

    assert loops == epochs(corpus, 0, 1)


def test_loaders_with_other_workers_share_the_epochs_of_a_dataset(corpus: Corpus) -> None:
    data = dataset(corpus)

    loops = [numbers(loader(data, workers)) for workers in (2, 0, 1, 0, 0, 3)]

    assert loops == epochs(corpus, *range(6))


def test_loops_that_run_at_the_same_time_do_not_mix(corpus: Corpus) -> None:
    again = loader(dataset(corpus), 2)
    pairs = list(zip(again, again, strict=True))

    seen = [numbers(each) for each in zip(*pairs, strict=True)]
    assert sorted(seen) == sorted(epochs(corpus, 0, 1)), "whichever worker is first begins epoch 0"


def test_a_dataset_within_a_dataset_may_be_read_again_and_again(corpus: Corpus) -> None:
    class Endless(IterableDataset):  # type: ignore[misc,type-arg]
        def __init__(self, data: WindowDataset) -> None:
            self.data = data

        def __iter__(self) -> Iterator[dict[str, Any]]:
            while True:
                yield from self.data

    seen = numbers(islice(loader(Endless(dataset(corpus, batch_size=4)), 2), 3 * 8))

    assert [seen[:32], seen[32:64], seen[64:]] == epochs(corpus, 0, 1, 2, batch_size=4)


def test_a_copy_of_a_dataset_has_epochs_of_its_own(corpus: Corpus) -> None:
    data = dataset(corpus)
    data.set_epoch(3)
    other = copy.deepcopy(data)

    assert [numbers(loader(each, 1)) for each in (data, other, data)] == epochs(corpus, 3, 3, 4)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_process_that_is_no_worker_has_epochs_of_its_own(corpus: Corpus, start: str) -> None:
    data = dataset(corpus)
    data.set_epoch(3)
    context = multiprocessing.get_context(start)
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=read_twice, args=(data, writer))
    process.start()
    there = reader.recv()
    process.join()

    assert there == epochs(corpus, 3, 8)
    assert numbers(loader(data, 1)) == there[0]


def read_twice(data: WindowDataset, writer: Connection) -> None:
    first = numbers(data)
    data.set_epoch(8)
    writer.send([first, numbers(loader(data, 1))])


def test_set_epoch_chooses_after_loops_of_workers_too(corpus: Corpus) -> None:
    data = dataset(corpus)
    running = loader(data, 2, persistent_workers=True)
    numbers(running)
    data.set_epoch(5)

    assert [numbers(running), numbers(running)] == epochs(corpus, 5, 6)
    assert data.epoch == 6
    assert len(data) == 11


# Loops that are left early


def peeked(data: WindowDataset, *, batches: int, workers: int = 2) -> list[int]:
    """What a loop reads after one that was left early."""
    again = loader(data, workers)
    list(islice(again, batches))
    return numbers(again)


@pytest.mark.parametrize("batches", [1, 4])
def test_after_a_loop_that_workers_left_early_comes_the_next_with_a_warning(
    corpus: Corpus, batches: int, stderr: Callable[[], str]
) -> None:
    assert [peeked(dataset(corpus), batches=batches)] == epochs(corpus, 1)

    assert stderr().count("Call set_epoch(epoch)") == 1


def test_a_warning_of_this_kind_comes_once(corpus: Corpus, stderr: Callable[[], str]) -> None:
    again = loader(dataset(corpus), 2)
    for _ in range(4):
        next(iter(again))

    assert stderr().count("Call set_epoch(epoch)") == 1


def test_complete_loops_and_chosen_epochs_come_without_a_warning(
    corpus: Corpus, stderr: Callable[[], str]
) -> None:
    data = dataset(corpus)
    again = loader(data, 2)
    numbers(again)
    numbers(again)
    for epoch in (7, 7):
        data.set_epoch(epoch)
        next(iter(again))

    assert "set_epoch" not in stderr()


def test_a_loop_without_end_begins_again_with_a_warning(
    corpus: Corpus, stderr: Callable[[], str]
) -> None:
    again = loader(dataset(corpus, epochs=None), 2)
    loops = [numbers(islice(again, 11)) for _ in range(2)]

    assert loops == epochs(corpus, 0, 0)
    assert "Call set_epoch" in stderr()


# States


@pytest.mark.parametrize("workers", [1, 2])
def test_the_last_batch_of_a_later_epoch_tells_where_workers_stood(
    corpus: Corpus, workers: int
) -> None:
    data = dataset(corpus, epochs=2)
    again = loader(data, workers)
    numbers(again)
    for taken in (5, 11, 14, 22):
        data.set_epoch(2)
        seen = list(islice(again, taken))
        state = data.state_dict(seen[-1])
        other = dataset(corpus, epochs=2)
        other.load_state_dict(json.loads(json.dumps(state)))

        after = epochs(corpus, 2, 4, epochs=2)
        assert numbers(seen) + numbers(loader(other, 3 - workers)) == (
            after[0] if taken < 22 else after[0] + after[1]
        )


def stateful(data: WindowDataset, workers: int, **more: Any) -> Any:
    module = pytest.importorskip("torchdata.stateful_dataloader")
    return module.StatefulDataLoader(data, batch_size=None, num_workers=workers, **more)


@pytest.mark.parametrize(
    ("workers", "more"), [(0, {}), (1, {}), (2, {"persistent_workers": True}), (4, {})]
)
def test_a_state_from_the_end_of_an_epoch_begins_the_next_one(
    corpus: Corpus, workers: int, more: dict[str, Any]
) -> None:
    first = stateful(dataset(corpus), workers, **more)
    numbers(first)
    numbers(first)
    state = first.state_dict()
    resumed = stateful(dataset(corpus), workers, **more)
    resumed.load_state_dict(state)

    assert [numbers(resumed), numbers(resumed)] == epochs(corpus, 2, 3)
    for others in (0, 1, 2):
        data = dataset(corpus)
        data.load_state_dict(json.loads(json.dumps(state)))
        assert [numbers(loader(data, others)), numbers(loader(data, others))] == epochs(
            corpus, 2, 3
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_after_a_loop_that_was_resumed_comes_the_next_epoch(
    corpus: Corpus, workers: int, stderr: Callable[[], str]
) -> None:
    first = stateful(dataset(corpus), workers)
    numbers(first)
    seen = numbers(islice(first, 4))
    resumed = stateful(dataset(corpus), workers)
    resumed.load_state_dict(first.state_dict())

    assert [seen + numbers(resumed), numbers(resumed)] == epochs(corpus, 1, 2)
    assert "set_epoch" not in stderr()


# Batches that are put into batches


@pytest.mark.parametrize("workers", [0, 1])
def test_putting_batches_into_batches_is_noticed_at_the_first_one(
    corpus: Corpus, workers: int, stderr: Callable[[], str]
) -> None:
    twice = DataLoader(dataset(corpus), batch_size=2, num_workers=workers)
    batch = next(iter(twice))

    assert batch["tokens"].shape == (2, 3, 4, 6)
    assert "arrays are [2, 3] windows; give batch_size=None" in stderr()


@pytest.mark.parametrize(("of_dataset", "of_loader"), [(3, None), (None, 3), (None, None)])
def test_batches_made_once_come_without_a_warning(
    corpus: Corpus, of_dataset: int | None, of_loader: int | None
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        batches = list(DataLoader(dataset(corpus, batch_size=of_dataset), batch_size=of_loader))

    assert numbers(batches) == epochs(corpus, 0)[0]


# The shared memory


def test_processes_that_read_independently_count_loops_of_their_own() -> None:
    state = LoopState()
    state.begin_at(Place(2, 5))

    spans = []
    for key, main in ((1, 10), (2, 20), (3, 10)):
        spans.append(state.begin_in_worker(key, main, 1, 3))
        state.end_in_worker(key, main)

    assert spans == [Span(Place(2, 5), 5), Span(Place(2, 5), 5), Span(Place(5, 0), 8)]
    assert state.begun is None  # this process has begun none
    assert state.following == Span(Place(2, 5), None)


def test_workers_of_one_loop_agree_whatever_happens_in_between() -> None:
    state = LoopState()
    first = state.begin_in_worker(1, 10, 2, 1)
    state.end_in_worker(1, 10)
    state.begin_at(Place(7, 0))
    later = state.begin_in_worker(2, 10, 2, 1)

    assert (first, later) == (Span(Place(0, 0), 1), Span(Place(7, 0), 8))
    assert state.begin_in_worker(1, 10, 2, 1) == first


def test_more_loops_than_are_remembered_still_count() -> None:
    state = LoopState()
    for number in range(2 * LOOPS + 3):
        span = state.begin_in_worker(number, 10, 1, 1)
        state.end_in_worker(number, 10)

    assert span == Span(Place(2 * LOOPS + 2, 0), 2 * LOOPS + 3)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from wham_data.schemas.errors import WhamDataError

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    with pytest.raises(WhamDataError, match="missing"):
        LoopState()
