"""`wham-data ingest` as a person meets it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from makers.commands import Run
from makers.recordings import Cut, cut

from wham_data.corpus import Corpus
from wham_data.pipelines.video import decode_image

QUICK = ("--tokenizer", "none", "--workers", "0")


def test_help_shows_what_to_type(cli: Run) -> None:
    said = cli("ingest", "--help").stdout

    assert "wham-data ingest recordings/ --out corpus\n" in said
    assert "--tokenizer" in said
    assert "Exit codes" in said


def test_the_account_is_printed_and_the_next_run_has_nothing_to_do(
    cli: Run, six_recordings: Path, tmp_path: Path
) -> None:
    first = cli("ingest", six_recordings, "--out", tmp_path / "corpus", *QUICK)
    second = cli("ingest", six_recordings, "--out", tmp_path / "corpus", *QUICK)

    assert first.returncode == second.returncode == 0, first.stderr
    assert "found 6 = ingested 6 +" in first.stdout
    assert "frames in" in first.stdout
    assert "found 6 = ingested 0 + already there 6" in second.stdout


def test_json_is_one_object_on_stdout(cli: Run, six_recordings: Path, tmp_path: Path) -> None:
    run = cli("ingest", six_recordings, "--out", tmp_path / "corpus", *QUICK, "--json")

    assert run.stdout.count("\n") == 1
    assert json.loads(run.stdout)["ingested"] == 6


def test_a_bad_recording_is_told_in_one_line_and_strict_makes_it_a_failure(
    cli: Run, tmp_path: Path
) -> None:
    cut(tmp_path / "in", "good", Cut("coinrun", 0, 2))
    (tmp_path / "in" / "page.mp4").write_text("<!doctype html><h1>404</h1>")
    (tmp_path / "in" / "page.csv").write_text("time_s,a\n0,0\n")

    lenient = cli("ingest", tmp_path / "in", "--out", tmp_path / "a", *QUICK)
    strict = cli("ingest", tmp_path / "in", "--out", tmp_path / "b", *QUICK, "--strict")

    assert (lenient.returncode, strict.returncode) == (3, 1)
    (line,) = (each for each in lenient.stderr.splitlines() if "page.mp4" in each)
    assert line.startswith(f"{tmp_path}/in/page.mp4: not a video")
    assert "quarantine list" in lenient.stdout


def test_a_duplicate_is_named_with_its_original(cli: Run, tmp_path: Path) -> None:
    video = cut(tmp_path / "in", "one", Cut("coinrun", 0, 2))
    for ending in (".mp4", ".csv", ".toml"):
        shutil.copy(video.with_suffix(ending), tmp_path / "in" / f"two{ending}")

    run = cli("ingest", tmp_path / "in", "--out", tmp_path / "corpus", *QUICK)

    assert run.returncode == 0
    assert run.stderr == f"{tmp_path}/in/two.mp4: duplicate of {video}\n"


def test_other_settings_stop_with_the_difference(
    cli: Run, six_recordings: Path, tmp_path: Path
) -> None:
    command = ("ingest", six_recordings, "--out", tmp_path / "corpus", *QUICK)
    cli(*command)

    run = cli(*command, "--size", "150x90")

    assert (run.returncode, run.stdout) == (4, "")
    (line,) = run.stderr.splitlines()
    assert "was made with other settings" in line
    assert "300" in line
    assert "150" in line


def test_settings_come_from_flags_then_variables_then_the_config_file(
    cli: Run, six_recordings: Path, tmp_path: Path
) -> None:
    config = tmp_path / "wham.toml"
    config.write_text('[ingest]\ntokenizer = "none"\nworkers = 0\nlimit = 3\nframes = "png"\n')

    def ingested(name: str, *flags: str, **variables: str) -> Corpus:
        arguments = ("--config", config, "ingest", six_recordings, "--out", tmp_path / name, *flags)
        run = cli(*arguments, **variables)
        assert run.returncode == 0, run.stderr
        return Corpus.open(tmp_path / name)

    by_file = ingested("file")
    by_variable = ingested("variable", WHAM_DATA_INGEST_LIMIT="2", WHAM_DATA_INGEST_FRAMES="none")
    by_flag = ingested("flag", "--limit", "1", WHAM_DATA_INGEST_LIMIT="2")

    assert (by_file.n_episodes, by_file.info.frames) == (3, "png")
    assert (by_variable.n_episodes, by_variable.info.frames) == (2, "none")
    assert (by_flag.n_episodes, by_flag.info.frames) == (1, "png")


@pytest.mark.parametrize(
    ("flags", "mentions"),
    [
        (("--rate", "fast"), "--rate 'fast'"),
        (("--size", "big"), "--size 'big'"),
        (("--frames", "gif"), "--frames 'gif'"),
        (("--split", "90,10"), "--split '90,10'"),
        (("--split", "0,0,0"), "split"),
        (("--max-gap", "-1"), "gap"),
        (("--tie-to", "training"), "--tie-to 'training'"),
        (("--format", "avi"), "'avi'"),
        (("--actions", "piano"), "piano"),
        (("--ray-address", "auto"), "--ray-address"),
        (("--workers", "-1"), "--workers"),
        (("--limit", "0"), "--limit"),
        (("--colour", "red"), "--colour"),
    ],
)
def test_a_wrong_flag_is_told_in_a_line_that_names_it(
    cli: Run, six_recordings: Path, tmp_path: Path, flags: tuple[str, ...], mentions: str
) -> None:
    run = cli("ingest", six_recordings, "--out", tmp_path / "corpus", *QUICK, *flags)

    assert (run.returncode, run.stdout) == (2, "")
    assert mentions in run.stderr.splitlines()[-1]
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "corpus").exists()


def test_a_missing_source_and_an_empty_folder_are_told_apart(cli: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()

    missing = cli("ingest", tmp_path / "nowhere", "--out", tmp_path / "corpus", *QUICK)
    empty = cli("ingest", tmp_path / "empty", "--out", tmp_path / "corpus", *QUICK)

    assert (missing.returncode, empty.returncode) == (2, 6)
    assert "no such file or folder" in missing.stderr
    assert "no recording found" in empty.stderr


def test_a_dry_run_says_what_would_be_done(cli: Run, six_recordings: Path, tmp_path: Path) -> None:
    run = cli("ingest", six_recordings, "--out", tmp_path / "corpus", *QUICK, "--dry-run")

    assert run.returncode == 0
    assert "6 recordings to ingest" in run.stdout
    assert "video-log: 6" in run.stdout
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    "program",
    [
        "import wham_data",
        "import wham_data.cli.main",
        "from wham_data.cli.main import main; main()",
    ],
)
def test_nothing_heavy_is_loaded_before_there_is_work(
    command_environment: dict[str, str], program: str
) -> None:
    heavy = {"av", "ray", "torch", "deltalake", "polars", "h5py"}
    look = f"import sys, atexit\natexit.register(lambda: print({heavy!r} & set(sys.modules)))\n"
    run = subprocess.run(
        [sys.executable, "-c", look + program, "--help"],
        env=command_environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert run.stdout.splitlines()[-1] == "set()"


def test_an_option_of_a_format_is_taken_or_told_to_be_unknown(
    cli: Run, six_recordings: Path, tmp_path: Path
) -> None:
    start = ("ingest", six_recordings, "--out", tmp_path / "corpus", *QUICK, "--dry-run")

    taken = cli(*start, "--option", "frame_rate=20")
    unknown = cli(*start, "--option", "frame_rat=20")
    wrong = cli(*start, "--option", "cursor=big")
    twice = cli(*start, "--option", "cursor=none", "--option", "cursor=drawn")
    bare = cli(*start, "--option", "cursor")

    assert taken.returncode == 0, taken.stderr
    told = [run.stderr.strip() for run in (unknown, wrong, twice, bare)]
    assert [run.returncode for run in (unknown, wrong, twice, bare)] == [2, 2, 2, 2]
    assert "no format read here has it; did you mean frame_rate?" in told[0]
    assert "--option cursor=big: expected drawn or none" in told[1]
    assert "given twice" in told[2]
    assert "expected NAME=VALUE" in told[3]


def test_frames_come_in_the_size_and_fit_asked_for(
    cli: Run, six_recordings: Path, tmp_path: Path
) -> None:
    run = cli(
        *("ingest", six_recordings, "--out", tmp_path / "corpus", *QUICK),
        *("--size", "64x64", "--fit", "letterbox", "--frames", "png", "--limit", "1"),
    )

    assert run.returncode == 0, run.stderr
    corpus = Corpus.open(tmp_path / "corpus")
    picture = decode_image(corpus.scan().collect()["frame"][0])
    assert picture.shape == (64, 64, 3)
    assert picture[:8].max() == 0, "160x96 leaves black above and below"
    assert picture[16:48].max() > 0
