"""A corpus in a forked process: it works, or it says at once that it cannot; it never waits for ever."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.corpora import add_shard, info, small_corpus, steps

from wham_data.corpus import Corpus
from wham_data.corpus.delta.table import CHECKPOINT_EVERY, LOG
from wham_data.feed import WindowDataset
from wham_data.schemas.errors import UsageError

PATIENCE_S = 30


def in_fork(do: Callable[[], Any]) -> Any:
    """What a function returns in a forked process; its error is raised here."""

    def child() -> None:
        try:
            answer: Any = do()
        except BaseException as error:  # a panic is not an Exception
            answer = error
        writer.send_bytes(pickle.dumps(answer))

    reader, writer = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    try:
        assert reader.poll(PATIENCE_S), "it waits for ever"
        answer = pickle.loads(reader.recv_bytes())
    finally:
        process.kill()
        process.join()
    if isinstance(answer, BaseException):
        raise answer
    return answer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Opened here, and its manifest read with polars."""
    corpus = small_corpus(tmp_path_factory.mktemp("forked") / "corpus")
    assert len(corpus.episodes.sort("start_ns")) == 4
    return corpus


WORKS: dict[str, Callable[[Corpus], Any]] = {
    "read_episode": lambda corpus: corpus.read_episode("ann-0").tokens,
    "shard_paths": lambda corpus: corpus.shard_paths(),
    "manifest_columns": lambda corpus: corpus.manifest_columns(("episode", "split")).to_pylist(),
    "known_recordings": lambda corpus: corpus.known_recordings(),
    "verify": lambda corpus: corpus.verify(),
    "open": lambda corpus: Corpus.open(corpus.location).version,
    "open at a version": lambda corpus: Corpus.open(corpus.location, version=1).n_episodes,
    "refresh": lambda corpus: corpus.refresh(),
    "quarantine": lambda corpus: corpus.refused.read().to_pylist(),
    "windows": lambda corpus: WindowDataset(corpus, 2, batch_size=2).windows[:3]["actions"],
    "windows at a path": lambda corpus: next(iter(WindowDataset(corpus.location, 2)))["tokens"],
}


@pytest.mark.parametrize("way", WORKS)
def test_what_works_in_a_forked_process_gives_the_same(corpus: Corpus, way: str) -> None:
    here, there = WORKS[way](corpus), in_fork(lambda: WORKS[way](corpus))

    assert np.array_equal(here, there) if isinstance(here, np.ndarray) else here == there


def test_a_process_forked_by_a_forked_process_is_no_worse(corpus: Corpus) -> None:
    answer = in_fork(lambda: in_fork(lambda: corpus.read_episode("ann-0").n_steps))

    assert answer == 20


REFUSED: dict[str, Callable[[Corpus], Any]] = {
    "episodes": lambda corpus: corpus.episodes,
    "quarantine": lambda corpus: corpus.quarantine,
    "scan": lambda corpus: corpus.scan(),
    "at": lambda corpus: corpus.at("m", 0),
    "episodes, opened there": lambda corpus: Corpus.open(corpus.location).episodes,
}


@pytest.mark.parametrize("way", REFUSED)
def test_a_frame_is_refused_in_one_line_that_says_what_to_do(corpus: Corpus, way: str) -> None:
    with pytest.raises(UsageError, match=r"forked.*\"spawn\".*WindowDataset") as raised:
        in_fork(lambda: REFUSED[way](corpus))

    assert "\n" not in str(raised.value)


FORK = """
import os, sys
import deltalake, polars, wham_data
place = sys.argv[1]
{before}
if child := os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
try:
    c = wham_data.Corpus.open(place)
    {after}
except wham_data.UsageError as error:
    os._exit(7 if "spawn" in str(error) else 8)
except BaseException as error:
    os._exit(9)
os._exit(0)
"""


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ("wham_data.Corpus.open(place)", "assert len(c.scan().collect()) == 80", 0),
        ("deltalake.DeltaTable(place + '/episodes')", "assert c.verify().ok", 0),
        ("polars.DataFrame({'a': [2, 1], 'b': [2, 3]}).sort('a')", "c.episodes", 7),
    ],
)
def test_it_matters_what_was_used_before_the_fork_here_or_by_others(
    corpus: Corpus, before: str, after: str, outcome: int
) -> None:
    script = FORK.format(before=before, after=after)
    command = [sys.executable, "-W", "ignore", "-c", script, corpus.location]

    process = subprocess.Popen(command, start_new_session=True)
    try:
        assert process.wait(PATIENCE_S) == outcome
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with the process that it has forked
        process.wait()


def test_a_forked_process_commits(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")

    def committed() -> int:
        corpus.commit(add_shard(corpus, "dan-0", player="dan"))
        return corpus.version

    version = in_fork(committed)
    corpus.refresh()

    assert corpus.version == version
    assert (corpus.read_episode("dan-0").tokens == steps("dan-0").tokens).all()


def test_a_commit_that_would_write_a_checkpoint_goes_without_it(tmp_path: Path) -> None:
    corpus = Corpus.create(tmp_path / "corpus", info())
    corpus.commit(add_shard(corpus, "ann-0"))
    table, snapshot = corpus._episodes, corpus._snapshot
    while snapshot.version < CHECKPOINT_EVERY:
        after = table.commit(snapshot, "NOTHING", add={}, changes_rows=False)
        assert after is not None
        snapshot = after

    def tidied() -> list[str]:
        table.tidy(snapshot)
        return table.storage.list(f"episodes/{LOG}")

    assert not [name for name in in_fork(tidied) if "checkpoint" in name]
    table.tidy(snapshot)
    assert in_fork(lambda: Corpus.open(corpus.location).version) == CHECKPOINT_EVERY


def test_a_log_that_begins_with_a_checkpoint_is_read_in_a_forked_process(tmp_path: Path) -> None:
    corpus = small_corpus(tmp_path / "corpus")
    corpus._episodes.checkpoint(corpus.version)
    log = Path(corpus.location) / "episodes" / LOG
    (log / f"{1:020d}.json").unlink()

    assert in_fork(lambda: Corpus.open(corpus.location).version) == corpus.version


def test_a_version_that_is_not_there_is_refused_as_in_any_process(corpus: Corpus) -> None:
    with pytest.raises(UsageError, match="no version 99; versions 0 to"):
        in_fork(lambda: Corpus.open(corpus.location, version=99))


def test_another_thread_and_process_do_not_matter_to_this_one(corpus: Corpus) -> None:
    in_fork(os.getpid)

    assert len(corpus.scan().collect()) == sum(corpus.episodes["n_steps"])
