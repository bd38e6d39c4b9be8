"""Passes of one fixed shape: what they give, and what they cost the host for each batch."""

from __future__ import annotations

from collections import Counter
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from wham_data.inference.tokenizer import load_tokenizer
from wham_data.inference.tokenizers.fixed_batches import FixedBatches

MADE = ("empty", "zeros", "new_zeros", "new_empty", "clone", "cat", "_to_copy")
"""Operations that take memory."""


class Count(TorchDispatchMode):
    """Counts the operations of torch by name."""

    def __init__(self) -> None:
        super().__init__()
        self.times: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.times[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


class Summed:
    """A model of one operation, that notes what it was given."""

    def __init__(self) -> None:
        self.given: list[list[int]] = []

    def __call__(self, batch: Tensor) -> Tensor:
        self.given.append(batch[:, 0].tolist())
        return batch.sum(1)


def pairs(count: int) -> Tensor:
    return torch.arange(1, 2 * count + 1).view(count, 2)


@pytest.mark.parametrize("count", [1, 4, 5, 8, 11])
def test_every_pass_is_full_and_only_the_last_one_is_filled_up(count: int) -> None:
    model = Summed()

    results = FixedBatches(torch.device("cpu"), 4).run(model, pairs(count))

    assert results.tolist() == pairs(count).sum(1).tolist()
    given = [number for batch in model.given for number in batch]
    padding = -count % 4
    assert given == [*range(1, 2 * count, 2), *[0] * padding]
    assert {len(batch) for batch in model.given} == {4}


def test_results_are_fetched_in_pieces_of_bounded_size() -> None:
    batches = FixedBatches(torch.device("cpu"), 4, piece_bytes=2 * 4 * 8)  # two batches
    with Count() as count:
        results = batches.run(lambda batch: batch.sum(1), pairs(20))

    assert results.tolist() == pairs(20).sum(1).tolist()
    assert count.times["cat"] == 3 + 1  # pieces of two, two and one batch, then all


def test_a_batch_costs_one_copy_on_the_host_and_one_to_the_device_and_no_memory() -> None:
    batches = FixedBatches(torch.device("cpu"), 4)
    batches.run(lambda batch: batch.sum(1), pairs(4))  # makes the buffers

    def cost(count: int) -> Counter[str]:
        with Count() as counted:
            batches.run(lambda batch: batch.sum(1), pairs(count))
        return counted.times

    few, many = cost(4), cost(44)
    assert many["copy_"] - few["copy_"] == 2 * 10
    assert {name: many[name] - few[name] for name in MADE} == dict.fromkeys(MADE, 0)
    assert cost(41)["zero_"] == 1


def test_threads_take_turns_with_the_buffers() -> None:
    batches, found = FixedBatches(torch.device("cpu"), 4), {}

    def run(count: int) -> None:
        found[count] = batches.run(lambda batch: batch.sum(1), pairs(count)).tolist()

    threads = [Thread(target=run, args=(count,)) for count in range(50, 62)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == {count: pairs(count).sum(1).tolist() for count in range(50, 62)}


@pytest.mark.gpu
def test_a_gpu_gives_each_of_many_frames_the_ids_that_it_has_alone(cuda: str) -> None:
    gpu = load_tokenizer("wham-tiny", cuda)
    frames = np.random.default_rng(0).integers(0, 256, (7, 180, 300, 3), np.uint8)
    alone = np.concatenate([gpu.encode(frame[None]) for frame in frames])
    order = np.random.default_rng(1).integers(0, 7, 32 * 5 + 3)  # more than both buffers hold
    assert (gpu.encode(frames[order]) == alone[order]).all()
    assert (gpu.decode(alone[order]) == gpu.decode(alone)[order]).all()
