"""VPT's contractor recordings: line k acts after frame k, and the recorder's quirks are mended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers.readings import frames_of, recordings_in, the_recording
from makers.recordings import ingest_here
from makers.video_clips import read_stamp, write_clip

from wham_data.corpus import Corpus
from wham_data.pipelines.ingest.settings import IngestSettings
from wham_data.pipelines.readers.minecraft.vpt import Inputs, read_inputs
from wham_data.schemas.actions import load_space
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import OpenRecording

NAMES = load_space("vpt").names
SIZE = (192, 112)
NAME = "cheeky-cornflower-setter-02e496ce4abb-20220421-092639"
LATER = "cheeky-cornflower-setter-02e496ce4abb-20220421-093139"
EPOCH_MS = 1_650_533_199_000


def line(
    *keys: str,
    buttons: tuple[int, ...] = (),
    new: tuple[int, ...] = (),
    motion: tuple[float, float] = (0, 0),
    **more: Any,
) -> dict[str, Any]:
    """One line of the recorder; `motion` is dx, dy."""
    dx, dy = motion
    mouse = {"x": 640.0, "y": 360.0, "dx": dx, "dy": dy, "buttons": buttons, "newButtons": new}
    keyboard = {"keys": [f"key.keyboard.{key}" for key in keys], "newKeys": [], "chars": ""}
    return {"mouse": mouse, "keyboard": keyboard, "isGuiOpen": False, "hotbar": 0, **more}


def record(
    folder: Path,
    lines: list[dict[str, Any]],
    name: str = NAME,
    *,
    frames: int | None = None,
    start_ms: int = EPOCH_MS,
    version: str | None = None,
) -> Path:
    """A segment: a frame for each line unless said, 20 a second; the path of the video."""
    folder.mkdir(parents=True, exist_ok=True)
    count = len(lines) if frames is None else frames
    video = write_clip(folder / f"{name}.mp4", [50 * k for k in range(count)], size=SIZE)
    stamped = [{**each, "milli": start_ms + 50 * k} for k, each in enumerate(lines)]
    text = "".join(json.dumps(each) + "\n" for each in stamped)
    video.with_suffix(".jsonl").write_text(text)
    if version is not None:
        options = json.dumps({"version": version, "fov": 70})
        video.with_name(f"{name}-options.json").write_text(options)
    return video


def pressed(inputs: Inputs | OpenRecording) -> list[list[str]]:
    """Names of the buttons that are down in each row."""
    if isinstance(inputs, Inputs):
        rows = inputs.rows
    else:
        assert inputs.actions is not None
        rows = inputs.actions.values
    return [[NAMES[i] for i in np.flatnonzero(row[:23] > 0)] for row in rows]


def read(tmp_path: Path, lines: list[dict[str, Any]], menu_scale: float = 1.0) -> Inputs:
    path = tmp_path / "lines.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return read_inputs(path, menu_scale)


def test_line_k_acts_after_frame_k(tmp_path: Path) -> None:
    record(tmp_path, [line("w"), line("w", "space"), line(), line("1", buttons=(1,))])

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [0, 1, 2, 3]
    assert opened.frame_times_ns.tolist() == [0, 50_000_000, 100_000_000, 150_000_000]
    assert pressed(opened) == [["forward"], ["forward", "jump"], [], ["hotbar.1", "use"]]


def test_the_camera_keeps_fractions_of_a_degree(tmp_path: Path) -> None:
    inputs = read(tmp_path, [line(motion=(1, -2)), line(motion=(20, 0))])

    assert NAMES[-2:] == ("camera_pitch", "camera_yaw")
    assert inputs.rows[:, -2:].tolist() == [[-0.3, 0.15], [0.0, 3.0]]


def test_attack_that_is_stuck_from_the_start_counts_from_when_it_is_newly_pressed(
    tmp_path: Path,
) -> None:
    lines = [
        line(buttons=(0,), new=(0,)),
        line(buttons=(0, 1), new=(1,)),
        line(buttons=(0,), new=(0,)),
        line(buttons=(0,)),
    ]

    inputs = read(tmp_path, lines)

    assert pressed(inputs) == [[], ["use"], ["attack"], ["attack"]]
    assert inputs.notes == ("2 lines with attack stuck from the start: taken as not pressed",)


def test_the_wheel_presses_the_key_of_the_slot_it_turns_to(tmp_path: Path) -> None:
    lines = [line(hotbar=4), line(hotbar=5), line(hotbar=5), line("8", hotbar=7)]

    inputs = read(tmp_path, lines)

    assert pressed(inputs) == [[], ["hotbar.6"], [], ["hotbar.8"]]
    assert inputs.notes == ("1 changes of the hotbar by wheel: taken as its keys",)


def test_a_line_without_input_is_not_known_which_is_not_the_same_as_rest(tmp_path: Path) -> None:
    inputs = read(tmp_path, [line(), line() | {"mouse": None}, line() | {"keyboard": None}])

    assert np.isnan(inputs.rows).any(axis=1).tolist() == [False, True, True]
    assert inputs.notes == ("2 lines without input: action not known",)


@pytest.mark.parametrize(("version", "pitch"), [("5.8", 0.75), ("6.9", 3.0), ("10.0", 1.5)])
def test_in_menus_some_versions_count_the_mouse_differently(
    tmp_path: Path, version: str, pitch: float
) -> None:
    record(tmp_path, [line(motion=(0, 10), isGuiOpen=True)] * 3, version=version)

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert opened.actions.values[0, -2] == pytest.approx(pitch)


def test_the_version_is_that_of_the_folder_where_no_options_say_it(tmp_path: Path) -> None:
    record(tmp_path / "6.7", [line(motion=(0, 10), isGuiOpen=True)] * 3)

    opened = the_recording(tmp_path)

    assert opened.actions is not None
    assert opened.actions.values[0, -2] == pytest.approx(3.0)


def test_menus_get_their_cursor_back_and_nothing_else_changes(tmp_path: Path) -> None:
    lines = [line(), line(isGuiOpen=True), line()]
    record(tmp_path, lines)

    drawn, plain = (
        frames_of(the_recording(tmp_path, cursor=cursor), SIZE) for cursor in ("drawn", "none")
    )

    changed = np.argwhere((drawn != plain).any(axis=-1))
    assert set(changed[:, 0]) == {1}
    # (640, 360) in a window 720 high is (99, 56) in a video 112 high, whatever its width.
    assert changed[:, 1:].min(axis=0).tolist() == [56, 99]
    assert (changed[:, 1:].max(axis=0) < [56 + 16, 99 + 16]).all()


def test_the_cursor_follows_the_picture_to_another_size(tmp_path: Path) -> None:
    record(tmp_path, [line(isGuiOpen=True)] * 2)

    half = (SIZE[0] // 2, SIZE[1] // 2)
    drawn, plain = (
        frames_of(the_recording(tmp_path, cursor=cursor), half) for cursor in ("drawn", "none")
    )

    changed = np.argwhere((drawn != plain).any(axis=-1))
    assert changed[:, 1:].min(axis=0).tolist() == [28, 49]
    assert (changed[:, 1:].max(axis=0) <= [28 + 8, 49 + 8]).all()


def test_segments_without_a_pause_are_one_recording(tmp_path: Path) -> None:
    record(tmp_path, [line("w")] * 4)
    record(tmp_path, [line("s")] * 3, LATER, start_ms=EPOCH_MS + 4 * 50)

    opened = the_recording(tmp_path)

    assert [read_stamp(frame) for frame in frames_of(opened, SIZE)] == [0, 1, 2, 3, 0, 1, 2]
    assert np.diff(opened.frame_times_ns).tolist() == [50_000_000] * 6
    assert pressed(opened) == [["forward"]] * 4 + [["back"]] * 3
    assert "2 segments joined" in opened.notes


def test_where_a_segment_is_missing_a_new_recording_begins(tmp_path: Path) -> None:
    record(tmp_path, [line("w")] * 4)
    record(tmp_path, [line("s")] * 3, LATER, start_ms=EPOCH_MS + 300_000)

    found = recordings_in(tmp_path)

    assert list(found) == [f"{NAME}.mp4", f"{LATER}.mp4"]


def test_the_alias_is_the_player_of_every_segment(tmp_path: Path) -> None:
    record(tmp_path / "in", [line("w")] * 4)
    record(tmp_path / "in", [line("s")] * 3, LATER, start_ms=EPOCH_MS + 300_000)
    settings = IngestSettings(rate=None, size=SIZE, tokenizer=None)

    report = ingest_here(tmp_path / "in", tmp_path / "corpus", settings)

    assert (report.ingested, report.steps) == (2, 7)
    corpus = Corpus.open(tmp_path / "corpus")
    assert set(corpus.episodes["player"]) == {"cheeky-cornflower-setter"}
    assert set(corpus.episodes["license"]) == {"MIT"}
    assert corpus.verify().ok


@pytest.mark.parametrize(("lines", "frames"), [(7, 6), (6, 8)])
def test_of_lines_and_frames_the_shorter_decides(tmp_path: Path, lines: int, frames: int) -> None:
    record(tmp_path, [line("w")] * lines, frames=frames)

    opened = the_recording(tmp_path)

    assert len(opened.frame_times_ns) == 6
    assert f"{lines} lines for {frames} frames: the first 6 of each are taken" in opened.notes


def test_lines_and_frames_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    record(tmp_path, [line("w")] * 3, frames=8)

    with pytest.raises(RefusedInput) as refused:
        the_recording(tmp_path)

    assert refused.value.reason is Reason.LOG_COVERAGE


def test_a_torn_last_line_is_left_out_and_a_damaged_one_within_is_refused(tmp_path: Path) -> None:
    log = record(tmp_path, [line("w")] * 4).with_suffix(".jsonl")
    whole = log.read_text()
    log.write_text(whole[:-20])

    assert len(the_recording(tmp_path).frame_times_ns) == 3

    first, _, *others = whole.splitlines(keepends=True)
    log.write_text("".join([first, '{"mouse": \n', *others]))
    with pytest.raises(RefusedInput, match="line 2: not JSON") as refused:
        the_recording(tmp_path)
    assert refused.value.reason is Reason.LOG_SYNTAX


@pytest.mark.parametrize("ending", ["", "\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("cut", [5, 20, 60])
def test_a_torn_last_line_is_left_out_whatever_ends_it(
    tmp_path: Path, cut: int, ending: str
) -> None:
    log = record(tmp_path, [line("w")] * 4).with_suffix(".jsonl")
    log.write_bytes(log.read_bytes()[:-cut] + ending.encode())

    opened = the_recording(tmp_path)

    assert len(opened.frame_times_ns) == 3
    assert any("line 4 is torn" in note for note in opened.notes)


@pytest.mark.parametrize(
    ("spare", "pause_ms", "begins_ms"),
    [(0, 50, 200), (0, 62, 200), (1, 50, 250), (3, 50, 350), (0, 400, 550), (2, 130, 380)],
    ids=["at once", "jitter", "a spare line", "three", "a pause", "both"],
)
def test_the_next_segment_begins_when_the_wall_clock_says(
    tmp_path: Path, spare: int, pause_ms: int, begins_ms: int
) -> None:
    """Four frames, then `spare` lines without one; `pause_ms` after the last line the next segment."""
    record(tmp_path, [line("w")] * (4 + spare), frames=4)
    record(tmp_path, [line("s")] * 2, LATER, start_ms=EPOCH_MS + 50 * (3 + spare) + pause_ms)

    times_ns = the_recording(tmp_path).frame_times_ns

    assert [ns // 1_000_000 for ns in times_ns.tolist()] == [
        0,
        50,
        100,
        150,
        begins_ms,
        begins_ms + 50,
    ]
