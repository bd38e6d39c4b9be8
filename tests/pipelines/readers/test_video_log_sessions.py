"""Sessions whose video is in several files, beside one log."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from makers.readings import frames_of, recordings_in, the_recording
from makers.video_clips import read_stamp, stamped, write_clip

from wham_data.pipelines.align import place_steps
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.video_log.film.sessions import Extent, starts_of
from wham_data.schemas.actions import load_space
from wham_data.schemas.clock import TEN_HZ
from wham_data.schemas.errors import Reason, RefusedInput

NAMES = load_space("xinput16").names
SIZE = (192, 112)


def log(path: Path, end_s: float, start_s: float = 0.0) -> Path:
    rows = [
        f"{t / 20}{',0' * len(NAMES)}" for t in range(round(20 * start_s), round(20 * end_s) + 1)
    ]
    path.write_text("\n".join([f"time_s,{','.join(NAMES)}", *rows]))
    return path


def part(path: Path, number: int, start_ms: int = 0, frames: int = 20) -> Path:
    """Two seconds of ten frames; the part's first frame has the stamp 20 * number."""
    stamps = (stamped(20 * number + k) for k in range(frames))
    times = range(start_ms, start_ms + 100 * frames, 100)
    return write_clip(path, times, frames=stamps, options={"bf": "0"})


def refusal(folder: Path) -> RefusedInput:
    (recording,) = discover([folder]).recordings
    with pytest.raises(RefusedInput) as refused:
        open_recording(recording)
    return refused.value


@pytest.mark.parametrize(
    ("videos", "whole"),
    [
        (("a_001.mp4", "a_002.mp4"), "a.csv"),
        (("play 9.mp4", "play 10.mp4", "play 11.mp4"), "play.csv"),
        (("x-part1.mkv", "x-part2.mkv"), "x.jsonl"),
        (("GX010042.MP4", "GX020042.MP4", "GX030042.MP4"), "GX010042.csv"),
        (("clip0.mp4", "clip1.mp4"), "actions.csv"),
        (("DJI_0042.mp4", "DJI_0043.mp4"), "actions.csv"),
        (("MVI_1233.MOV", "MVI_1234.MOV"), "actions.csv"),
        (("take_03.mp4", "take_04.mp4", "take_05.mp4"), "take.csv"),
        (("2026-03-01 20-11-58.mp4", "2026-03-01 20-12-00.mp4"), "actions.csv"),
        (("Replay 2026-03-01 23-59-59.mp4", "Replay 2026-03-02 00-00-01.mp4"), "Replay.csv"),
    ],
)
def test_files_of_one_session_follow_one_another_on_the_logs_clock(
    tmp_path: Path, videos: tuple[str, ...], whole: str
) -> None:
    for number, name in enumerate(videos):
        part(tmp_path / name, number + (9 if "9" in videos[0] and "play" in name else 0))
    first = 20 * (9 if "play" in videos[0] else 0)
    text = log(tmp_path / "log", 2 * len(videos)).read_text()
    if whole.endswith("jsonl"):
        head, *rows = text.splitlines()
        keys = head.split(",")
        cells = (zip(keys, row.split(","), strict=True) for row in rows)
        text = "\n".join("{" + ",".join(f'"{k}":{v}' for k, v in row) + "}" for row in cells)
    (tmp_path / whole).write_text(text)
    (tmp_path / "log").unlink()
    if "play" in videos[0]:
        (tmp_path / "play.toml").write_text("starts_ms = [0, 2000, 4000]")

    opened = the_recording(tmp_path)

    count = 20 * len(videos)
    assert opened.frame_times_ns.tolist() == [k * 100_000_000 for k in range(count)]
    assert [read_stamp(f) for f in frames_of(opened, SIZE)] == list(range(first, first + count))
    assert opened.cuts.tolist() == list(range(20, count, 20)), "an episode each"
    assert any("files" in note for note in opened.notes)


def test_no_step_reaches_over_the_seam(tmp_path: Path) -> None:
    part(tmp_path / "a_1.mp4", 0, frames=17)
    part(tmp_path / "a_2.mp4", 1)
    log(tmp_path / "a.csv", 3.7)
    opened = the_recording(tmp_path)

    plans = place_steps(opened.frame_times_ns, opened.frame_end_ns, None, TEN_HZ, cuts=opened.cuts)

    assert [plan.picks.tolist() for plan in plans] == [list(range(17)), list(range(17, 37))]


@pytest.mark.parametrize("gap_ms", [0, 300, 5000])
def test_files_whose_clock_runs_on_are_placed_by_it(tmp_path: Path, gap_ms: int) -> None:
    """Then a number may be missing, and so may time."""
    part(tmp_path / "a_1.mkv", 0)
    part(tmp_path / "a_7.mkv", 1, start_ms=2000 + gap_ms)
    log(tmp_path / "a.csv", 4 + gap_ms / 1000)

    opened = the_recording(tmp_path)

    assert opened.frame_times_ns[[0, 19, 20, 39]].tolist() == [
        ms * 1_000_000 for ms in (0, 1900, 2000 + gap_ms, 3900 + gap_ms)
    ]


@pytest.mark.parametrize(
    ("videos", "log_s", "reason", "word"),
    [
        ({"a_1.mp4": 0, "a_3.mp4": 0}, (0, 4), Reason.LOG_CLOCK, "number 2 is missing"),
        ({"a_2.mp4": 0, "a_3.mp4": 0}, (0, 6), Reason.LOG_CLOCK, "time missing between"),
        ({"a_8.mp4": 0, "a_10.mp4": 0}, (0, 4), Reason.LOG_CLOCK, "number 9 is missing"),
        ({"a_1.mkv": 0, "a_2.mkv": 900}, (0, 4), Reason.LOG_CLOCK, "neither alike"),
        ({"a_1.mp4": 0, "a_2.mp4": 0}, (0, 5.5), Reason.LOG_CLOCK, "time missing between"),
        ({"a_1.mp4": 0, "a_2.mp4": 0}, (0, 2), Reason.LOG_COVERAGE, "log of one of them alone"),
        ({"a_1.mp4": 0, "a_2.mp4": 0}, (2, 4), Reason.LOG_COVERAGE, "log of one of them alone"),
        (
            {"2026-03-01 20-11-07.mp4": 0, "2026-03-01 20-11-20.mp4": 0},
            (0, 4),
            Reason.LOG_CLOCK,
            "13.0 s apart",
        ),
        ({"GX010042.MP4": 0, "GX030042.MP4": 0}, (0, 4), Reason.LOG_CLOCK, "2 is missing"),
    ],
)
def test_where_the_gap_between_files_is_not_known_the_session_is_refused(
    tmp_path: Path,
    videos: dict[str, int],
    log_s: tuple[float, float],
    reason: Reason,
    word: str,
) -> None:
    for number, (name, start_ms) in enumerate(videos.items()):
        part(tmp_path / name, number, start_ms)
    log_name = next(
        name for sign, name in {"a_": "a", "GX": "GX010042", "2": "actions"}.items()
        if min(videos).startswith(sign)
    )  # fmt: skip
    log(tmp_path / f"{log_name}.csv", log_s[1], log_s[0])

    why = refusal(tmp_path)

    assert why.reason is reason
    assert word in why.message


@pytest.mark.parametrize(
    ("starts", "word"),
    [
        ([0, 2000], ""),
        ([500, 2750.5], ""),
        ([0, 60000], "log of one of them alone"),
        ([0], "1 numbers"),
        ([0, 1500], "before the one before it ends"),
        (["soon"], "a number between"),
        (3, "a list of milliseconds"),
    ],
)
def test_the_metadata_says_when_each_file_starts(tmp_path: Path, starts: object, word: str) -> None:
    part(tmp_path / "a_1.mp4", 0)
    part(tmp_path / "a_5.mp4", 1)
    log(tmp_path / "a.csv", 4.75)
    (tmp_path / "a.toml").write_text(f"starts_ms = {starts}")

    if word:
        assert word in refusal(tmp_path).message
    else:
        assert isinstance(starts, list)
        times = the_recording(tmp_path).frame_times_ns
        assert times[[0, 20]].tolist() == [round(ms * 1_000_000) for ms in starts]


def test_a_file_with_a_log_of_its_own_is_a_recording_of_its_own(tmp_path: Path) -> None:
    for number in (1, 2):
        part(tmp_path / f"a_{number}.mp4", number)
        log(tmp_path / f"a_{number}.csv", 2)
    log(tmp_path / "a.csv", 4)

    assert sorted(recordings_in(tmp_path)) == ["a_1.mp4", "a_2.mp4"]


def test_a_log_with_a_video_of_its_own_is_not_that_of_a_session(tmp_path: Path) -> None:
    for number, name in enumerate(("a.mp4", "a_1.mp4", "a_2.mp4")):
        part(tmp_path / name, number)
    log(tmp_path / "a.csv", 4)

    found = discover([tmp_path])

    assert [[path.name for path in r.files] for r in found.recordings] == [["a.mp4", "a.csv"]]
    assert [path.name for path, _ in found.refused] == ["a_1.mp4", "a_2.mp4"]


@pytest.mark.parametrize(
    ("videos", "whole"),
    [
        (("a_1.mp4", "a_2.mp4"), "a.csv"),
        (("GX010042.MP4", "GX020042.MP4"), "GX010042.csv"),
        (("2026-03-01 20-11-58.mp4", "2026-03-01 20-12-00.mp4"), "actions.csv"),
    ],
)
def test_a_file_of_a_session_brings_the_others_along(
    tmp_path: Path, videos: tuple[str, ...], whole: str
) -> None:
    for number, name in enumerate(videos):
        part(tmp_path / name, number)
    log(tmp_path / whole, 4)

    for name in videos:
        assert len(the_recording(tmp_path / name).frame_times_ns) == 40


def test_the_log_of_a_folder_is_not_that_of_one_of_its_videos(tmp_path: Path) -> None:
    for name in ("boss.mp4", "intro.mp4"):
        part(tmp_path / name, 0)
    log(tmp_path / "actions.csv", 2)

    ((_, why),) = discover([tmp_path / "boss.mp4"]).refused

    assert why.reason is Reason.LOG_MISSING


@given(
    lengths=st.lists(st.integers(2, 10**12), min_size=2, max_size=6),
    late=st.lists(st.integers(0, 400_000_000), min_size=6, max_size=6),
)
def test_files_joined_end_to_end_never_overlap(lengths: list[int], late: list[int]) -> None:
    extents = [
        Extent(first, first + length - 1, first + length)
        for first, length in zip(late, lengths, strict=False)
    ]
    names = [f"a_{number}" for number in range(len(extents))]

    starts, guessed, note = starts_of(names, extents, None)

    assert starts[0] == extents[0].first_ns
    assert guessed != ("runs on" in note)
    for extent, (start, after) in zip(extents, pairwise(starts), strict=False):
        shown_until = start + extent.last_ns - extent.first_ns
        assert shown_until < after
        assert not guessed or np.isclose(after - start, extent.end_ns - extent.first_ns)
