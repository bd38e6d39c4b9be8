"""Recordings of a running game: clocks, cuts, resuming, a crash that costs one recording only."""

from __future__ import annotations

import csv
import tomllib
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from makers.square_engine import MISSING, SIZE, SQUARE
from makers.video_clips import read_stamp
from typer.testing import CliRunner

from wham_data.cli.collect import parse_hold, parse_shares
from wham_data.cli.main import app
from wham_data.corpus import Corpus
from wham_data.pipelines.collect.engine import Start
from wham_data.pipelines.collect.recorder import Session, record
from wham_data.pipelines.collect.report import CollectReport
from wham_data.pipelines.collect.run import CollectSettings, run_collect
from wham_data.pipelines.ingest.job import ingest
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.run.progress import Silent
from wham_data.schemas.errors import MismatchError, MissingPartError, UsageError
from wham_data.schemas.recording import OpenRecording

SESSION = Session(
    kind=SQUARE,
    start=Start("plain", 0),
    policy="held",
    seconds=Fraction(4),
    fps=None,
    hold_s=(Fraction(1, 5), Fraction(3, 2)),
    beat_s=None,
    shares={},
)
TWO = CollectSettings("plain", seconds=Fraction(3), episode_s=Fraction(2))


def opened(folder: Path) -> OpenRecording:
    """The only recording in a folder."""
    (found,) = discover([folder]).recordings
    return open_recording(found)


def stamps(recording: OpenRecording) -> list[int]:
    """The tic that each frame shows."""
    picks = np.arange(len(recording.frame_times_ns))
    batches = recording.frames(picks, SIZE, fit="stretch", batch=16, threads=1)
    return [read_stamp(frame) for batch in batches for frame in batch]


def collected(settings: CollectSettings, out: Path, parallel: int = 2) -> CollectReport:
    return run_collect(SQUARE, settings, out, parallel=parallel, watch=Silent())


# --- one recording ---------------------------------------------------------------------------


def test_frame_and_row_of_a_tic_have_one_time_and_the_log_covers_the_last_tic(
    tmp_path: Path,
) -> None:
    made = record(SESSION, tmp_path, lambda _: None)
    assert (made.frames, made.seconds, made.games) == (140, 4, 1)
    recording = opened(tmp_path)
    assert stamps(recording) == list(range(140))
    assert recording.actions is not None
    assert recording.actions.times_ns[:-1].tolist() == recording.frame_times_ns.tolist()
    assert recording.actions.end_ns == 4_000_000_000
    assert recording.frame_end_ns == pytest.approx(4_000_000_000, abs=1)
    assert recording.notes == ()


def test_the_square_moves_as_the_log_says(tmp_path: Path) -> None:
    record(SESSION, tmp_path, lambda _: None)
    with (tmp_path / "square_plain_held_00000.csv").open() as file:
        rows = list(csv.DictReader(file))
    x = np.cumsum([float(row["right"]) - float(row["left"]) for row in rows[:-1]])
    recording = opened(tmp_path)
    picks = np.arange(1, 140)
    frames = np.concatenate(list(recording.frames(picks, SIZE, fit="stretch", batch=16, threads=1)))
    green = (frames[:, -14:-10, :, 1] > 200) & (frames[:, -14:-10, :, 0] < 90)
    seen = green.any(axis=1).argmax(axis=1)
    wanted = np.round(x[:-1]) % (SIZE[0] - 8)
    assert np.abs(seen - wanted).max() <= 2


def test_a_game_that_ends_is_cut_off_from_the_next(tmp_path: Path) -> None:
    made = record(replace(SESSION, start=Start("ends", 0)), tmp_path, lambda _: None)
    assert made.games == 4
    report = ingest([tmp_path], out=tmp_path / "c", tokenizer=None, workers=0)
    assert report.episodes == 4
    corpus = Corpus.open(tmp_path / "c")
    assert corpus.episodes["n_steps"].sort().to_list() == [5, 11, 11, 11]


def test_a_frame_rate_that_divides_the_engines_gives_fewer_frames_and_all_rows(
    tmp_path: Path,
) -> None:
    record(replace(SESSION, fps=Fraction(7)), tmp_path, lambda _: None)
    recording = opened(tmp_path)
    assert stamps(recording) == list(range(0, 140, 5))
    assert recording.actions is not None
    assert len(recording.actions.times_ns) == 141
    with pytest.raises(UsageError, match=r"can give 35, 17\.5"):
        record(replace(SESSION, fps=Fraction(30)), tmp_path, lambda _: None)


def test_metadata_says_who_played_what_how_and_in_which_space(tmp_path: Path) -> None:
    record(replace(SESSION, shares={"fire": 0.25}), tmp_path, lambda _: None)
    table = tomllib.loads((tmp_path / "square_plain_held_00000.toml").read_text())
    assert table["game"] == "square"
    assert table["license"] == "CC0-1.0"
    assert table["actions"] == "square.space.toml"
    assert table["collect"]["policy"] == "held"
    assert table["collect"]["shares"] == "fire=0.25"
    space = opened(tmp_path).actions
    assert space is not None
    assert space.space == SQUARE.start(Start("plain", 0)).space


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        record(SESSION, tmp_path / name, lambda _: None)
        files.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir() if p.is_file()})
    assert files[0] == files[1]
    assert set(files[0]) == {
        "square.space.toml",
        *(f"square_plain_held_00000{ending}" for ending in (".mp4", ".csv", ".toml")),
    }


# --- many ------------------------------------------------------------------------------------


def test_recordings_run_side_by_side_and_a_second_run_makes_only_what_is_missing(
    tmp_path: Path,
) -> None:
    report = collected(TWO, tmp_path)
    assert (report.found, report.made, report.failed) == (2, 2, ())
    assert report.minutes == pytest.approx(3 / 60)
    assert report.frames == 105
    assert {each.name: each.asked for each in report.actions}["wave"] == 0
    names = sorted(path.name for path in tmp_path.iterdir())
    assert not [name for name in names if name.startswith(".")]
    (tmp_path / "square_plain_held_00001.toml").unlink()
    again = collected(TWO, tmp_path)
    assert (again.made, again.already_there, again.exit_code) == (1, 1, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_other_settings_in_the_same_folder_are_refused_with_the_difference(tmp_path: Path) -> None:
    collected(replace(TWO, seconds=Fraction(1), episode_s=Fraction(1)), tmp_path)
    with pytest.raises(MismatchError, match=r"shares , now fire=0\.5"):
        collected(replace(TWO, episode_s=Fraction(1), shares={"fire": 0.5}), tmp_path)


@pytest.mark.parametrize(
    ("scenario", "message"),
    [("crashes", "crashed (exit code 7): out of marbles"), ("raises", "ValueError: no more tics")],
)
def test_what_goes_wrong_in_a_game_costs_its_recording_alone(
    tmp_path: Path, scenario: str, message: str
) -> None:
    report = collected(replace(TWO, scenario=scenario), tmp_path)
    (failed,) = report.failed
    assert failed.recording == f"square_{scenario}_held_00001"
    assert message in failed.message
    assert (report.made, report.exit_code) == (1, 3)
    assert len(discover([tmp_path]).recordings) == 1


def test_a_scenario_that_the_engine_does_not_have_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no scenario 'heaven'"):
        collected(replace(TWO, scenario="heaven"), tmp_path)


def test_an_engine_that_is_not_installed_says_what_brings_it(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match=r"pip install '\.\[gone\]' in the folder"):
        run_collect(MISSING, TWO, tmp_path / "r", parallel=1, watch=Silent())
    assert not (tmp_path / "r").exists()


# --- the command -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("game", "options", "said"),
    [
        ("quake:e1m1", [], "no engine called 'quake'"),
        ("vizdoom", [], "expected ENGINE:SCENARIO, such as vizdoom:MAP01"),
        ("vizdoom:MAP01", ["--policy", "clever"], "--policy 'clever'"),
        ("vizdoom:MAP01", ["--hold", "2-1"], "--hold 2-1"),
        ("vizdoom:MAP01", ["--share", "ATTACK"], "--share 'ATTACK'"),
        ("vizdoom:MAP01", ["--size", "large"], "--size 'large'"),
    ],
)
def test_wrong_usage_is_said_before_anything_starts(
    tmp_path: Path, game: str, options: list[str], said: str
) -> None:
    run = CliRunner().invoke(
        app, ["collect", game, "--out", str(tmp_path / "r"), "--minutes", "1", *options]
    )
    assert isinstance(run.exception, UsageError)
    assert said in str(run.exception)
    assert not (tmp_path / "r").exists()


def test_holds_and_shares_are_read_as_written() -> None:
    assert parse_hold("0.2-0.8") == (Fraction(1, 5), Fraction(4, 5))
    assert parse_hold("1") == (1, 1)
    assert parse_shares("ATTACK=0.1, USE=0") == {"ATTACK": 0.1, "USE": 0.0}
