"""A training process that is killed, again and again, and goes on from what it saved."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from makers.corpora import add_shard, info

from wham_data.corpus import Corpus
from wham_data.feed import WindowDataset

pytest.importorskip("torch")
from torch.utils.data import DataLoader

EPOCHS = 3
KILLS = 20


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    corpus = Corpus.create(tmp_path_factory.mktemp("feed") / "corpus", info())
    for player in ("ann", "bob", "cem"):
        corpus.commit(add_shard(corpus, f"{player}-0", n_steps=150, player=player))
    return corpus


def train(corpus: Corpus, diary: Path, per_batch: int, prefetch: int, workers: int) -> None:
    """Go on from the diary; after each step write down what was consumed and where that leaves us."""
    data = WindowDataset(corpus, length=4, batch_size=per_batch, prefetch=prefetch, epochs=EPOCHS)
    consumed: list[tuple[int, int]] = []
    if diary.exists():
        saved = json.loads(diary.read_text())
        consumed = saved["consumed"]
        data.load_state_dict(saved["state"])
        if data.epoch == EPOCHS:
            return
    for batch in DataLoader(data, batch_size=None, num_workers=workers):
        epoch = int(batch["position"][0])
        consumed += [(epoch, int(window)) for window in batch["window"]]
        time.sleep(0.002)
        beside = diary.with_suffix(".new")
        beside.write_text(json.dumps({"consumed": consumed, "state": data.state_dict(batch)}))
        beside.replace(diary)


def test_what_was_consumed_and_the_rest_are_the_epochs_however_often_it_is_killed(
    corpus: Corpus, tmp_path: Path
) -> None:
    diary = tmp_path / "diary.json"
    draw = random.Random(7)
    killed, process = 0, None
    while killed < KILLS or process is None or process.exitcode != 0:
        # Every life has batches of another size, and reads ahead, or lets a worker read, or neither.
        how = (draw.choice([1, 2, 5]), *draw.choice([(0, 0), (2, 0), (0, 1)]))
        arguments = (corpus, diary, *how)
        process = multiprocessing.get_context("fork").Process(target=train, args=arguments)
        process.start()
        if killed < KILLS:
            time.sleep(draw.uniform(0.01, 0.06))
            assert process.pid is not None
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.join()

    consumed = json.loads(diary.read_text())["consumed"]
    straight = WindowDataset(corpus, length=4, epochs=EPOCHS)
    assert consumed == [[int(one["position"][0]), int(one["window"])] for one in straight]
