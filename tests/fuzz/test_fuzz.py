"""Files in which something went wrong are read or refused, and nothing else comes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_targets import OPTIONS, TARGETS, Target, read_recording
from fuzzing import Fuzzer, fuzz

from wham_data.pipelines.readers import discover

CASES = {"readers": 150, "logs": 100, "checkpoints": 60, "corpora": 30, "movies": 60}


@pytest.mark.parametrize("group", TARGETS)
def test_whatever_a_file_holds_it_is_read_or_refused(group: str, tmp_path: Path) -> None:
    outcome = fuzz(group, tmp_path, seed=1, cases=CASES[group])

    assert not outcome.findings, outcome.findings
    assert outcome.cases == CASES[group]


@pytest.mark.parametrize("group", ["checkpoints", "corpora", "movies"])
def test_what_is_to_go_wrong_is_good_before(group: str, tmp_path: Path) -> None:
    fuzzer = Fuzzer(group, 0, tmp_path)

    for target in TARGETS[group]:
        target.read(fuzzer.good(target))


@pytest.mark.parametrize("target", [*TARGETS["readers"], *TARGETS["logs"]], ids=lambda t: t.name)
def test_there_is_a_recording_to_read(target: Target, tmp_path: Path) -> None:
    target.make(tmp_path)

    found = discover([tmp_path], options=OPTIONS)

    assert found.recordings
    assert not found.refused
    for recording in found.recordings:
        read_recording(recording)
