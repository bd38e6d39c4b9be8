"""Events become states: taps within a tick, what was held at the start, words for values."""

from __future__ import annotations

from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.logs import SPACE, by_ms, column, events, read_log, sampled
from makers.video_clips import write_clip

from wham_data.pipelines.align import resample_actions
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.video_log.event_states import Events, states_of
from wham_data.schemas.clock import Grid
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import ActionTrack

MS = 1_000_000
A = SPACE.index("button_A")


def pressed_steps(times_ns: np.ndarray, values: np.ndarray, dimension: int) -> set[int]:
    """Steps of a tenth of a second in which a button is down at any instant."""
    track = ActionTrack(SPACE, times_ns, values, int(times_ns[-1]))
    edges_ns = Grid(0, int(times_ns[-1]) // 100_000_000, Fraction(10)).edges_ns()
    steps = resample_actions(track, edges_ns)
    return set(np.flatnonzero(steps.values[:, dimension] == 1).tolist())


# --- taps ------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(1, 39), st.integers(0, 2), st.booleans()), max_size=40),
    st.sampled_from([1, 10, 50]),
)
@settings(max_examples=100, deadline=None)
def test_a_button_is_down_in_every_step_that_holds_a_press(
    happened: list[tuple[int, int, bool]], tick_ms: int
) -> None:
    """Whatever the order within a tick: the slow version walks the file line by line."""
    at_rest = [(0, button, False) for button in range(3)]
    lines = [*at_rest, *sorted(happened, key=lambda line: line[0]), (2000, 0, False)]
    lines = [(at * tick_ms if at < 2000 else at, button, down) for at, button, down in lines]
    down_at: dict[int, set[int]] = defaultdict(set)
    held: dict[int, int] = {}
    for at, button, down in lines:
        if not down and button in held:
            since = held.pop(button)
            down_at[button] |= set(range(since // 100, max(-(-at // 100), since // 100 + 1)))
        elif down:
            held.setdefault(button, at)
            down_at[button].add(at // 100)
    made = Events(
        np.array([at * MS for at, _, _ in lines]),
        np.array([A + button for _, button, _ in lines]),
        np.array([float(down) for _, _, down in lines]),
        np.zeros(len(lines), np.int64),
    )
    times_ns, values, _ = states_of(made, SPACE, 2000 * MS)
    assert (np.diff(times_ns) > 0).all()
    for button in range(3):
        if button not in held:
            assert pressed_steps(times_ns, values, A + button) == down_at[button]


@pytest.mark.parametrize(
    ("lines", "steps"),
    [
        (["312,button_A,1", "312,button_A,0"], {3}),
        (["1203,button_A,1", "1203,button_A,0", "1203,button_A,1", "1250,button_A,0"], {12}),
        (["500,button_A,1", "700,button_A,0", "700,button_A,1", "700,button_A,0"], {5, 6, 7}),
        (["299,button_A,1", "299,button_B,1", "299,button_A,0", "400,button_B,0"], {2}),
    ],
)
def test_a_tap_within_one_tick_survives(tmp_path: Path, lines: list[str], steps: set[int]) -> None:
    log = read_log(tmp_path, events("0,left_stick_x,0", *lines, "3990,left_stick_x,0"))
    assert pressed_steps(log.track.times_ns, log.track.values, A) == steps


# --- held when recording starts --------------------------------------------------------------


@pytest.mark.parametrize("at_ms", [40, 900, 3900])
def test_a_button_whose_first_event_is_a_release_was_held_until_then(
    tmp_path: Path, at_ms: int
) -> None:
    log = read_log(tmp_path, events("0,left_stick_x,0", f"{at_ms},button_A,0", "3990,button_B,0"))
    assert by_ms(log, "button_A") == {0: 1, at_ms: 0, 3990: 0}
    assert (column(log, "button_B") == 0).all(), "a row that only ends the log"
    assert [note for note in log.notes if "button_A" in note and "held until then" in note]


@pytest.mark.parametrize(("control", "value"), [("left_stick_y", 0), ("trigger_RT", 0)])
def test_a_stick_that_comes_to_rest_first_was_somewhere_else(
    tmp_path: Path, control: str, value: float
) -> None:
    log = read_log(tmp_path, events("0,button_B,0", f"900,{control},{value}", "3990,button_B,0"))
    assert np.isnan(column(log, control)).tolist() == [True, False, False]


def test_a_release_proves_nothing_in_a_log_that_repeats_releases(tmp_path: Path) -> None:
    log = read_log(tmp_path, events(
        "0,left_stick_x,0", "900,button_A,0", "1200,button_A,0", "3990,button_B,0"
    ))  # fmt: skip
    assert np.isnan(column(log, "button_A")).tolist() == [True, False, False, False]


def test_a_first_look_at_a_pad_at_rest_is_no_release(tmp_path: Path) -> None:
    first = [f"{k},{name},0" for k, name in enumerate(SPACE.names, 1)]
    log = read_log(tmp_path, events("0,start,1", *first, "900,button_A,1", "3990,button_A,0"))
    assert (log.track.values[:-2] == 0).all()


# --- words -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("down", "up"),
    [("press", "release"), ("pressed", "released"), ("down", "up"), ("TRUE", "FALSE"),
     ("Key_Down", "Key_Up"), ("on", "off")],
)  # fmt: skip
def test_a_button_may_be_said_in_words(tmp_path: Path, down: str, up: str) -> None:
    lines = (f"0,button_A,{up}", f"300,button_A,{down}", f"360,button_A,{up}", "3990,button_A,0")
    log = read_log(tmp_path, events(*lines))
    assert by_ms(log, "button_A") == {0: 0, 300: 1, 360: 0, 3990: 0}
    cells = [down if 3 < k < 9 else up for k in range(20)]
    log = read_log(tmp_path, sampled([k * 8 for k in range(20)], button_A=cells))
    assert column(log, "button_A").tolist() == [float(3 < k < 9) for k in range(20)]


@pytest.mark.parametrize("control", ["left_stick_y", "trigger_LT", "right_stick_x"])
def test_a_word_for_a_stick_is_no_number(tmp_path: Path, control: str) -> None:
    for text in (
        events("0,button_A,0", f"300,{control},down", "3990,button_A,0"),
        sampled([0, 8], **{control: ["down", "up"]}),
    ):
        with pytest.raises(RefusedInput) as caught:
            read_log(tmp_path, text)
        assert (caught.value.reason, control in caught.value.message) == (Reason.LOG_TYPE, True)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["time_ms,control,value", "0,left_stick_x,0", "2000,trigger_LT,0", "3000,left_stick_x,0"],
         "trigger_LT: the first event is a return to rest"),
        (["time_ms,slot,control,value", "0,1,left_stick_x,0", "500,1,button_A,1", "2600,0,button_B,1",
          "3000,0,button_B,0"], r"column slot says that the device is replaced.*ignore = \[.slot.\]"),
        (["time_s,key,event", "1.9,w,press", "2.1,w,release"], r"first row \(1.9 s\) to its last \(2.1 s\)"),
        (["time_s,key,event", "0,w,press", "0.3,w,release"], "write a row when the recording starts"),
    ],
)  # fmt: skip
def test_a_log_that_covers_too_little_says_why(tmp_path: Path, rows: list[str], words: str) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 3000, 200))
    (tmp_path / "a.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(RefusedInput, match=f"too short.*{words}"):
        open_recording(discover([tmp_path]).recordings[0], target=SPACE)


def test_rows_that_leave_values_out_are_named(tmp_path: Path) -> None:
    write_clip(tmp_path / "a.mp4", range(0, 3000, 200))
    rows = [f'{{"time_ms": {ms}}}' for ms in range(0, 3000, 10)]
    all_named = ", ".join(f'"{name}": 0' for name in SPACE.names)
    rows.append(f'{{"time_ms": 3000, {all_named}}}')
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    with pytest.raises(RefusedInput, match=r"300 rows with missing values.*also where it is 0"):
        open_recording(discover([tmp_path]).recordings[0])
