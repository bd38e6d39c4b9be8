"""Recordings become a corpus: what goes in, what comes out, and that every input is accounted for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from makers.recordings import PLAIN, BreaksOff, Cut, cut, digest, ingest_here
from makers.video_clips import stamped, write_clip

from wham_data.corpus import Corpus
from wham_data.inference.tokenizer import load_tokenizer
from wham_data.pipelines.align import EpisodePlan
from wham_data.pipelines.ingest.dry_run import dry_run
from wham_data.pipelines.ingest.job import IngestSettings, ingest, run_ingest
from wham_data.pipelines.ingest.report import IngestReport
from wham_data.pipelines.ingest.stages import without_frames
from wham_data.pipelines.run.runner import Advance, In, LocalRunner, Out, Outcome, Stage
from wham_data.pipelines.video import VideoLimits, decode_frames, decode_image, index_video
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import MismatchError, NoInputsError, Reason, RefusedInput
from wham_data.schemas.steps import EpisodeSteps

TENTH_NS = 100_000_000


def test_every_input_and_every_frame_is_accounted_for(six_recordings: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "in"
    shutil.copytree(six_recordings, inputs)
    shutil.copy(inputs / "play0.mp4", inputs / "again.mp4")
    shutil.copy(inputs / "play0.csv", inputs / "again.csv")
    shutil.copy(inputs / "play0.toml", inputs / "again.toml")
    (inputs / "page.mp4").write_text("<!doctype html><h1>404</h1>")
    (inputs / "notes.txt").write_text("mine")

    report = ingest_here(inputs, tmp_path / "corpus")

    assert (report.found, report.ingested, report.duplicates, report.quarantined) == (8, 6, 1, 1)
    assert_adds_up(report)
    assert report.ignored_files == 1
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.episodes["n_steps"].sum() == report.steps
    assert report.hours == pytest.approx(report.steps / 10 / 3600)
    assert corpus.verify().ok


def test_running_it_again_does_nothing(six_recordings: Path, tmp_path: Path) -> None:
    first = ingest_here(six_recordings, tmp_path / "corpus")
    before = digest(tmp_path / "corpus")

    second = ingest_here(six_recordings, tmp_path / "corpus")

    assert (second.ingested, second.already_there, second.exit_code) == (0, 6, 0)
    assert second.version == first.version
    assert digest(tmp_path / "corpus") == before


def test_every_run_leaves_its_account_also_one_that_breaks_off(
    six_recordings: Path, tmp_path: Path
) -> None:
    ingest_here(six_recordings, tmp_path / "corpus")
    (whole,) = runs(tmp_path / "corpus")

    assert (whole["command"], whole["exit_code"], whole["report"]["ingested"]) == ("ingest", 0, 6)
    assert whole["inputs"]["recordings"] == 6
    assert {"python", "av", "pyarrow"} <= set(whole["versions"])

    with pytest.raises(KeyboardInterrupt):
        run_ingest([six_recordings], tmp_path / "other", PLAIN, BreaksOff(after=2))
    (broken,) = runs(tmp_path / "other")

    assert (broken["exit_code"], broken["report"]["ingested"]) == (130, 2)
    assert broken["report"]["not_reached"] == 4


def runs(corpus: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((corpus / "runs").iterdir())]


def test_a_copy_under_another_name_is_the_same_recording(tmp_path: Path) -> None:
    video = cut(tmp_path / "in", "one", Cut("doom", 0, 2), player="ann")
    for ending in (".mp4", ".csv", ".toml"):
        shutil.copy(video.with_suffix(ending), tmp_path / "in" / f"two{ending}")

    report = ingest_here(tmp_path / "in", tmp_path / "corpus")

    assert (report.ingested, report.duplicates, report.exit_code) == (1, 1, 0)
    (source,) = Corpus.open(tmp_path / "corpus").episodes["source"].unique()
    assert source == str(video), "the first by name is the original"


def test_a_bad_recording_goes_to_quarantine_and_the_rest_goes_in(tmp_path: Path) -> None:
    cut(tmp_path / "in", "good", Cut("doom", 0, 2))
    bad = cut(tmp_path / "in", "torn", Cut("doom", 3, 2))
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])

    report = ingest_here(tmp_path / "in", tmp_path / "corpus")

    assert (report.ingested, report.quarantined, report.exit_code) == (1, 1, 3)
    (row,) = Corpus.open(tmp_path / "corpus").quarantine.rows(named=True)
    assert (row["path"], row["stage"]) == (str(bad), "ingest")
    assert (row["reason"], row["frames_expected"]) == (Reason.TRUNCATED, 70)
    assert 0 < row["frames_decoded"] < 70
    assert str(row["frames_decoded"]) in row["message"]
    assert row["sha256"], "so that a later run knows it again"


def test_what_was_refused_is_not_tried_again_unless_asked_for(tmp_path: Path) -> None:
    cut(tmp_path / "in", "good", Cut("doom", 0, 2))
    bad = cut(tmp_path / "in", "torn", Cut("coinrun", 3, 2))
    bad.write_bytes(bad.read_bytes()[:2000])
    ingest_here(tmp_path / "in", tmp_path / "corpus")

    again = ingest_here(tmp_path / "in", tmp_path / "corpus")
    asked = ingest_here(tmp_path / "in", tmp_path / "corpus", retry_quarantined=True)

    assert again.reasons == {"refused by an earlier run": 1}
    assert (again.quarantined, again.exit_code) == (1, 3)
    assert "refused by an earlier run" not in asked.reasons
    assert asked.quarantined == 1
    assert Corpus.open(tmp_path / "corpus").quarantine.height == 1, (
        "one row however often it is tried"
    )
    for report in (again, asked):
        assert_adds_up(report)


def test_a_recording_mended_since_goes_in(tmp_path: Path) -> None:
    cut(tmp_path / "in", "good", Cut("doom", 0, 2))
    bad = cut(tmp_path / "in", "torn", Cut("doom", 3, 2))
    whole = bad.read_bytes()
    bad.write_bytes(whole[:2000])
    ingest_here(tmp_path / "in", tmp_path / "corpus")

    bad.write_bytes(whole)
    report = ingest_here(tmp_path / "in", tmp_path / "corpus")

    assert (report.ingested, report.already_there, report.quarantined) == (1, 1, 0)


def test_other_settings_than_those_of_the_corpus_are_refused_with_the_difference(
    six_recordings: Path, tmp_path: Path
) -> None:
    ingest_here(six_recordings, tmp_path / "corpus", limit=1)
    before = digest(tmp_path / "corpus")

    with pytest.raises(MismatchError, match=r"rate.*10.*20") as error:
        ingest_here(
            six_recordings, tmp_path / "corpus", IngestSettings(tokenizer=None, rate=Fraction(20))
        )

    assert error.value.exit_code == 4
    assert "\n" not in str(error.value)
    assert digest(tmp_path / "corpus") == before


def test_appending_never_moves_an_old_episode_to_another_split(
    six_recordings: Path, tmp_path: Path
) -> None:
    halves = IngestSettings(tokenizer=None, split=(50, 25, 25))
    ingest_here(six_recordings, tmp_path / "corpus", halves, limit=3)
    before = splits(tmp_path / "corpus")

    ingest_here(six_recordings, tmp_path / "corpus", halves)

    after = splits(tmp_path / "corpus")
    assert len(after) == 6
    assert after.items() >= before.items()


def test_a_player_is_never_on_both_sides_of_a_split(tmp_path: Path) -> None:
    for number in range(6):
        piece = Cut("coinrun", number, 2)
        cut(tmp_path / "in", f"play{number}", piece, player=f"player {number % 2}")

    ingest_here(
        tmp_path / "in", tmp_path / "corpus", IngestSettings(tokenizer=None, split=(1, 1, 1))
    )

    episodes = Corpus.open(tmp_path / "corpus").episodes
    for _, of_player in episodes.group_by("player"):
        assert of_player["split"].n_unique() == 1


def test_actions_are_brought_to_the_space_asked_for(six_recordings: Path, tmp_path: Path) -> None:
    settings = IngestSettings(tokenizer=None, actions="wham16")

    report = ingest_here(six_recordings, tmp_path / "corpus", settings)

    corpus = Corpus.open(tmp_path / "corpus")
    assert report.ingested == 6
    assert corpus.info.action_space.name == "wham16"
    as_recorded = ingest([six_recordings], out=tmp_path / "raw", tokenizer=None, workers=0)
    raw = Corpus.open(as_recorded.corpus)
    episode = raw.episodes["episode"][0]
    assert raw.info.action_space.name == "xinput"
    left_x = [
        space.names.index("left_x") for space in (corpus.info.action_space, raw.info.action_space)
    ]
    ours, theirs = corpus.read_episode(episode).actions, raw.read_episode(episode).actions
    np.testing.assert_array_equal(ours[:, left_x[0]], theirs[:, left_x[1]])


def test_a_recording_in_another_space_is_refused_with_the_way_out(tmp_path: Path) -> None:
    cut(tmp_path / "in", "pad", Cut("doom", 0, 2))
    ingest_here(tmp_path / "in", tmp_path / "corpus")
    cut(tmp_path / "in", "other", Cut("doom", 3, 2), actions="wham16")
    log = tmp_path / "in" / "other.csv"
    write_log(log, seconds=2)

    report = ingest_here(tmp_path / "in", tmp_path / "corpus")

    assert report.reasons == {Reason.SPACE_MISMATCH: 1}
    (row,) = Corpus.open(tmp_path / "corpus").quarantine.rows(named=True)
    assert "--actions xinput" in row["message"]


def test_the_kept_frame_is_the_one_on_screen_at_the_start_of_its_step(tmp_path: Path) -> None:
    video = cut(tmp_path / "in", "play", Cut("doom", 1, 2))
    settings = IngestSettings(tokenizer=None, frames="png", size=(120, 72))

    ingest_here(tmp_path / "in", tmp_path / "corpus", settings)

    index = index_video(video)
    all_frames = np.concatenate(
        list(decode_frames(index, np.arange(len(index.times_ns)), (120, 72)))
    )
    kept = first_episode(tmp_path / "corpus")
    assert kept.frames is not None
    for time_ns, picture in zip(kept.time_ns, kept.frames, strict=True):
        shown = max(i for i, shown_ns in enumerate(index.times_ns) if shown_ns <= time_ns)
        np.testing.assert_array_equal(decode_image(picture), all_frames[shown])


@pytest.mark.parametrize("rate", [Fraction(10), Fraction(30000, 1001), Fraction(7)])
def test_steps_lie_on_the_grid_of_any_rate(rate: Fraction, tmp_path: Path) -> None:
    cut(tmp_path / "in", "play", Cut("doom", 1, 2))

    report = ingest_here(
        tmp_path / "in", tmp_path / "corpus", IngestSettings(tokenizer=None, rate=rate)
    )

    kept = first_episode(tmp_path / "corpus")
    exact = [round(step / rate * 10**9) for step in range(len(kept.time_ns))]
    assert np.abs(kept.time_ns - kept.time_ns[0] - exact).max() <= 1
    assert report.steps == pytest.approx(2 * rate, abs=2)
    assert Corpus.open(tmp_path / "corpus").verify().ok


def test_at_native_rate_every_frame_the_log_covers_is_a_step(tmp_path: Path) -> None:
    video = cut(tmp_path / "in", "play", Cut("miniworld", 1, 2))

    report = ingest_here(
        tmp_path / "in", tmp_path / "corpus", IngestSettings(tokenizer=None, rate=None)
    )

    times_ns = index_video(video).times_ns
    kept = first_episode(tmp_path / "corpus").time_ns
    np.testing.assert_array_equal(kept, times_ns[: len(kept)])
    assert len(times_ns) - len(kept) == sum(report.frames_dropped.values()) <= 2
    assert Corpus.open(tmp_path / "corpus").verify().ok


def test_a_video_with_fewer_frames_than_steps_is_refused(tmp_path: Path) -> None:
    cut(tmp_path / "in", "slow", Cut("coinrun", 0, 2))
    cut(tmp_path / "in", "fast", Cut("miniworld", 0, 2))

    report = ingest_here(
        tmp_path / "in", tmp_path / "corpus", IngestSettings(tokenizer=None, rate=Fraction(20))
    )

    assert (report.ingested, report.reasons) == (1, {Reason.RATE_TOO_LOW: 1})


def test_steps_that_show_a_lost_frame_are_cut_out() -> None:
    plan = EpisodePlan(np.arange(7) * TENTH_NS, np.array([0, 3, 6, 6, 9, 12]))

    parts = without_frames([plan], np.array([6]))

    assert [part.picks.tolist() for part in parts] == [[0, 3], [9, 12]]
    assert [(part.edges_ns // TENTH_NS).tolist() for part in parts] == [[0, 1, 2], [4, 5, 6]]
    with pytest.raises(RefusedInput, match="none of the 5 frames"):
        without_frames([plan], np.unique(plan.picks))


def test_a_frame_that_does_not_decode_costs_its_steps_alone(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    video = write_clip(
        folder / "play.mkv",
        range(0, 3000, 50),
        codec="mjpeg",
        pixel_format="yuvj420p",
        frames=(stamped(number) for number in range(60)),
        rate=Fraction(20),
    )
    damage_packet(video, 20)
    write_log(folder / "play.csv", seconds=3)
    lenient = IngestSettings(tokenizer=None, limits=VideoLimits(min_decoded=0.5))

    report = ingest_here(folder, tmp_path / "corpus", lenient)

    assert report.frames_dropped["lost"] == 1
    assert_adds_up(report)
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.episodes.sort("start_ns")["n_steps"].to_list() == [10, 19]
    assert set(corpus.episodes["clock"].struct.field("frames_found")) == {59}
    assert corpus.verify().ok


class Meddling(LocalRunner):
    """Runs a stage after something has happened to the files of the first recording."""

    def __init__(self, meddle: Callable[[Path], object]) -> None:
        self._meddle = meddle

    def run(
        self, stage: Stage[In, Out], items: Iterable[In], advance: Advance
    ) -> Iterator[Outcome[In, Out]]:
        first, *others = items
        self._meddle(first.recording.path)  # type: ignore[attr-defined]
        yield from super().run(stage, (first, *others), advance)


def append_to(video: Path) -> None:
    """As a recorder does that is still at it: what is there stays, and more comes."""
    video.write_bytes(video.read_bytes() + b"\0\0\0\x08free")


@pytest.mark.parametrize(
    ("meddle", "reason"),
    [(append_to, Reason.CHANGED_WHILE_READ), (Path.unlink, Reason.UNREADABLE)],
)
def test_a_recording_that_changes_or_goes_after_it_was_found_is_refused(
    six_recordings: Path, tmp_path: Path, meddle: Callable[[Path], object], reason: Reason
) -> None:
    shutil.copytree(six_recordings, tmp_path / "in")

    report = run_ingest([tmp_path / "in"], tmp_path / "corpus", PLAIN, Meddling(meddle))

    assert (report.ingested, report.reasons) == (5, {reason: 1})


def test_a_recording_that_was_still_written_is_taken_by_the_next_run(
    six_recordings: Path, tmp_path: Path
) -> None:
    shutil.copytree(six_recordings, tmp_path / "in")
    run_ingest([tmp_path / "in"], tmp_path / "corpus", PLAIN, Meddling(append_to))

    report = ingest_here(tmp_path / "in", tmp_path / "corpus")

    assert (report.ingested, report.already_there, report.quarantined) == (1, 5, 0)
    assert Corpus.open(tmp_path / "corpus").quarantine.is_empty()


def test_nothing_to_ingest_is_said(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "readme.txt").write_text("hello")

    with pytest.raises(NoInputsError, match="no recording found"):
        ingest_here(tmp_path / "in", tmp_path / "corpus")

    assert not (tmp_path / "corpus").exists()


def test_nothing_came_of_anything_is_not_success(tmp_path: Path) -> None:
    bad = cut(tmp_path / "in", "torn", Cut("doom", 3, 2))
    bad.write_bytes(bad.read_bytes()[:2000])

    report = ingest_here(
        tmp_path / "in", tmp_path / "corpus", IngestSettings(tokenizer=None, actions="xinput")
    )

    assert (report.quarantined, report.exit_code) == (1, 6)


def test_a_dry_run_tells_what_the_run_then_does_and_writes_nothing(
    six_recordings: Path, tmp_path: Path
) -> None:
    told = dry_run([six_recordings], tmp_path / "corpus", PLAIN)
    assert not (tmp_path / "corpus").exists()

    report = ingest_here(six_recordings, tmp_path / "corpus")

    assert (told.found, told.recordings, told.steps) == (
        report.found,
        report.ingested,
        report.steps,
    )
    assert told.readers == {"video-log": 6}
    shards = sum(path.stat().st_size for path in (tmp_path / "corpus" / "shards").iterdir())
    assert told.estimated_bytes == pytest.approx(shards, rel=0.7)
    afterwards = dry_run([six_recordings], tmp_path / "corpus", PLAIN)
    assert (afterwards.recordings, afterwards.already_there) == (0, 6)


def test_a_limit_takes_the_first_by_path(six_recordings: Path, tmp_path: Path) -> None:
    report = ingest_here(six_recordings, tmp_path / "corpus", limit=2)

    assert (report.found, report.ingested) == (2, 2)
    sources = Corpus.open(tmp_path / "corpus").episodes["source"]
    assert {Path(source).name for source in sources} == {"play0.mp4", "play1.mp4"}


def test_recordings_are_tokenised_with_the_bundled_tokenizer(
    six_recordings: Path, tmp_path: Path
) -> None:
    settings = IngestSettings(tokenizer="wham-tiny", frames="png")

    report = ingest_here(six_recordings, tmp_path / "corpus", settings, limit=2)

    tokenizer = load_tokenizer("wham-tiny", "cpu")
    corpus = Corpus.open(tmp_path / "corpus")
    assert report.ingested == 2
    assert corpus.info.tokenizer is not None
    assert corpus.info.tokenizer.fingerprint == tokenizer.fingerprint
    kept = first_episode(tmp_path / "corpus")
    assert kept.tokens is not None
    assert kept.frames is not None
    frames = np.stack([decode_image(picture) for picture in kept.frames])
    np.testing.assert_array_equal(kept.tokens, tokenizer.encode(frames))
    assert corpus.verify().ok


def assert_adds_up(report: IngestReport) -> None:
    assert report.found == (
        report.ingested
        + report.duplicates
        + report.quarantined
        + report.already_there
        + report.not_reached
    )
    assert report.frames_in == report.frames_used + sum(report.frames_dropped.values())
    assert report.quarantined == sum(report.reasons.values())


def splits(location: Path) -> dict[str, str]:
    return dict(Corpus.open(location).episodes.select("recording", "split").iter_rows())


def first_episode(location: Path) -> EpisodeSteps:
    corpus = Corpus.open(location)
    return corpus.read_episode(corpus.episodes.sort("episode")["episode"][0])


def write_log(path: Path, seconds: float) -> None:
    """A log at 50 Hz in which nothing is pressed."""
    names = ",".join(load_space("wham16").names)
    rows = [f"{row * 20}{',0' * 16}" for row in range(round(seconds * 50) + 1)]
    path.write_text("\n".join([f"time_ms,{names}", *rows]) + "\n")


def damage_packet(video: Path, number: int) -> None:
    """Overwrite the inside of one packet with zeros."""
    with av.open(str(video)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = video.read_bytes()
    packet = packets[number]
    assert content.count(packet) == 1
    video.write_bytes(content.replace(packet, bytes(len(packet))))
