"""A corpus that holds pictures becomes the corpus that ingest would have made with a tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers.commands import Run
from makers.recordings import Cut, cut, digest, ingest_here

from wham_data.corpus import Corpus
from wham_data.corpus.compact import compact
from wham_data.corpus.forget import forget
from wham_data.inference.tokenizer import BUNDLED
from wham_data.pipelines.ingest.intake.counts import Counts
from wham_data.pipelines.ingest.report import IngestProgress
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.ingest.tokenize import tokenize
from wham_data.pipelines.run.progress import Event, Progress, Silent
from wham_data.schemas.errors import IntegrityError, MismatchError, UsageError

PNG = IngestSettings(tokenizer=None, frames="png")
WITH_TOKENS = IngestSettings(tokenizer="wham-tiny", frames="png")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three short recordings and one that is torn. Only to be read."""
    folder = tmp_path_factory.mktemp("recorded")
    for number, name in enumerate(("ann", "bob", "cem")):
        cut(folder, name, Cut("coinrun", number, 0.5))
    torn = cut(folder, "torn", Cut("coinrun", 5, 0.5))
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    return folder


@pytest.fixture(scope="module")
def pictured(recorded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their corpus with pictures, two of them compacted into one shard. Only to be read."""
    out = tmp_path_factory.mktemp("pictured") / "corpus"
    ingest_here(recorded, out, PNG, limit=2)
    compact(Corpus.open(out))
    ingest_here(recorded, out, PNG)
    return out


@pytest.fixture(scope="module")
def tokenized(pictured: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with tokens. Only to be read."""
    out = tmp_path_factory.mktemp("tokenized") / "corpus"
    tokenize(pictured, tokenizer="wham-tiny", out=out, workers=0, device="cpu")
    return out


def test_it_is_byte_for_byte_the_corpus_that_ingest_makes(
    recorded: Path, tokenized: Path, tmp_path: Path
) -> None:
    ingest_here(recorded, tmp_path / "direct", WITH_TOKENS, device="cpu")

    assert digest(tokenized) == digest(tmp_path / "direct")
    assert Corpus.open(tokenized).info == Corpus.open(tmp_path / "direct").info


def test_everything_but_the_tokens_is_as_it_was(pictured: Path, tokenized: Path) -> None:
    before, after = Corpus.open(pictured), Corpus.open(tokenized)
    placed = ("shard", "shard_sha256", "row_start", "settings", "tokenizer", "created")

    assert before.episodes.drop(placed).equals(after.episodes.drop(placed))
    assert (
        before.scan()
        .collect()
        .sort("episode", "step")
        .equals(after.scan().drop("tokens").collect().sort("episode", "step"))
    )
    assert after.verify().ok


def test_the_same_again_does_nothing_and_more_does_only_that(
    recorded: Path, tmp_path: Path
) -> None:
    ingest_here(recorded, tmp_path / "png", PNG, limit=1)
    options = {"tokenizer": "wham-tiny", "out": tmp_path / "tokens", "workers": 0, "device": "cpu"}
    first = tokenize(tmp_path / "png", **options)  # type: ignore[arg-type]
    again = tokenize(tmp_path / "png", **options)  # type: ignore[arg-type]
    assert (first.recordings, again.recordings, again.already_there) == (1, 0, 1)
    assert again.version == first.version

    ingest_here(recorded, tmp_path / "png", PNG, limit=2)
    more = tokenize(tmp_path / "png", **options)  # type: ignore[arg-type]
    assert (more.recordings, more.already_there) == (1, 1)


class _Stopped(Exception):
    """The person at the terminal has had enough."""


class _StopsAfterOne(Silent):
    """A watch that ends the run when one recording is through."""

    def message(self, text: str, *, warning: bool, event: object = None) -> None:
        """One line about one input."""
        raise _Stopped(text, warning, event)


def test_what_was_done_when_it_was_stopped_is_kept(pictured: Path, tmp_path: Path) -> None:
    options = {"tokenizer": "wham-tiny", "out": tmp_path / "c", "workers": 0, "device": "cpu"}
    with pytest.raises(_Stopped):
        tokenize(pictured, **options, watch=_StopsAfterOne())  # type: ignore[arg-type]

    assert tokenize(pictured, **options).already_there == 1  # type: ignore[arg-type]


def test_tokens_of_jpeg_are_not_mixed_with_tokens_of_the_source(
    recorded: Path, tmp_path: Path
) -> None:
    jpeg = IngestSettings(tokenizer=None, frames="jpeg")
    ingest_here(recorded, tmp_path / "jpeg", jpeg, limit=1)
    out = tmp_path / "tokens"
    tokenize(tmp_path / "jpeg", tokenizer="wham-tiny", out=out, workers=0, device="cpu")

    assert Corpus.open(out).info.settings["tokens_of"] == "jpeg"
    with pytest.raises(MismatchError, match=r'settings.tokens_of: "jpeg", not absent'):
        ingest_here(recorded, out, IngestSettings(tokenizer="wham-tiny", frames="jpeg"))


def test_the_pictures_can_be_left_out(pictured: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokens"
    tokenize(pictured, tokenizer="wham-tiny", out=out, keep_frames=False, workers=0, device="cpu")

    corpus = Corpus.open(out)
    assert "frame" not in corpus.scan().collect_schema().names()
    assert corpus.verify().ok


def test_who_was_forgotten_stays_out_of_the_new_corpus(recorded: Path, tmp_path: Path) -> None:
    ingest_here(recorded, tmp_path / "png", PNG)
    forget(Corpus.open(tmp_path / "png"), {"player": ["ann", "bob"]})
    out = tmp_path / "tokens"
    tokenize(tmp_path / "png", tokenizer="wham-tiny", out=out, workers=0, device="cpu")

    assert ingest_here(recorded, out, WITH_TOKENS, device="cpu").forgotten == 2


def test_a_corpus_without_pictures_is_refused_with_what_to_do(
    recorded: Path, tmp_path: Path
) -> None:
    bare = IngestSettings(tokenizer=None)
    ingest_here(recorded, tmp_path / "bare", bare, limit=1)
    with pytest.raises(
        UsageError, match=r"contains no pictures .* with --tokenizer, or with --frames"
    ):
        tokenize(tmp_path / "bare", tokenizer="wham-tiny", out=tmp_path / "c", workers=0)

    small = IngestSettings(tokenizer=None, frames="png", size=(64, 64))
    ingest_here(recorded, tmp_path / "small", small, limit=1)
    with pytest.raises(
        UsageError, match="pictures are 64x64, but tokenizer wham-tiny needs 300x180"
    ):
        tokenize(tmp_path / "small", tokenizer="wham-tiny", out=tmp_path / "c", workers=0)
    assert not (tmp_path / "c").exists()


def test_damage_is_never_copied(recorded: Path, tmp_path: Path) -> None:
    ingest_here(recorded, tmp_path / "png", PNG, limit=1)
    corpus = Corpus.open(tmp_path / "png")
    path = corpus.shard_path(corpus.episodes["shard"][0])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(IntegrityError, match=f"{path.name}: corrupt: sha256"):
        tokenize(
            tmp_path / "png", tokenizer="wham-tiny", out=tmp_path / "c", workers=0, device="cpu"
        )
    assert Corpus.open(tmp_path / "c").n_episodes == 0


def test_progress_at_the_sources_own_rate_tells_no_hours() -> None:
    progress = IngestProgress(Counts(to_do=1), rate=0.0, tokens_per_frame=540, frames=100)
    assert progress.hours == 0.0
    assert "play_seconds" not in [each.name for each in progress.numbers]


class _Heard(Silent):
    """A watch that keeps the events, and the last progress."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.progress: Progress | None = None

    def progressed(self, progress: Progress) -> None:
        self.progress = progress

    def message(self, text: str, *, warning: bool, event: Event | None = None) -> None:
        del text, warning
        self.events += [event] if event else []


def test_a_program_is_told_what_was_done_and_committed(pictured: Path, tmp_path: Path) -> None:
    heard = _Heard()
    made = tokenize(
        pictured, tokenizer="wham-tiny", out=tmp_path / "c", workers=0, device="cpu", watch=heard
    )

    done = [each for each in heard.events if each.name == "done"]
    commits = [each.facts for each in heard.events if each.name == "commit"]
    assert len(done) == sum(each["recordings"] for each in commits) == made.recordings == 3
    assert commits[-1]["version"] == made.version
    assert heard.progress is not None
    numbers = {each.name: each.value for each in heard.progress.numbers}
    assert numbers["frames"] == sum(each.facts["steps"] for each in done) == made.steps
    assert numbers["tokens"] == 540 * made.steps
    assert "read_bytes" not in numbers  # its progress counts steps


def test_a_tokenizer_that_is_found_in_a_folder_is_named(
    cli: Run, recorded: Path, tmp_path: Path
) -> None:
    clone, pictures = tmp_path / "clone", tmp_path / "pictures"
    (clone / "models").mkdir(parents=True)
    (clone / "models" / "tiny").symlink_to(BUNDLED["wham-tiny"])
    told = f"tokenizer {clone}: took models/tiny in it"

    here = ("--workers", "0", "--limit", "1")
    dry = cli("ingest", recorded, "--out", tmp_path / "c", "--tokenizer", clone, "--dry-run")
    ingested = cli("ingest", recorded, "--out", tmp_path / "c", "--tokenizer", clone, *here)
    cli("ingest", recorded, "--out", pictures, "--tokenizer", "none", "--frames", "png", *here)
    tokenized = cli("tokenize", pictures, "--out", tmp_path / "t", "--tokenizer", clone)
    to = ("--to", "wham-npz", "--out", tmp_path / "e", "--tokenizer", clone)
    exported = cli("export", tmp_path / "c", *to, "--workers", "0")

    assert f"tokenizer: {clone}: took models/tiny in it" in dry.stdout
    for run in (ingested, tokenized, exported):
        assert told in run.stderr
        assert run.returncode == 0
