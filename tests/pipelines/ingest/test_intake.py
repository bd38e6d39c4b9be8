"""A run starts with the first recording it finds, and gives what a run that knew them all would give."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.recordings import PLAIN, BreaksOff, Cut, cut, digest, ingest_here

from wham_data.corpus import Corpus
from wham_data.corpus.splits import Conflict, Ties, assign_splits
from wham_data.pipelines.ingest.corpus_settings import MOST_LOOKED_AT, columns_held, corpus_info
from wham_data.pipelines.ingest.intake.backlog import BLOCK, Backlog
from wham_data.pipelines.ingest.intake.inputs import Found
from wham_data.pipelines.ingest.intake.intake import Intake
from wham_data.pipelines.ingest.intake.known_inputs import FileStamp, KnownInputs
from wham_data.pipelines.ingest.intake.sorting import Against
from wham_data.pipelines.ingest.job import IngestWork, run_ingest
from wham_data.pipelines.ingest.pseudonyms import Naming
from wham_data.pipelines.ingest.report import IngestProgress, IngestReport
from wham_data.pipelines.ingest.results import Results
from wham_data.pipelines.ingest.run_splits import RunSplits
from wham_data.pipelines.ingest.settings import IngestChoices, IngestSettings
from wham_data.pipelines.readers import SourceSearch, discover
from wham_data.pipelines.readers.kit.units import FoundInUnit
from wham_data.pipelines.run.progress import Silent
from wham_data.pipelines.run.runner import LocalRunner, Stage
from wham_data.schemas.errors import NoInputsError
from wham_data.schemas.recording import Recording

Search = Iterator[Recording | FoundInUnit]


class Bench:
    """A run into a new corpus, with a search that the test holds up."""

    def __init__(self, folder: Path, out: Path, settings: IngestSettings = PLAIN) -> None:
        self.folder, self.out, self.settings = folder, out, settings
        info = corpus_info(columns_held(discover([folder]).recordings, settings), settings)
        assert info is not None
        self.corpus = Corpus.open_or_create(out, info)
        self.results: Results

    def run(self, search: Iterable[Recording | FoundInUnit]) -> IngestReport:
        intake = Intake(search, Against(), KnownInputs(), None)
        watch = Silent()
        self.results = Results(self.corpus, intake, self.settings, IngestChoices(), Naming(), watch)
        stage = Stage("ingest", setup=IngestWork(self.settings, self.corpus, 1))
        try:
            for outcome in LocalRunner().run(stage, intake, self.results.advance):
                self.results.take(outcome)
                self.results.commit()
        finally:
            intake.close(broken_off=False)
            self.results.commit(at_end=True)
        return self.results.report(0.0, None)

    def held_up(self, after: int, until: Callable[[], bool]) -> Search:
        """The search, which finds so many recordings and the others when something has come true."""
        for number, each in enumerate(SourceSearch([self.folder]).found()):
            if number == after:
                self.waited = wait_for(until)
            yield each

    def progress(self) -> IngestProgress:
        """That of the run, which may be about to begin in another thread."""
        wait_for(lambda: hasattr(self, "results"))
        return self.results._progress

    def episodes(self) -> int:
        return Corpus.open(self.out).n_episodes


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> bool:
    waiting = threading.Event()
    for _ in range(round(seconds / 0.05)):
        if true():
            return True
        waiting.wait(0.05)
    return False


def untied(folder: Path, count: int) -> Path:
    for number in range(count):
        video = cut(folder, f"play-{number:02}", Cut("coinrun", number / 2, 0.6))
        toml = video.with_suffix(".toml")
        lines = toml.read_text().splitlines(keepends=True)
        toml.write_text("".join(line for line in lines if not line.startswith("player")))
    return folder


def test_the_first_recording_is_in_the_corpus_before_the_last_is_found(tmp_path: Path) -> None:
    folder = untied(tmp_path / "in", 4)
    settings = replace(PLAIN, split=(1, 0, 0))
    bench = Bench(folder, tmp_path / "corpus", settings)

    report = bench.run(bench.held_up(2, lambda: bench.episodes() >= 1))

    assert bench.waited
    assert (report.found, report.ingested, report.not_reached) == (4, 4, 0)
    ingest_here(folder, tmp_path / "at-once", settings)
    assert digest(tmp_path / "corpus") == digest(tmp_path / "at-once")


def test_a_recording_of_a_player_waits_for_all_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number in range(4):
        cut(folder, f"play-{number}", Cut("coinrun", number, 0.6), player=f"player {number}")
    bench = Bench(folder, tmp_path / "corpus")
    before: list[int] = []

    def all_taken_are_done() -> bool:
        before.append(bench.episodes())
        return bench.progress().done >= 3

    report = bench.run(bench.held_up(3, all_taken_are_done))

    assert bench.waited
    assert max(before) == 0, "for its split depends on every recording of the player"
    assert report.ingested == 4
    ingest_here(folder, tmp_path / "at-once")
    assert digest(tmp_path / "corpus") == digest(tmp_path / "at-once")


def test_a_copy_that_is_found_after_the_original_was_refused_is_refused_too(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "in"
    cut(folder, "good", Cut("coinrun", 0, 0.6))
    torn = cut(folder, "torn", Cut("doom", 1, 0.6))
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    for ending in (".mp4", ".csv", ".toml"):
        shutil.copy(torn.with_suffix(ending), folder / f"torn-again{ending}")
    first, second = (discover([folder]).recordings[number] for number in (2, 1))
    assert (first.path.name, second.path.name) == ("torn.mp4", "torn-again.mp4")
    bench = Bench(folder, tmp_path / "corpus")

    def search() -> Search:
        yield first
        bench.waited = wait_for(lambda: bench.progress().refused == 1)
        yield second

    report = bench.run(search())

    assert bench.waited
    assert (report.found, report.quarantined, report.duplicates) == (2, 2, 0)
    rows = Corpus.open(tmp_path / "corpus").quarantine
    assert sorted(Path(path).name for path in rows["path"]) == ["torn-again.mp4", "torn.mp4"]


def test_a_run_that_is_stopped_and_begun_again_gives_what_one_run_gives(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for number in range(5):
        cut(folder, f"play-{number}", Cut("coinrun", number, 0.6), player=f"player {number % 3}")

    with pytest.raises(KeyboardInterrupt):
        run_ingest([folder], tmp_path / "corpus", PLAIN, BreaksOff(after=1))
    ingest_here(folder, tmp_path / "corpus")

    ingest_here(folder, tmp_path / "at-once")
    assert digest(tmp_path / "corpus") == digest(tmp_path / "at-once")


def test_an_error_of_the_search_ends_the_run(tmp_path: Path) -> None:
    bench = Bench(untied(tmp_path / "in", 2), tmp_path / "corpus")

    def search() -> Search:
        yield from SourceSearch([bench.folder]).found()
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        bench.run(search())


def test_what_waits_keeps_its_order_and_is_packed() -> None:
    backlog = Backlog()
    stamp = FileStamp(10, 1, 2)
    path = Path("/recordings/of/a/game/play.mp4")
    put = [
        Found(Recording(path, (path,), "video-log", part=str(n)), f"{n:064x}", 10, "", (stamp,))
        for n in range(5 * BLOCK + 3)
    ]
    for each in put[:-3]:
        backlog.put(each)
    taken = [backlog.take(0) for _ in range(BLOCK // 2)]
    for each in put[-3:]:
        backlog.put(each)
    backlog.end()
    while (found := backlog.take(0)) is not None:
        taken.append(found)

    assert taken == put
    assert backlog.is_empty


def test_the_columns_come_from_the_first_recordings_by_path(tmp_path: Path) -> None:
    folder = untied(tmp_path / "in", 1)
    (one,) = discover([folder]).recordings
    taken = 0

    def many() -> Iterator[Recording]:
        nonlocal taken
        while True:
            taken += 1
            yield one

    columns = columns_held(many(), PLAIN)

    assert columns.space is not None
    assert columns.space.name == "xinput"
    assert taken == MOST_LOOKED_AT + 1


KEYS = [f"{number:064x}" for number in range(8)]
TIES = st.tuples(st.sampled_from([None, "m1", "m2"]), st.sampled_from([None, None, "ann", "bob"]))


@settings(max_examples=60, deadline=None)
@given(
    ties=st.lists(TIES, min_size=1, max_size=8),
    settled_after=st.integers(0, 8),
    refused=st.sets(st.integers(0, 7)),
    seed=st.integers(0, 3),
)
def test_splits_given_early_are_those_that_all_recordings_together_get(
    empty: Corpus,
    ties: list[tuple[str | None, str | None]],
    settled_after: int,
    refused: set[int],
    seed: int,
) -> None:
    inputs = [Ties(key, *each) for key, each in zip(KEYS, ties, strict=False)]
    bad = {KEYS[number] for number in refused}
    chosen = replace(PLAIN, split_seed=seed, split=(2, 1, 1))
    splits = RunSplits(empty, chosen, None)
    given_out: dict[str, str | Conflict] = {}
    for number, each in enumerate(inputs):
        if number == settled_after:
            splits.settle(inputs, (), 0)
        if each.recording in bad:
            splits.refuse(each.recording)
        else:
            splits.take(each)
        waiting = [t for t in inputs[: number + 1] if t.recording not in bad]
        given_out |= splits.of(splits.final(waiting))
    if splits.plan is None:
        splits.settle(inputs, (), 0)
    given_out |= splits.of([key for key in (t.recording for t in inputs) if key not in given_out])

    expected = assign_splits(inputs, (), chosen.split, seed, refused=bad)

    assert {k: s for k, s in given_out.items() if k not in bad} == {
        key: split for key, split in expected.items() if key not in bad
    }


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    folder = tmp_path_factory.mktemp("empty")
    return Bench(untied(folder / "in", 1), folder / "corpus").corpus


def test_nothing_is_made_where_nothing_is_found(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    with pytest.raises(NoInputsError):
        ingest_here(tmp_path / "in", tmp_path / "corpus", replace(PLAIN, actions="xinput"))

    assert not (tmp_path / "corpus").exists()


def test_where_nothing_is_found_any_more_the_corpus_stays_as_it_is(tmp_path: Path) -> None:
    ingest_here(untied(tmp_path / "in", 1), tmp_path / "corpus")
    (tmp_path / "empty").mkdir()

    with pytest.raises(NoInputsError):
        ingest_here(tmp_path / "empty", tmp_path / "corpus")

    assert len(list((tmp_path / "corpus" / "runs").iterdir())) == 1
