"""The power may go at any moment: the corpus is whole, and has all that was reported as done."""

from __future__ import annotations

import itertools
import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from makers.corpora import add_shard, info, recording_of
from makers.recordings import digest
from power_cut import Cut, Disk, Image, is_visible, newest, oldest

from wham_data.corpus.corpus import INFO, Corpus
from wham_data.corpus.delta import table
from wham_data.schemas.errors import Reason, WhamDataError
from wham_data.schemas.manifest import QuarantineRow

COMMITS = (("ann-0", "ann-1"), ("bob-0", "cem-0"))
RANDOM_IMAGES = 6
TOGETHER = [frozenset(map(recording_of, names)) for names in COMMITS]
Promise = Callable[..., None]


@pytest.fixture(autouse=True)
def _busy_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second commit writes a checkpoint and merges the data files."""
    monkeypatch.setattr(table, "CHECKPOINT_EVERY", 2)
    monkeypatch.setattr(table, "MERGE_AT", 2)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A place for a corpus."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def fill(location: Path, promise: Promise = lambda *_: None) -> None:
    """A run: commits of a shard and a refused input each."""
    corpus = Corpus.open_or_create(location, info())
    promise(INFO)
    for number in range(len(COMMITS)):
        commit(corpus, number, promise)
    corpus.record_run({"command": "test"})


def commit(corpus: Corpus, number: int, promise: Promise = lambda *_: None) -> None:
    """One of them; what comes back of it is what may not be lost."""
    rows = add_shard(corpus, *COMMITS[number], n_steps=3)
    settings = corpus.info.settings_hash
    refused = QuarantineRow(f"{number}.mp4", "", "find", Reason.EMPTY_FILE, "empty", settings)
    report = corpus.commit(rows, [refused])
    promise(INFO, refused.path, *report.committed, *report.already_there)


def images(cuts: Sequence[Cut]) -> Iterator[tuple[Image, frozenset[str]]]:
    """Folders that the power cuts may leave, with what must be in them.

    Of each cut: what is durable alone; every name with no bytes behind it that are not durable; and
    some at random. Those that differ in temporary files alone count as one: nobody reads them.
    """
    chance = random.Random(0)
    seen = set()
    for cut in cuts:
        by_chance = [(chance.choice, chance.choice)] * RANDOM_IMAGES
        for ways in ((oldest, oldest), (newest, oldest), *by_chance):
            image = cut.image(*ways)
            visible = filter(is_visible, image)
            key = (frozenset((path, image[path]) for path in visible), cut.promised)
            if key not in seen:
                seen.add(key)
                yield image, cut.promised


def put(image: Image, folder: Path) -> Path:
    """Make a folder what the image says; the corpus in it."""
    shutil.rmtree(folder, ignore_errors=True)
    for path, content in sorted(image.items()):
        if content is None:
            (folder / path).mkdir()
        else:
            (folder / path).write_bytes(content)
    return folder / "corpus"


def violations(location: Path, promised: frozenset[str], want: dict[str, Any]) -> list[str]:
    """What is wrong with a corpus after a power cut."""
    try:
        found = set[str]()
        if (location / INFO).exists():
            corpus = Corpus.open(location)
            if problems := corpus.verify().problems:
                return [*problems]
            found = {INFO, *corpus.known_recordings(), *corpus.quarantine["path"]}
        halves = [each for each in TOGETHER if not (each <= found or each.isdisjoint(found))]
        wrong = [f"half of a commit: {half}" for half in halves]
        wrong += [f"lost: {name}" for name in promised - found]
        fill(location)
        return wrong if digest(location) == want else [*wrong, "the next run does not complete it"]
    except WhamDataError as error:
        return [str(error)]


def all_violations(cuts: Sequence[Cut], folder: Path, want: dict[str, Any]) -> Iterator[str]:
    """What is wrong with any of the folders that any of the cuts may leave."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)  # the power goes but once
        for image, promised in images(cuts):
            yield from violations(put(image, folder), promised, want)


@pytest.fixture
def want(tmp_path: Path) -> dict[str, Any]:
    """What an undisturbed run makes."""
    fill(tmp_path / "undisturbed")
    return digest(tmp_path / "undisturbed")


def watched_run(disk: Path, **syncs: bool) -> Disk:
    """A run that nobody disturbs, watched."""
    watched = Disk(disk, **syncs)
    with pytest.MonkeyPatch.context() as patch:
        watched.watch(patch)
        fill(disk / "corpus", watched.promise)
    return watched


def test_a_power_cut_at_any_moment_leaves_a_whole_corpus_with_all_that_was_reported(
    disk: Path, tmp_path: Path, want: dict[str, Any]
) -> None:
    watched = watched_run(disk)

    assert watched.cuts[-1].image(newest, newest) == watched.now(), "the model missed something"
    assert not list(all_violations(watched.cuts, tmp_path / "after", want))


@pytest.mark.parametrize("without", ["syncs_files", "syncs_folders"])
def test_the_model_sees_what_goes_wrong_without_syncing(
    without: str, disk: Path, tmp_path: Path, want: dict[str, Any]
) -> None:
    watched = watched_run(disk, **{without: False})

    assert next(all_violations(watched.cuts[-1:], tmp_path / "after", want), None)


@pytest.mark.parametrize("second", ["starts then", "was there before"])
def test_what_another_writer_left_half_done_is_durable_once_it_was_built_upon(
    second: str, disk: Path, tmp_path: Path, want: dict[str, Any]
) -> None:
    """The first stops at some moment; the second does the same work to its end; the power goes."""
    found = list[tuple[int, str]]()
    for moment in itertools.count():
        shutil.rmtree(disk)
        disk.mkdir()
        cut = stopped_and_done_again(disk, moment, late=second == "starts then")
        if cut is None:
            break
        after = violations(put(cut.image(oldest, oldest), tmp_path / "after"), cut.promised, want)
        found += [(moment, each) for each in after]
    assert moment >= 5
    assert not found


def stopped_and_done_again(disk: Path, moment: int, *, late: bool) -> Cut | None:
    """Where the power goes when a second writer has done what a first one was stopped at.

    None if the first one came to its end before.
    """
    location, watched, done = disk / "corpus", Disk(disk), list[Cut]()

    def begin() -> Corpus:
        return Corpus.open_or_create(location, info())

    with pytest.MonkeyPatch.context() as patch:
        watched.watch(patch)
        first, second = (None, None) if late else (begin(), begin())

        def meanwhile() -> None:
            commit(second or begin(), 0, watched.promise)
            done.append(watched.cuts[-1])

        watched.interrupt(moment, meanwhile)
        commit(first or begin(), 0)
    return done[0] if done else None
