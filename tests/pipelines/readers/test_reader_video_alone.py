"""Videos without a log."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers.readings import frames_of, recordings_in, the_recording
from makers.recordings import Cut, cut, ingest_here
from makers.video_clips import read_stamp, write_clip

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.dry_run import dry_run
from wham_data.pipelines.ingest.retry import retry
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers import discover
from wham_data.pipelines.run.runner import LocalRunner
from wham_data.schemas.errors import Reason

TAKE = {"without_log": "take"}


@pytest.mark.parametrize("name", ["2026-03-01 20-11-07.mp4", "a.mkv", "CAM.MP4"])
def test_a_video_alone_is_refused_with_the_way_to_take_it(tmp_path: Path, name: str) -> None:
    write_clip(tmp_path / name, range(0, 500, 50))

    ((_, why),) = discover([tmp_path]).refused
    opened = the_recording(tmp_path, **TAKE)

    assert why.reason is Reason.LOG_MISSING
    assert "--actions none" in why.message
    assert opened.actions is None
    assert [read_stamp(f) for f in frames_of(opened, (192, 112))] == list(range(10))


def test_its_metadata_counts(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 500, 50))
    (tmp_path / "a.toml").write_text('game = "Doom"\nmask = "0.0,0.0,1.0,1.0"\n')

    (recording,) = discover([tmp_path], options=TAKE).recordings

    assert recording.provenance.game == "Doom"
    assert not frames_of(the_recording(tmp_path, **TAKE)).any()


def test_a_video_with_a_log_keeps_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_clip(tmp_path / f"{name}.mp4", range(0, 500, 50))
    (tmp_path / "a.csv").write_text("time_s,button_0\n0,0\n")

    formats = {r.path.name: r.format for r in discover([tmp_path], options=TAKE).recordings}

    assert formats == {"a.mp4": "video-log", "b.mp4": "video-alone"}
    assert sorted(recordings_in(tmp_path / "b.mp4", **TAKE)) == [str(tmp_path / "b.mp4")]


def test_steps_without_a_known_action_are_counted(tmp_path: Path) -> None:
    write_clip(tmp_path / "in.mp4", range(0, 1050, 50))
    settings = IngestSettings(tokenizer=None, actions="xinput16", options=tuple(TAKE.items()))

    report = ingest_here(tmp_path / "in.mp4", tmp_path / "out", settings)

    assert report.steps == report.missing_actions == 10
    assert Corpus.open(tmp_path / "out").episodes["missing_actions"].to_list() == [10]


@pytest.mark.parametrize("names", [["a.mp4"], ["b.mkv", "C.MP4"], ["2026-03-01 20-11-07.mp4"]])
def test_without_actions_videos_need_no_log_and_nothing_is_refused(
    names: list[str], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for number, name in enumerate(names):
        write_clip(tmp_path / "in" / name, range(0, 1050 + 50 * number, 50))
    bare = IngestSettings(tokenizer=None, actions="none")

    told = dry_run([tmp_path / "in"], tmp_path / "out", bare)
    report = ingest_here(tmp_path / "in", tmp_path / "out", bare)
    again = ingest_here(tmp_path / "in", tmp_path / "out", bare)
    corpus = Corpus.open(tmp_path / "out")

    assert (report.exit_code, report.ingested, report.quarantined) == (0, len(names), 0)
    assert told.steps == report.steps == report.missing_actions > 0
    assert corpus.info.action_space.name == "none"
    assert corpus.quarantine.is_empty()
    assert corpus.verify().ok
    assert again.already_there == len(names)


def test_without_actions_a_log_is_not_used_and_the_whole_video_counts(tmp_path: Path) -> None:
    cut(tmp_path / "in", "a", Cut("coinrun", 0, 1))

    ingest_here(tmp_path / "in", tmp_path / "out", IngestSettings(tokenizer=None, actions="none"))

    (row,) = Corpus.open(tmp_path / "out").episodes.rows(named=True)
    assert (row["format"], row["n_steps"], row["missing_actions"]) == ("video-log", 10, 10)
    assert any("its log is not used" in note for note in row["notes"])


def test_what_was_refused_is_tried_again_without_actions(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_clip(tmp_path / "in" / "a.mp4", range(0, 1050, 50))
    write_clip(tmp_path / "in" / "b.mp4", range(0, 1100, 50))
    torn, whole = tmp_path / "in" / "b.mp4", (tmp_path / "in" / "b.mp4").read_bytes()
    torn.write_bytes(whole[:300])
    ingest_here(tmp_path / "in", tmp_path / "out", IngestSettings(tokenizer=None, actions="none"))
    torn.write_bytes(whole)

    report = retry(tmp_path / "out", LocalRunner())

    assert (report.ingested, report.quarantined) == (1, 0)
