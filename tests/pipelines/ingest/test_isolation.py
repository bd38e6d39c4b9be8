"""A recording that crashes, hangs or eats memory costs itself alone, wherever it is decoded."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from makers.commands import ROOT, Run
from makers.recordings import PLAIN, ingest_here

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest import decoder_process
from wham_data.pipelines.ingest.decoder_child import refusal_of
from wham_data.pipelines.ingest.decoder_process import (
    DecodeLimits,
    IsolatedRecording,
    open_isolated,
)
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.video import VideoLimits
from wham_data.schemas.errors import Reason, RefusedInput, UsageError, WhamDataError

SECOND_NS = 1_000_000_000
IMPATIENT = replace(PLAIN, decoding=DecodeLimits(memory_mb=400, silence_s=5))


@pytest.fixture(autouse=True)
def _no_decoder_of_other_tests() -> Iterator[None]:
    decoder_process.close_idle()
    yield
    decoder_process.close_idle()


def isolated(folder: Path, number: int = 0) -> IsolatedRecording:
    recording = discover([folder]).recordings[number]
    return open_isolated(recording, VideoLimits(), SECOND_NS, (), (), DecodeLimits())


def decoder_pid() -> int:
    """The decoder process that waits for work."""
    (decoder,) = decoder_process._idle
    return decoder._process.pid


def test_pictures_and_facts_are_those_of_the_reader_itself(six_recordings: Path) -> None:
    here = open_recording(discover([six_recordings]).recordings[0])
    there = isolated(six_recordings)

    picks = np.repeat(np.arange(0, len(here.frame_times_ns), 2), 2)
    for batch in (32, 7):
        mine, theirs = (
            list(each.frames(picks, (300, 180), fit="crop", batch=batch, threads=1))
            for each in (here, there)
        )
        assert [len(frames) for frames in mine] == [len(frames) for frames in theirs]
        assert np.array_equal(np.concatenate(mine), np.concatenate(theirs))
    assert np.array_equal(here.frame_times_ns, there.frame_times_ns)
    assert (here.clock, here.notes, here.frame_end_ns) == (
        there.clock,
        there.notes,
        there.frame_end_ns,
    )
    assert here.actions is not None
    assert there.actions is not None
    assert np.array_equal(here.actions.values, there.actions.values)


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("recording.open~play3.mp4:segfault", Reason.DECODER_CRASHED, "SIGSEGV"),
        ("recording.decode~play3.mp4@2:kill", Reason.DECODER_CRASHED, "SIGKILL"),
        ("recording.open~play3.mp4:bomb", Reason.OUT_OF_MEMORY, "400 MB"),
        ("recording.decode~play3.mp4@2:bomb", Reason.OUT_OF_MEMORY, "400 MB"),
        ("recording.decode~play3.mp4@2:hang", Reason.DECODER_HUNG, "5 s"),
    ],
)
def test_what_one_recording_does_to_its_decoder_costs_it_alone(
    six_recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    reason: Reason,
    words: str,
) -> None:
    monkeypatch.setenv("WHAM_DATA_FAULT", fault)

    report = ingest_here(six_recordings, tmp_path / "corpus", IMPATIENT)

    assert (report.ingested, report.reasons) == (5, {reason: 1})
    corpus = Corpus.open(tmp_path / "corpus")
    (refused,) = corpus.quarantine.rows(named=True)
    assert refused["path"].endswith("play3.mp4")
    assert words in refused["message"]
    assert corpus.verify().ok


def test_a_decoder_that_somebody_killed_once_costs_nothing(
    six_recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = tmp_path / "once"
    monkeypatch.setenv("WHAM_DATA_FAULT", f"recording.decode~play3.mp4:kill:{once}")

    report = ingest_here(six_recordings, tmp_path / "corpus")

    assert once.exists()
    assert report.ingested == 6


def test_on_ray_it_is_the_same(cli_apart: Run, six_recordings: Path, tmp_path: Path) -> None:
    run = cli_apart(
        *("ingest", six_recordings, "--out", tmp_path / "corpus", "--tokenizer", "none"),
        *("--workers", "2", "--json"),
        WHAM_DATA_FAULT="recording.open~play3.mp4:segfault",
    )

    assert run.returncode == 3, run.stderr
    report = json.loads(run.stdout)
    assert (report["ingested"], report["reasons"]) == (5, {"decoder_crashed": 1})


def test_one_process_decodes_one_recording_after_the_other(six_recordings: Path) -> None:
    first = isolated(six_recordings)
    pid = decoder_pid()
    isolated(six_recordings, 1)
    list(first.frames(np.arange(3), (8, 8), fit="crop", batch=2, threads=1))

    assert decoder_pid() == pid


def test_a_recording_that_has_changed_is_read_anew_and_its_old_pictures_are_refused(
    six_recordings: Path, tmp_path: Path
) -> None:
    for path in six_recordings.glob("play0.*"):
        shutil.copy(path, tmp_path)
    before = isolated(tmp_path)
    log = tmp_path / "play0.csv"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-5]))

    after = isolated(tmp_path)

    assert before.actions is not None
    assert after.actions is not None
    assert len(after.actions.times_ns) == len(before.actions.times_ns) - 5
    with pytest.raises(RefusedInput) as caught:
        next(before.frames(np.arange(3), (8, 8), fit="crop", batch=2, threads=1))
    assert caught.value.reason is Reason.CHANGED_WHILE_READ


def test_pictures_that_nobody_wants_any_more_do_no_harm(six_recordings: Path) -> None:
    source = isolated(six_recordings)
    pictures = source.frames(np.arange(30), (8, 8), fit="crop", batch=8, threads=1)
    first = next(pictures)
    pictures.close()  # type: ignore[attr-defined]

    again = source.frames(np.arange(30), (8, 8), fit="crop", batch=8, threads=1)
    assert np.array_equal(next(again), first)
    assert len(list(again)) == 3


ORPHAN = """
import os, sys
sys.path[:0] = [sys.argv[1], f"{sys.argv[1]}/pipelines/ingest"]
from pathlib import Path
from test_isolation import decoder_pid, isolated
isolated(Path(sys.argv[2]))
print(decoder_pid(), flush=True)
os.kill(os.getpid(), 9)
"""


def test_a_decoder_ends_with_the_command(six_recordings: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", ORPHAN, str(ROOT / "tests"), str(six_recordings)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == -signal.SIGKILL, run.stderr
    process = Path("/proc", run.stdout.strip())
    deadline = time.monotonic() + 30
    while process.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process.exists()


def test_a_decoder_has_no_network_and_writes_no_file(six_recordings: Path) -> None:
    isolated(six_recordings)
    process = Path("/proc") / str(decoder_pid())
    lines = (process / "limits").read_text().splitlines()
    limits = {line[:25].strip(): line[25:].split()[0] for line in lines}

    assert limits["Max file size"] == "0"
    assert limits["Max data size"] == "1500000000"
    if os.geteuid() == 0:
        assert (process / "ns/net").readlink() != Path("/proc/self/ns/net").readlink()


def test_a_decoder_that_cannot_start_is_no_fault_of_the_recording(
    six_recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder_process, "CHILD", "wham_data.no_such_module")

    with pytest.raises(
        WhamDataError, match=r"the decoder process ended while it started"
    ) as caught:
        isolated(six_recordings)
    assert not isinstance(caught.value, RefusedInput)


def test_whatever_a_reader_raises_is_a_refusal_in_one_line() -> None:
    with pytest.raises(KeyError) as caught:
        _ = {}["a key\nof two lines"]
    found = refusal_of(caught.value, None)

    assert isinstance(found, RefusedInput)
    assert found.reason is Reason.READER_FAILED
    assert "KeyError" in found.message
    assert "test_isolation.py:" in found.message
    assert "\n" not in found.message
    unreadable = refusal_of(OSError(5, "Input/output error"), None)
    assert isinstance(unreadable, RefusedInput)
    assert unreadable.reason is Reason.UNREADABLE


@pytest.mark.parametrize("limits", [{"memory_mb": 100}, {"slowness": 0.0}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="expected"):
        DecodeLimits(**limits)  # type: ignore[arg-type]
