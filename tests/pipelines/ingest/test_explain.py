"""`ingest --explain`: one recording as it is understood, taken or refused, and metadata to correct."""

from __future__ import annotations

import gzip
import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.commands import Run
from makers.recordings import Cut, cut

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.shown.explain_log import LogExplained, metadata_text
from wham_data.schemas.actions import load_space

PAD = {
    "xbox": "up,down,left,right,Start,Back,L3,R3,LB,RB,Guide,A,B,X,Y,LT,RT,LX,LY,RX,RY",
    "linux": "dpad_up,dpad_down,dpad_left,dpad_right,BTN_START,BTN_SELECT,BTN_THUMBL,BTN_THUMBR,BTN_TL,"
    "BTN_TR,BTN_MODE,BTN_SOUTH,BTN_EAST,BTN_WEST,BTN_NORTH,ABS_Z,ABS_RZ,ABS_X,ABS_Y,ABS_RX,ABS_RY",
    "playstation": "DPadUp,DPadDown,DPadLeft,DPadRight,options,share,L3,R3,L1,R1,ps,cross,circle,square,"
    "triangle,L2,R2,leftStickX,leftStickY,rightStickX,rightStickY",
}


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """A recording of a pad without metadata."""
    made = cut(tmp_path / "in", "play", Cut("coinrun", 0, 2))
    made.with_suffix(".toml").unlink()
    return made


def renamed(video: Path, time: str, names: str, separator: str = ",") -> None:
    """Give the columns of a log other names."""
    log = video.with_suffix(".csv")
    _, *rows = log.read_text().splitlines()
    lines = [f"{time},{names}", *rows]
    log.write_text("".join(line.replace(",", separator) + "\n" for line in lines))


def test_a_recording_that_is_taken_is_shown_from_container_to_rows(cli: Run, video: Path) -> None:
    run = cli("ingest", "--explain", video)

    assert run.returncode == 0
    for line in (
        "  read as video-log",
        "  container mov,mp4",
        "  line 1: time_ns,up,down",
        '  CSV in UTF-8; cells separated by commas; decimal mark "."; columns named in line 1',
        "  clock: column time_ns counts nanoseconds (by its name)",
        "  by their own names: up, down, left, right, start",
        "actions in xinput, on the video's clock",
        "  0.000000 s: ",
        "\ntaken\n",
    ):
        assert line in run.stdout, line


def test_a_column_of_vectors_is_explained_as_its_numbers(cli: Run, video: Path) -> None:
    rows = [f'{k},"[{k / 4}, -3]"' for k in range(30)]
    video.with_suffix(".csv").write_text("\n".join(["frame,action", *rows]))
    run = cli("ingest", "--explain", video, "--write-metadata")

    for line in (
        "  column action holds all numbers of an action",
        "  by their own names: action_0, action_1",
        "actions in numbers2, on the video's clock",
    ):
        assert line in run.stdout, line
    assert tomllib.loads(video.with_suffix(".toml").read_text()) == {"actions": "numbers2"}


def test_a_file_beside_the_video_stands_for_the_recording(cli: Run, video: Path) -> None:
    by_log = cli("ingest", "--explain", video.with_suffix(".csv"))

    assert by_log.stdout == cli("ingest", "--explain", video).stdout


@pytest.mark.parametrize("names", PAD.values(), ids=PAD)
def test_what_it_writes_makes_a_refused_recording_readable(
    cli: Run, video: Path, tmp_path: Path, names: str
) -> None:
    renamed(video, "timestamp", names)

    refused = cli("ingest", "--explain", video, "--write-metadata")
    again = cli("ingest", "--explain", video)
    ingested = cli(
        "ingest", video, "--out", tmp_path / "c", "--tokenizer", "none", "--workers", "0"
    )

    assert refused.returncode == 3
    assert "stops here [log_column]" in refused.stdout
    assert f"written: {video.with_suffix('.toml')}" in refused.stdout
    written = tomllib.loads(video.with_suffix(".toml").read_text())
    assert written["actions"] == "xinput"
    assert set(written["columns"].values()) <= set(load_space("xinput").names)
    assert (again.returncode, ingested.returncode) == (0, 0), again.stdout
    assert Corpus.open(tmp_path / "c").info.action_space.name == "xinput"


def test_a_clock_that_was_worked_out_is_written_down(cli: Run, video: Path) -> None:
    renamed(video, "t", PAD["xbox"].lower().replace("lx,ly,rx,ry", "left_x,left_y,right_x,right_y"))

    cli("ingest", "--explain", video, "--write-metadata")
    run = cli("ingest", "--explain", video)

    assert "column t counts nanoseconds" in run.stdout


def test_how_a_text_is_understood_is_shown(cli: Run, video: Path) -> None:
    renamed(video, "time_ns", video.with_suffix(".csv").read_text().partition("\n")[0][8:], ";")

    run = cli("ingest", "--explain", video)

    assert "cells separated by semicolons" in run.stdout


def test_a_refused_log_shows_its_first_lines_and_how_far_it_went(cli: Run, video: Path) -> None:
    log = video.with_suffix(".csv")
    packed = log.with_suffix(".csv.gz")
    packed.write_bytes(gzip.compress(log.read_bytes().replace(b"time_ns", b"mood\x1b[2J")))
    log.unlink()

    run = cli("ingest", "--explain", video, "--json")
    (shown,) = json.loads(run.stdout)["recordings"]
    (lines,) = (lines for title, lines in shown["sections"] if title == "log")

    assert (run.returncode, shown["reason"]) == (3, "log_column")
    assert lines[0].startswith("line 1: mood\\x1b[2J,up,down")
    assert lines[-1].startswith("stops here [log_column]: no time column")


def test_metadata_that_is_there_is_never_written_over(cli: Run, video: Path) -> None:
    video.with_suffix(".toml").write_text('game = "mine"\n')

    run = cli("ingest", "--explain", video, "--write-metadata")

    assert run.returncode == 2
    assert "no metadata to write; there is some already" in run.stderr
    assert run.stdout == cli("ingest", "--explain", video).stdout
    assert video.with_suffix(".toml").read_text() == 'game = "mine"\n'


def test_explaining_writes_nothing_else_and_needs_no_corpus(cli: Run, video: Path) -> None:
    before = sorted(video.parent.iterdir())

    cli("ingest", "--explain", video)

    assert sorted(video.parent.iterdir()) == before
    assert cli("ingest", video).returncode == 2
    assert "--out" in cli("ingest", video).stderr
    alone = cli("ingest", video, "--out", video.parent / "c", "--write-metadata")
    assert "--write-metadata goes with --explain" in alone.stderr


def test_a_video_without_a_log_and_no_recording_at_all_are_explained(cli: Run, video: Path) -> None:
    video.with_suffix(".csv").rename(video.with_name("inputs.csv"))

    run = cli("ingest", "--explain", video)

    assert run.returncode == 3
    assert "refused [log_missing]" in run.stdout
    assert "if inputs.csv is its log, name it play.csv" in run.stdout


def test_a_log_without_a_video_is_explained_alone(cli: Run, video: Path) -> None:
    log = video.with_suffix(".csv")
    video.unlink()

    run = cli("ingest", "--explain", log)

    assert run.returncode == 3
    assert "by their own names: up, down" in run.stdout
    assert "refused [not_a_video]: no video beside it; looked for play.mp4" in run.stdout


def test_a_refusal_says_how_its_log_was_understood(cli: Run, video: Path, tmp_path: Path) -> None:
    renamed(video, "time_ns", "a,b,x")
    log = video.with_suffix(".csv")
    log.write_text(
        "".join(f"{','.join(line.split(',')[:4])}\n" for line in log.read_text().splitlines())
    )
    cli("ingest", video, "--out", tmp_path / "c", "--tokenizer", "none", "--workers", "0")

    shown = cli("quarantine", "show", tmp_path / "c", "play.mp4").stdout

    assert "note             understood as CSV in UTF-8; cells separated by commas" in shown
    assert "columns time_ns, a, b, x" in shown


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(load_space("xinput").names), st.text(min_size=1, max_size=20)),
    st.lists(st.text(max_size=30), max_size=3),
    st.integers(-(10**12), 10**12),
)
def test_whatever_the_names_and_notes_metadata_can_be_read_back(
    pairs: dict[str, str], notes: list[str], offset_ns: int
) -> None:
    unique = {
        name: column for name, column in pairs.items() if [*pairs.values()].count(column) == 1
    }
    log = LogExplained(space=load_space("xinput"), pairs=unique, sure=True)

    table = tomllib.loads(metadata_text(log, offset_ns, notes))

    assert table.get("columns", {}) == {c: n for n, c in unique.items() if n != c}
    assert round(table.get("offset_ms", 0) * 10**6) == offset_ns


def test_what_an_ingest_refuses_is_refused_when_it_is_only_explained_or_predicted(
    cli: Run, video: Path, tmp_path: Path
) -> None:
    corpus = tmp_path / "corpus"
    bare = ("--tokenizer", "none", "--workers", "0")
    assert cli("ingest", video, "--out", corpus, *bare, "--split", "1,0,0").returncode == 0
    elsewhere = ("--out", tmp_path / "other")
    for wrong in (
        (*elsewhere, "--tokenizer", tmp_path / "nothing"),
        (*elsewhere, "--size", "64x64"),  # another than the tokenizer's
        (*elsewhere, *bare, "--ray-address", "auto"),
        (*elsewhere, "--tokenizer", "none", "--ray-address", "ray://far"),
        (*elsewhere, *bare, "--player-key", tmp_path / "no-key"),
        (*elsewhere, *bare, "--option", "cursor=big"),
        ("--out", corpus, *bare, "--rate", "5"),
    ):
        runs = [cli("ingest", video, *wrong, *only) for only in ([], ["--dry-run"], ["--explain"])]
        refused, *others = [(run.returncode, run.stderr) for run in runs]
        assert refused[0] in (2, 4), wrong
        assert others == [refused, refused], wrong
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("seconds", "rate", "told"), [(1, "20", "15.00 frames/s, fewer"), (0.5, "1", "too short for")]
)
def test_a_recording_without_the_steps_asked_for_is_refused_by_every_look_at_it(
    cli: Run, tmp_path: Path, seconds: float, rate: str, told: str
) -> None:
    made = cut(tmp_path / "in", "play", Cut("coinrun", 0, seconds))
    wanted = ("ingest", made, "--tokenizer", "none", "--workers", "0", "--rate", rate)

    explained = cli(*wanted, "--explain")
    predicted = cli(*wanted, "--dry-run", "--out", tmp_path / "corpus")
    done = cli(*wanted, "--out", tmp_path / "corpus")

    assert [run.returncode for run in (explained, predicted, done)] == [3, 6, 6]
    assert all(told in run.stdout + run.stderr for run in (explained, predicted, done))


def test_a_log_that_does_not_convert_to_the_corpus_is_refused_when_it_is_explained(
    cli: Run, video: Path, tmp_path: Path
) -> None:
    other = cut(tmp_path / "other", "doom", Cut("doom", 0, 1))
    other.with_suffix(".toml").unlink()
    other.with_suffix(".csv").write_text(
        "frame,action\n" + "".join(f'{k},"[{k}, -3]"\n' for k in range(35))
    )
    to = ("--out", tmp_path / "corpus", "--tokenizer", "none", "--workers", "0")
    assert cli("ingest", video, *to).returncode == 0

    explained = cli("ingest", other, *to, "--explain")

    assert explained.returncode == 3
    assert "refused [space_mismatch]" in explained.stdout
