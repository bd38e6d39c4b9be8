"""A run gives every split that was asked for a recording, or says at once why it cannot."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from makers.recordings import Cut, cut

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.job import run_ingest
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.run.progress import Silent
from wham_data.pipelines.run.runner import LocalRunner, Outcome

PLAIN = IngestSettings(tokenizer=None)
ALL = {"train", "val", "test"}


@dataclass
class Heard(Silent):
    lines: list[str] = field(default_factory=list)

    def message(self, text: str, *, warning: bool = False) -> None:  # noqa: ARG002
        self.lines.append(text)


class Shuffled:
    """A runner that hands the outcomes over in another order, as a cluster does."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def run(self, stage: object, items: object, advance: object) -> Iterator[Outcome]:
        outcomes = list(LocalRunner().run(stage, items, advance))  # type: ignore[arg-type]
        yield from random.Random(self.seed).sample(outcomes, len(outcomes))


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings that can be read and two that cannot."""
    folder = tmp_path_factory.mktemp("six")
    for number in range(4):
        cut(folder, f"play-{number}", Cut("coinrun", number, 0.6))
    for number in range(2):
        broken = cut(folder, f"broken-{number}", Cut("doom", number, 0.6))
        broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    return folder


def splits_of(corpus: Path) -> dict[str, str]:
    rows = Corpus.open(corpus).episodes.select("recording", "split").rows()
    return dict(rows)


def test_what_is_refused_fills_no_split_and_the_order_of_outcomes_does_not_matter(
    six: Path, tmp_path: Path
) -> None:
    found = []
    for seed in range(4):
        out = tmp_path / f"corpus-{seed}"
        run_ingest([six], out, PLAIN, Shuffled(seed))  # type: ignore[arg-type]
        found.append(splits_of(out))

    assert set(found[0].values()) == ALL
    assert found == [found[0]] * 4


@pytest.mark.parametrize("seed", range(3))
def test_recordings_that_come_one_by_one_fill_every_split(
    seed: int, six: Path, tmp_path: Path
) -> None:
    settings = IngestSettings(tokenizer=None, split_seed=seed)
    for number in range(3):
        source = six / f"play-{number}.mp4"
        run_ingest([source], tmp_path / "corpus", settings, LocalRunner())

    assert set(splits_of(tmp_path / "corpus").values()) == ALL


PLAYER, MATCH = "--split-by match", "--split-by recording"


@pytest.mark.parametrize(
    ("split_by", "says", "splits"),
    [("player", PLAYER, {"train"}), ("match", MATCH, {"train"}), ("recording", None, ALL)],
)
def test_where_grouping_leaves_a_split_empty_the_run_says_what_helps(
    split_by: str, says: str | None, splits: set[str], tmp_path: Path
) -> None:
    for number in range(3):
        cut(tmp_path / "in", f"play-{number}", Cut("coinrun", number, 0.6), player="me", match="m")
    settings = IngestSettings(tokenizer=None, split_by=split_by)  # type: ignore[arg-type]
    heard = Heard()

    run_ingest([tmp_path / "in"], tmp_path / "corpus", settings, LocalRunner(), watch=heard)

    lines = [line for line in heard.lines if "no episode will be in val or test" in line]
    assert set(splits_of(tmp_path / "corpus").values()) == splits
    assert [says in line for line in lines] == ([True] if says else [])
    assert Corpus.open(tmp_path / "corpus").verify().notes == ()


def test_by_time_each_recording_has_every_split_with_gaps_that_are_counted(tmp_path: Path) -> None:
    cut(tmp_path / "in", "long", Cut("coinrun", 0, 6.0))
    cut(tmp_path / "in", "short", Cut("coinrun", 7, 1.0))
    settings = IngestSettings(tokenizer=None, split_by="time", split=(60, 20, 20))

    report = run_ingest([tmp_path / "in"], tmp_path / "corpus", settings, LocalRunner())
    corpus = Corpus.open(tmp_path / "corpus")
    long, short = (
        corpus.episodes.filter(corpus.episodes["player"] == name).sort("start_ns").rows(named=True)
        for name in ("long", "short")
    )

    assert [(row["split"], row["n_steps"]) for row in long] == [
        *[("train", 32), ("val", 11), ("test", 11)]
    ]
    assert [(row["split"], row["n_steps"]) for row in short] == [("train", 10)]
    assert "not divided in time" in short[0]["notes"][-1]
    starts = [row["start_ns"] // 100_000_000 for row in long]
    assert starts == [0, 35, 49]
    assert report.frames_dropped["between_splits"] == 6
    assert report.frames_in == report.frames_used + sum(report.frames_dropped.values())
    assert corpus.verify().ok
    again = run_ingest([tmp_path / "in"], tmp_path / "corpus", settings, LocalRunner())
    assert (again.already_there, again.ingested) == (2, 0)
