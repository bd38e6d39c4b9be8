"""Files beside a video: endings in any case, other tools' files, sessions in several files."""

from __future__ import annotations

from pathlib import Path

import pytest
from makers.readings import the_recording
from makers.video_clips import write_clip

from wham_data.pipelines.readers import discover, open_recording
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput

NAMES = load_space("xinput16").names


def log(path: Path) -> Path:
    rows = "".join(f"{k / 10}{',0' * len(NAMES)}\n" for k in range(6))
    path.write_text(f"time_s,{','.join(NAMES)}\n{rows}")
    return path


def clip(path: Path) -> Path:
    """Half a second; the file may have any name."""
    return write_clip(path.with_name("clip.mp4"), range(0, 500, 100)).rename(path)


@pytest.mark.parametrize(
    ("video", "beside"),
    [("S.MP4", "S.CSV"), ("s.Mp4", "s.csv"), ("s.mp4", "s.Csv"), ("s.MP4", "ACTIONS.CSV")],
)
def test_endings_are_known_in_any_case(tmp_path: Path, video: str, beside: str) -> None:
    clip(tmp_path / video)
    log(tmp_path / beside)

    assert len(the_recording(tmp_path).frame_times_ns) == 5


@pytest.mark.parametrize(
    "text",
    ['{"columns": ["a"], "fps": 60}', '{"game": {"exe": "a"}, "version": 2}', "[1, 2]"],
)
def test_a_json_of_another_tool_is_ignored_and_named(tmp_path: Path, text: str) -> None:
    clip(tmp_path / "s.mp4")
    log(tmp_path / "s.csv")
    (tmp_path / "s.json").write_text(text)

    assert any("s.json" in note for note in the_recording(tmp_path).notes)


@pytest.mark.parametrize("text", ['{"columns": ["a"]}', '{"offset_ms": "soon"}', '{"game": "x"'])
def test_a_json_with_keys_of_ours_alone_must_fit(tmp_path: Path, text: str) -> None:
    clip(tmp_path / "s.mp4")
    log(tmp_path / "s.csv")
    (tmp_path / "s.json").write_text(text)

    with pytest.raises(RefusedInput) as refused:
        open_recording(discover([tmp_path]).recordings[0])
    assert refused.value.reason is Reason.METADATA


@pytest.mark.parametrize(
    ("videos", "whole"),
    [
        (("a_001.mp4", "a_1.mp4"), "a.csv"),
        (("play 1.mp4", "play 1.mkv"), "play.csv"),
        (("x-part1.mp4",), "x.csv"),
    ],
)
def test_a_session_whose_order_is_not_known_is_refused_with_its_log_and_what_to_do(
    tmp_path: Path, videos: tuple[str, ...], whole: str
) -> None:
    for video in videos:
        clip(tmp_path / video)
    log(tmp_path / whole)

    refused = discover([tmp_path]).refused

    assert [path.name for path, _ in refused] == sorted(videos)
    assert all(whole in why.message and "join them" in why.message for _, why in refused)


@pytest.mark.parametrize("still_s", [2, 75, 1800])
def test_a_screen_that_stands_still_cuts_the_recording(tmp_path: Path, still_s: int) -> None:
    later = 1000 * still_s
    write_clip(tmp_path / "s.mp4", [0, 100, 200, later, later + 100, later + 200])
    names = [
        f"{t / 1000}{',0' * len(NAMES)}" for t in (0, 100, 200, later, later + 100, later + 200)
    ]
    (tmp_path / "s.csv").write_text("\n".join([f"time_s,{','.join(NAMES)}", *names]))

    assert the_recording(tmp_path).clock.gaps == 1
