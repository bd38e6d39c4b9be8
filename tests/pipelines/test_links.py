"""Links among inputs: followed within what was given and within a hub's cache, and refused elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from makers.corpora import small_corpus
from makers.dreams import small_checkpoint
from makers.hub_cache import as_hub_cache, linked
from makers.recordings import PLAIN, Cut, cut, digest, ingest_here
from PIL import Image

from wham_data.corpus import Corpus
from wham_data.corpus.compact import compact
from wham_data.files.found import open_regular
from wham_data.inference.checkpoints.lightning import open_checkpoint
from wham_data.pipelines.dream.sources import open_dream_source
from wham_data.pipelines.ingest.shown.inspect import Stretch, inspect
from wham_data.pipelines.readers import discover, follow_links_of
from wham_data.schemas.errors import Reason, RefusedInput, UsageError


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A folder with a recording: video, log and metadata."""
    return cut(tmp_path / "rec", "play", Cut("coinrun", 0, 1)).parent


def sources(corpus: Path) -> list[str]:
    return Corpus.open(corpus).episodes["source"].unique().to_list()


@pytest.mark.parametrize("given", ["", "snapshots", "snapshots/abc", "snapshots/abc/play.mp4"])
def test_a_hubs_cache_is_read_by_the_names_of_its_links(
    recording: Path, tmp_path: Path, given: str
) -> None:
    snapshot = as_hub_cache(recording, tmp_path / "hub" / "datasets--x--game")

    report = ingest_here(tmp_path / "hub" / "datasets--x--game" / given, tmp_path / "c")

    assert (report.found, report.ingested, report.ignored_files) == (1, 1, 0)
    assert sources(tmp_path / "c") == [str(snapshot / "play.mp4")]
    plain = ingest_here(recording, tmp_path / "plain")
    assert plain.steps == report.steps
    assert digest(tmp_path / "c")["shards"] == digest(tmp_path / "plain")["shards"]


def test_the_cache_may_be_reached_through_a_link(recording: Path, tmp_path: Path) -> None:
    snapshot = as_hub_cache(recording, tmp_path / "disk" / "hub" / "datasets--x--game")
    linked(tmp_path / "home" / "hub", tmp_path / "disk" / "hub")
    linked(tmp_path / "mine", snapshot)
    for given in (tmp_path / "home" / "hub", tmp_path / "mine", tmp_path / "mine" / "play.mp4"):
        found = discover([given])
        assert [each.path for each in found.recordings] == [snapshot / "play.mp4"]
        assert found.refused == found.ignored == ()


@pytest.mark.parametrize("store", [".git/annex/objects", ".store", "store"])
def test_a_link_within_the_folder_names_the_file_it_leads_to(
    recording: Path, tmp_path: Path, store: str
) -> None:
    for number, name in enumerate(("play.mp4", "play.csv", "play.toml")):
        hidden = tmp_path / "in" / store / f"{number:08x}"
        hidden.parent.mkdir(parents=True, exist_ok=True)
        (recording / name).rename(hidden)
        linked(tmp_path / "in" / "videos" / name, hidden)

    report = ingest_here(tmp_path / "in", tmp_path / "c")

    assert (report.found, report.ingested) == (1, 1)
    assert sources(tmp_path / "c") == [str(tmp_path / "in" / "videos" / "play.mp4")]


def test_of_a_link_and_its_target_the_one_with_a_log_is_the_recording(recording: Path) -> None:
    linked(recording / "latest.mp4", recording / "play.mp4")
    (recording / "0001.mp4").write_bytes((recording / "play.mp4").read_bytes() + b"\0\0\0\x08free")
    linked(recording / "named" / "play.mp4", recording / "0001.mp4")
    linked(recording / "named" / "play.csv", recording / "play.csv")
    found = discover([recording])
    names = [str(each.path.relative_to(recording)) for each in found.recordings]
    assert names == ["named/play.mp4", "play.mp4"]
    assert found.refused == ()


def outside(folder: Path, away: Path) -> Path:
    return linked(folder / "x.mp4", away / "x.mp4")


def absolute(folder: Path, away: Path) -> Path:
    (folder / "x.mp4").symlink_to(away / "x.mp4")
    return folder / "x.mp4"


def by_a_second_link(folder: Path, away: Path) -> Path:
    return linked(folder / "x.mp4", linked(folder / "step", away / "x.mp4"))


def through_a_linked_folder(folder: Path, away: Path) -> Path:
    linked(folder / "in", away)
    return linked(folder / "x.mp4", folder / "in" / "x.mp4")


def of_another_repository(folder: Path, away: Path) -> Path:
    (folder / "blobs").mkdir()
    (away / "blobs").mkdir()
    (away / "x.mp4").rename(away / "blobs" / "0")
    return linked(folder / "snapshots" / "abc" / "x.mp4", away / "blobs" / "0")


def by_linked_blobs(folder: Path, away: Path) -> Path:
    linked(folder / "blobs", away)
    return linked(folder / "snapshots" / "abc" / "x.mp4", folder / "blobs" / "x.mp4")


def beside_a_snapshot(folder: Path, away: Path) -> Path:
    (folder / "blobs").mkdir()
    return linked(folder / "snapshots" / "abc" / "x.mp4", away / "x.mp4")


def a_log(folder: Path, away: Path) -> Path:
    return linked(folder / "x.csv", away / "x.csv")


def a_folder(folder: Path, away: Path) -> Path:
    return linked(folder / "more", away)


ESCAPES = (
    *(outside, absolute, by_a_second_link, through_a_linked_folder, of_another_repository),
    *(by_linked_blobs, beside_a_snapshot, a_log, a_folder),
)


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_link_that_leads_out_is_refused_with_where_it_leads(
    tmp_path: Path, escape: Callable[[Path, Path], Path]
) -> None:
    folder, away = tmp_path / "in", tmp_path / "away"
    cut(away, "x", Cut("coinrun", 0, 1))
    folder.mkdir()
    link = escape(folder, away)
    refused = dict(discover([folder]).refused)
    assert refused[link].reason == Reason.UNSAFE_PATH
    assert f"leads out of the folder, to {away}" in refused[link].message
    with pytest.raises(RefusedInput, match="leads out of the folder"):
        open_regular(link)


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A folder of somebody else within my own; its video is a link to one that is mine."""
    cut(tmp_path / "mine" / "private", "x", Cut("coinrun", 0, 1))
    return linked(
        tmp_path / "mine" / "stranger" / "x.mp4", tmp_path / "mine" / "private" / "x.mp4"
    ).parent


def test_what_an_earlier_job_was_given_opens_no_link_of_a_later_one(stranger: Path) -> None:
    link, mine = stranger / "x.mp4", stranger.parent
    for _ in range(2):
        assert discover([mine]).refused == ()
        with open_regular(link) as file:
            assert file.read(1)
        assert [path for path, _ in discover([stranger]).refused] == [link]
        with pytest.raises(RefusedInput, match="leads out of the folder"):
            open_regular(link)


def test_beside_an_input_that_is_a_file_no_link_is_followed(stranger: Path) -> None:
    mine = stranger.parent
    (stranger / "y.mp4").write_bytes((mine / "private" / "x.mp4").read_bytes())
    log = linked(stranger / "y.csv", mine / "private" / "x.csv")
    linked(stranger / "y.toml", mine / "private" / "x.toml")
    (whole,) = [each for each in discover([mine]).recordings if each.path.name == "y.mp4"]
    assert log in whole.files

    ((video, why),) = discover([stranger / "y.mp4"]).refused

    assert (video.name, why.reason) == ("y.mp4", Reason.LOG_MISSING)


def test_of_inputs_given_together_the_outer_folder_decides(stranger: Path) -> None:
    for given in ([stranger, stranger.parent], [stranger.parent, stranger]):
        found = discover(given)
        assert found.refused == ()
        assert {each.root for each in found.recordings} == {stranger.parent}


def test_a_decoder_is_told_the_inputs_of_each_recording_anew(stranger: Path) -> None:
    mine = stranger.parent
    (of_all,) = [each for each in discover([mine]).recordings if each.path.parent.name == "private"]
    linked(stranger / "y.mp4", mine / "private" / "x.mp4")
    cut(stranger, "z", Cut("coinrun", 0, 1))
    (alone,) = discover([stranger / "z.mp4"]).recordings

    follow_links_of(of_all)
    open_regular(stranger / "y.mp4").close()
    follow_links_of(alone)

    with pytest.raises(RefusedInput, match="leads out of the folder"):
        open_regular(stranger / "y.mp4")


def test_a_link_to_nothing_says_so(tmp_path: Path) -> None:
    linked(tmp_path / "in" / "x.mp4", tmp_path / "in" / ".git" / "annex" / "gone")
    ((_, why),) = discover([tmp_path / "in"]).refused
    assert f"leads nowhere: {tmp_path}/in/.git/annex/gone is not there" in why.message


def test_a_dream_from_linked_pictures_is_called_by_the_link(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.jpg"):
        Image.new("RGB", (30, 18)).save(tmp_path / "pictures" / name)
    snapshot = as_hub_cache(tmp_path / "pictures", tmp_path / "datasets--x--pictures")
    one, both = open_dream_source([snapshot / "a.png"]), open_dream_source([snapshot])
    assert [episode.name for episode in one.episodes] == ["a"]
    assert (both.pictures, both.episodes[0].title) == (2, "abc")


def test_a_linked_corpus_can_be_checked_and_compacted(tmp_path: Path) -> None:
    small_corpus(tmp_path / "c")
    snapshot = as_hub_cache(tmp_path / "c", tmp_path / "datasets--x--corpus")
    blobs = {path.name: path.read_bytes() for path in (snapshot.parents[1] / "blobs").iterdir()}

    corpus = Corpus.open(snapshot)
    assert corpus.verify().ok
    assert compact(corpus).shards_after == 1

    assert Corpus.open(snapshot).verify().ok
    assert {
        path.name: path.read_bytes() for path in (snapshot.parents[1] / "blobs").iterdir()
    } == blobs


def test_a_linked_checkpoint_is_called_by_the_link(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    small_checkpoint(tmp_path / "model", "WHAM.ckpt")
    snapshot = as_hub_cache(tmp_path / "model", tmp_path / "models--x")
    linked(tmp_path / "mine.ckpt", tmp_path / "model" / "WHAM.ckpt")
    assert open_checkpoint(snapshot / "WHAM.ckpt").tokenizer.name == "WHAM.ckpt"
    assert open_checkpoint(tmp_path / "mine.ckpt").tokenizer.name == "mine.ckpt"
    assert open_checkpoint(tmp_path / "model" / ".." / "mine.ckpt").tokenizer.name == "mine.ckpt"


def test_inspect_never_writes_over_a_linked_recording(recording: Path, tmp_path: Path) -> None:
    snapshot = as_hub_cache(recording, tmp_path / "datasets--x--game")
    for out in (snapshot / "play.mp4", snapshot.parents[1] / "blobs" / f"{1:040x}"):
        with pytest.raises(UsageError, match=r"is a file of a recording|ends in"):
            inspect([snapshot], out, PLAIN, Stretch())
