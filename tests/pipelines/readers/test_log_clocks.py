"""Clocks of logs: set back, wrapped, coarse, counted in ticks; rows that are not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.logs import by_ms, column, events, read_log, sampled

from wham_data.pipelines.readers.video_log.frame_numbers import misfit
from wham_data.pipelines.readers.video_log.log_clock import (
    event_order,
    sampled_order,
    strictly_rising,
    unwrapped,
)
from wham_data.schemas.errors import Reason, RefusedInput

MS = 1_000_000
POLL = np.arange(0, 4000, 8) * MS


def refused(folder: Path, text: str, toml: str = "") -> RefusedInput:
    with pytest.raises(RefusedInput) as caught:
        read_log(folder, text, toml)
    return caught.value


# --- set back --------------------------------------------------------------------------------


@given(st.integers(20, 50_000), st.integers(5, 490))
@settings(max_examples=60, deadline=None)
def test_a_sampled_clock_that_is_set_back_is_refused_with_row_and_amount(
    back_ms: int, row: int
) -> None:
    times_ns = POLL.copy()
    times_ns[row:] -= back_ms * MS
    with pytest.raises(RefusedInput) as caught:
        sampled_order(times_ns)
    assert caught.value.reason is Reason.LOG_CLOCK
    assert f"set back: row {row + 1} is {(back_ms - 8) / 1000:g} s" in caught.value.message


def test_shuffled_rows_and_swapped_neighbours_are_sorted() -> None:
    shuffled = np.random.default_rng(0).permutation(POLL)
    swapped = POLL.copy()
    swapped[[20, 21, 300, 301]] = swapped[[21, 20, 301, 300]]
    for times_ns in (shuffled, swapped):
        order, notes = sampled_order(times_ns)
        assert times_ns[order].tolist() == POLL.tolist()
        assert "time order" in notes[0]


@pytest.mark.parametrize("back_ms", [20, 30, 700, 50_000])
def test_events_are_never_sorted_across_a_step_back(tmp_path: Path, back_ms: int) -> None:
    why = refused(tmp_path, events(
        "0,left_stick_x,0", "1500,button_A,1", f"{1500 - back_ms},button_A,0", "3990,button_B,0"
    ))  # fmt: skip
    assert why.reason is Reason.LOG_CLOCK
    assert f"set back: row 3 is {back_ms / 1000:g} s" in why.message


def test_a_release_that_a_second_thread_stamped_a_little_early_still_ends_its_press() -> None:
    times_ns = np.array([0, 100, 99, 200]) * MS
    order, kept_ns, notes = event_order(times_ns, np.array([0, 1, 1, 0]))
    assert order.tolist() == [0, 1, 2, 3]
    assert kept_ns.tolist() == [0, 100 * MS, 100 * MS, 200 * MS]
    assert "order of the file" in notes[0]


def test_a_file_that_lists_one_control_after_the_other_is_sorted(tmp_path: Path) -> None:
    log = read_log(tmp_path, events(
        "0,button_A,0", "300,button_A,1", "900,button_A,0", "200,button_B,1", "3990,button_B,0"
    ))  # fmt: skip
    assert by_ms(log, "button_B") == {0: 0, 200: 1, 300: 1, 900: 1, 3990: 0}


# --- wrapped ---------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap_ns", [2**32 * MS, 2**31 * MS, 2**32 * 1000, 2**16 * MS])
@given(row=st.integers(1, 499), signed=st.booleans())
@settings(max_examples=30, deadline=None)
def test_a_counter_that_wraps_is_unwrapped(wrap_ns: int, row: int, signed: bool) -> None:
    true_ns = POLL + (wrap_ns // (1 + signed) - int(POLL[row]) + 3)
    counted = np.where(np.arange(len(POLL)) >= row, true_ns - wrap_ns, true_ns)
    times_ns, notes = unwrapped(counted)
    assert times_ns.tolist() == true_ns.tolist()
    assert f"row {row + 1}" in notes[0]


def test_a_clock_that_is_set_back_is_no_wrap() -> None:
    times_ns = POLL.copy()
    times_ns[200:] -= 1000 * MS
    assert unwrapped(times_ns)[1] == []


def test_a_wrapped_event_log_keeps_its_order(tmp_path: Path) -> None:
    top = 2**32
    log = read_log(tmp_path, events(
        f"{top - 1000},button_A,0", f"{top - 5},button_A,1", "40,button_A,0", "2900,button_B,0"
    ), f"offset_ms = {top - 1000}\n")  # fmt: skip
    assert by_ms(log, "button_A") == {0: 0, 995: 1, 1040: 0, 3900: 0}


# --- coarse ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tick_ms", [1, 10, 15.625, 16])
def test_rows_within_a_tick_keep_their_order_and_are_spread_over_it(
    tmp_path: Path, tick_ms: float
) -> None:
    true_ms = np.arange(0, 800, tick_ms / 2.5)
    stick = np.random.default_rng(1).uniform(-1, 1, len(true_ms)).round(3)
    stamped = (true_ms // tick_ms * tick_ms).tolist()
    log = read_log(tmp_path, sampled(stamped, left_stick_x=stick))

    assert column(log, "left_stick_x").tolist() == stick.tolist()
    assert (np.diff(log.track.times_ns) > 0).all()
    late_ms = log.track.times_ns / 1e6 - np.array(stamped)
    assert ((late_ms >= 0) & (late_ms < tick_ms)).all()
    assert [note for note in log.notes if "coarse clock" in note]


def test_two_devices_that_take_turns_at_one_time_are_refused(tmp_path: Path) -> None:
    times_ms = [k // 2 * 16 for k in range(200)]
    stick = [0.8 if k % 2 else -0.8 for k in range(200)]
    why = refused(tmp_path, sampled(times_ms, left_stick_x=stick))
    assert (why.reason, "two devices" in why.message) == (Reason.LOG_CLOCK, True)


@given(st.lists(st.integers(-5, 20), min_size=1, max_size=30))
def test_strictly_rising_times_are_the_least_there_are(times: list[int]) -> None:
    slow: list[int] = []
    for time in sorted(times):
        slow.append(max(time, slow[-1] + 1) if slow else time)
    assert strictly_rising(np.array(sorted(times))).tolist() == slow


# --- ticks -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "column_name", "toml"),
    [
        (10_000_000, "qpc", ""),
        (3_579_545, "stamp", '[columns]\nstamp = "time_ticks"\n'),
        (2_994_000_000, "ticks", ""),
    ],
)
def test_a_counter_of_ticks_needs_only_its_rate(
    tmp_path: Path, rate: int, column_name: str, toml: str
) -> None:
    ticks = [5 * rate + k * rate // 100 for k in range(400)]
    text = sampled(ticks).replace("time_ms", column_name, 1)
    log = read_log(tmp_path, text, f"tick_rate = {rate}\noffset_ms = 5000\n{toml}")
    assert np.abs(log.track.times_ns - np.arange(400) * 10 * MS).max() <= 1000


# --- rows on change, rows that are missing ---------------------------------------------------

CHANGES_MS = [0, 200, 216, 250, 1900, 1950, 2010, 3950]
CHANGES = [0, 0.5, 0.9, 1, 0.7, 0.6, 0.2, 0]


def test_rows_that_come_on_change_only_hold_until_the_next(tmp_path: Path) -> None:
    log = read_log(tmp_path, sampled(CHANGES_MS, left_stick_x=CHANGES))
    assert (log.sampled, log.track.max_hold_ns) == (False, None)
    assert [note for note in log.notes if "holds until the next" in note]


@pytest.mark.parametrize("hold", ["true", "false"])
def test_metadata_says_whether_rows_hold(tmp_path: Path, hold: str) -> None:
    log = read_log(tmp_path, sampled(CHANGES_MS, left_stick_x=CHANGES), f"hold = {hold}\n")
    assert log.sampled is (hold == "false")


def test_a_polled_log_with_a_hole_is_not_held_over_it(tmp_path: Path) -> None:
    times_ms = [k * 8 for k in range(500) if not 120 < k < 300]
    log = read_log(tmp_path, sampled(times_ms, left_stick_x=np.sin(np.arange(len(times_ms)) / 9)))
    assert log.sampled
    assert [note for note in log.notes if "hold = true" in note]


@pytest.mark.parametrize("gone", [slice(10, 90), slice(0, 40), slice(150, 200)])
def test_a_pad_that_is_gone_for_a_while_leaves_those_rows_unknown(
    tmp_path: Path, gone: slice
) -> None:
    cells = np.arange(200).astype(object) % 2
    cells[gone] = ""
    log = read_log(tmp_path, sampled([k * 8 for k in range(200)], button_A=cells))
    assert np.isnan(log.track.values[gone]).any(axis=1).all()
    assert np.isfinite(np.delete(log.track.values, np.r_[gone], axis=0)).all()
    assert [note for note in log.notes if "missing values" in note]


def test_rows_in_which_the_pad_is_not_connected_are_not_known(tmp_path: Path) -> None:
    there = [int(k < 50 or k > 80) for k in range(200)]
    log = read_log(tmp_path, sampled([k * 8 for k in range(200)], connected=there))
    assert np.isnan(log.track.values).all(axis=1).tolist() == [not t for t in there]


# --- frame columns ---------------------------------------------------------------------------

SIXTIETH = 16_666_667
FRAMES_NS = np.arange(180) * SIXTIETH


@pytest.mark.parametrize(
    ("frames", "times_ns", "fits"),
    [
        (np.arange(180), np.arange(180) * 2 * SIXTIETH, True),
        (np.arange(179), np.arange(179) * SIXTIETH, True),
        (np.arange(60, 120), np.arange(60, 120) * SIXTIETH, True),
        (np.arange(91), np.arange(91) * 2 * SIXTIETH, False),
        (np.arange(360), np.arange(360) * SIXTIETH // 2, False),
        (np.arange(5000, 5180), np.arange(180) * SIXTIETH, False),
    ],
)
def test_a_frame_column_counts_only_if_it_fits_the_video(
    frames: np.ndarray, times_ns: np.ndarray, fits: bool
) -> None:
    found = misfit(frames, times_ns, FRAMES_NS, 180 * SIXTIETH)
    assert (found is None) is fits


def test_a_frame_column_that_fits_as_little_as_the_clocks_is_refused() -> None:
    with pytest.raises(RefusedInput, match=r"0 to 90, the video has 180.*ignore"):
        misfit(np.arange(91), np.arange(91) * 5 * SIXTIETH, FRAMES_NS, 180 * SIXTIETH)
