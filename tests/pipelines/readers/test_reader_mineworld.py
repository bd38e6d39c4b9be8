"""MineWorld's clips: Python literals read without evaluating them, in both timings."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from makers.minecraft_clips import clip, done, minerl, shown
from makers.readings import recordings_in, the_recording

from wham_data.pipelines.readers import discover
from wham_data.pipelines.readers.minecraft.mineworld import read_literal
from wham_data.schemas.errors import Reason, RefusedInput

LINES = [
    repr(minerl()).replace("(0, 0)", "array([ 9.  , -0.99])"),
    repr(minerl(jump=1)).replace("(0, 0)", "array([-7.12,  3.93])"),
    repr(minerl(left=1, right=1)).replace("(0, 0)", "array([0., 0.])"),
    repr(minerl()).replace("(0, 0)", "array([1e-3, -2.], dtype=float32)"),
    repr(minerl(attack=1)).replace("(0, 0)", "array([0, 15])"),
]
DONE = [
    {"camera_pitch": 9.0, "camera_yaw": -0.99},
    {"jump": 1, "camera_pitch": -7.12, "camera_yaw": 3.93},
    {"left": 1, "right": 1},
    {"camera_pitch": 1e-3, "camera_yaw": -2.0},
    {"attack": 1, "camera_yaw": 15.0},
]


def written(tmp_path: Path, lines: list[str], frames: int = 5) -> Path:
    video = clip(tmp_path / "clip_0.mp4", frames)
    video.with_suffix(".jsonl").write_text("".join(f"{line}\n" for line in lines))
    return video


def test_a_line_led_to_its_frame_so_the_first_is_passed_over(tmp_path: Path) -> None:
    written(tmp_path, LINES)

    opened = the_recording(tmp_path)

    assert shown(opened) == [0, 1, 2, 3, 4]
    assert done(opened) == [*DONE[1:], None]
    assert opened.actions is not None
    assert opened.actions.space.name == "vpt"


def test_the_other_timing_is_an_option(tmp_path: Path) -> None:
    written(tmp_path, LINES)
    assert done(the_recording(tmp_path, timing="after")) == DONE


def test_it_is_recognised_by_its_lines(tmp_path: Path) -> None:
    written(tmp_path, LINES)
    (found,) = discover([tmp_path]).recordings
    assert (found.format, found.provenance.game) == ("mineworld", "Minecraft")

    (tmp_path / "clip_0.jsonl").write_text('{"time_ms": 0, "a": 1}\n')
    assert recordings_in(tmp_path, "mineworld") == {}


def test_the_shorter_of_frames_and_lines_decides(tmp_path: Path) -> None:
    written(tmp_path, [*LINES, LINES[1]])
    opened = the_recording(tmp_path)

    assert done(opened) == [*DONE[1:], None]
    assert opened.notes == ("6 lines for 5 frames: the first 5 of each are taken",)


def test_a_torn_last_line_is_left_out_and_a_whole_one_without_its_end_is_read(
    tmp_path: Path,
) -> None:
    video = written(tmp_path, LINES)
    log = video.with_suffix(".jsonl")
    log.write_text("\n".join(LINES))
    assert done(the_recording(tmp_path, timing="after")) == DONE

    log.write_text("\n".join([*LINES[:4], LINES[4][:60]]))
    assert done(the_recording(tmp_path, timing="after")) == DONE[:4]


@pytest.mark.parametrize(
    ("text", "camera"),
    [
        ("array([1, 2])", [1, 2]),
        ("np.array([1., -2.])", [1, -2]),
        ("array([1e1, nan])", [10, None]),
        ("[1, 2]", [1, 2]),
        ("(1, 2)", [1, 2]),
    ],
)
def test_a_pair_is_read_in_every_way_that_it_is_printed(
    text: str, camera: list[float | None]
) -> None:
    said = read_literal(f"{{'camera': {text}, 'jump': np.int64(1), \"use\": True}}\n".encode(), "x")
    pair = said.pop("camera")

    assert isinstance(pair, list)
    assert [None if each != each else each for each in pair] == camera
    assert said == {"jump": 1, "use": 1}


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch harm')",
        "array(__import__('os'))",
        "array([[1, 2]])",
        "array([1, 2]",
        "[1, 2))",
        "open([1, 2])",
        "1 if True else 2",
        "lambda: 0",
        "{'a': 1}",
        "-" * 10_000 + "1",
        "[" * 10_000,
        "1" * 10_000,
        "é",
        "",
    ],
)
def test_whatever_else_a_line_holds_is_refused_at_once(tmp_path: Path, text: str) -> None:
    bad = repr(minerl()).replace("(0, 0)", text)
    written(tmp_path, [LINES[0], bad, *LINES[2:]])
    started = time.monotonic()

    with pytest.raises(RefusedInput, match=r"clip_0\.jsonl, line 2") as refused:
        the_recording(tmp_path)

    assert refused.value.reason is Reason.LOG_SYNTAX
    assert time.monotonic() - started < 2


def test_a_line_that_lacks_a_button_is_refused(tmp_path: Path) -> None:
    written(tmp_path, [LINES[0], "{'camera': array([0, 0]), 'ESC': 0}", *LINES[2:]])

    with pytest.raises(RefusedInput, match="line 2: no back") as refused:
        the_recording(tmp_path)

    assert refused.value.reason is Reason.LOG_COLUMN
