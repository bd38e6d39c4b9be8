"""Clocks of logs: set back, wrapped, coarse, counted in ticks; rows that are not known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from makers.logs import by_ms, column, events, read_log, sampled
from numpy.typing import NDArray

from wham_data.pipelines.readers.video_log.frame_numbers import misfit
from wham_data.pipelines.readers.video_log.log_clock import (
    event_order,
    sampled_order,
    strictly_rising,
    unwrapped,
)
from wham_data.schemas.actions import load_space
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
    whole, rest = (
        f"{ms} ms" if ms < 10_000 else f"{ms / 1000:.12g} s" for ms in (back_ms, back_ms - 8)
    )
    assert f"row {row + 1} is {rest} before the row above it, so by about {whole}." in str(
        caught.value
    )


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
    amount = f"{back_ms} ms" if back_ms < 10_000 else f"{back_ms // 1000} s"
    assert f"set back: row 3 is {amount} before the row above it. Cut" in why.message


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


@pytest.mark.parametrize("first_ms", [0, 7])
@pytest.mark.parametrize("length_ms", [65_400, 65_500, 2_147_480, 4_294_950])
def test_a_log_that_was_begun_anew_is_no_wrap(first_ms: int, length_ms: int) -> None:
    """It falls to its first time again, and too late for the next row of a counter."""
    once = np.arange(first_ms, length_ms - 60, 20) * MS
    times_ns = np.append(once, np.arange(first_ms, 3000, 20) * MS)
    assert unwrapped(times_ns, sampled=True)[1] == []


@pytest.mark.parametrize(
    ("wrap_ns", "silence_s"),
    [(2**32 * MS, 13), (2**32 * MS, 600), (2**31 * MS, 60), (2**32 * 1000, 13), (2**32 * 1000, 45)],
)
def test_events_may_be_silent_while_a_long_counter_wraps(wrap_ns: int, silence_s: int) -> None:
    true_ns = wrap_ns + np.array([-9, -5, -1, silence_s - 1, silence_s + 3]) * 1000 * MS
    assert (
        unwrapped(np.where(true_ns >= wrap_ns, true_ns - wrap_ns, true_ns))[0].tolist()
        == true_ns.tolist()
    )


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


@pytest.mark.parametrize("apart_ms", [2, 4, 8])
def test_two_pads_in_turn_without_a_column_for_them_are_refused(
    tmp_path: Path, apart_ms: int
) -> None:
    times_ms = [k // 2 * 16 + k % 2 * apart_ms for k in range(240)]
    hands = [np.sin(np.arange(120)[:, None] / 9 + np.arange(4) + pad) for pad in (0, 2)]
    both = np.stack(hands, axis=1).reshape(240, 4)
    names = ("left_stick_x", "left_stick_y", "right_stick_x", "right_stick_y")
    text = sampled(times_ms, **dict(zip(names, both.T, strict=True)))
    assert "two devices in turn" in refused(tmp_path, text).message
    assert len(read_log(tmp_path, text, 'ignore = ["device"]\n').track.times_ns) == 240


@pytest.mark.parametrize("names", [("button_A",), ("button_A", "left_stick_x")])
def test_a_button_tapped_at_half_the_rate_of_the_rows_is_no_second_pad(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    taps = [k % 2 for k in range(120)]
    log = read_log(tmp_path, sampled([k * 33 for k in range(120)], **dict.fromkeys(names, taps)))
    assert column(log, "button_A").tolist() == taps


# --- equal motion ----------------------------------------------------------------------------

DESKTOP = load_space("keyboard_mouse")


def motion(folder: Path, times_ms: list[float], dx: list[int], *, rows: bool) -> tuple[float, str]:
    """How far the mouse goes in all, and the notes, of a log with a row per sample or per event."""
    if rows:
        head = ",".join(("time_ms", *DESKTOP.names))
        zeros = dict.fromkeys(DESKTOP.names, "0")
        lines = [
            ",".join((repr(at), *(zeros | {"mouse_dx": str(far)}).values()))
            for at, far in zip(times_ms, dx, strict=True)
        ]
        text = "\n".join([head, *lines]) + "\n"
    else:
        text = events(*(f"{at!r},mouse_dx,{far}" for at, far in zip(times_ms, dx, strict=True)))
    log = read_log(folder, text, space=DESKTOP)
    return float(log.track.values[:, DESKTOP.index("mouse_dx")].sum()), " ".join(log.notes)


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize(
    ("rate", "tick_ms"), [(8000, 1), (1000, 15.625), (2000, 1), (3000, 1), (1000, 0.9)]
)
def test_equal_motion_within_a_tick_adds_up(
    tmp_path: Path, rate: int, tick_ms: float, rows: bool
) -> None:
    count = rate // 4
    times_ms = [int(k * 1000 / rate / tick_ms) * tick_ms for k in range(count)]
    dx = [1 if k % 7 else 2 for k in range(count)]
    assert motion(tmp_path, times_ms, dx, rows=rows)[0] == sum(dx)


@pytest.mark.parametrize("rows", [True, False])
@pytest.mark.parametrize("torn", [0, 1])
@pytest.mark.parametrize("step_ms", [1, 8, 40])
def test_of_a_log_that_holds_every_row_twice_one_of_each_counts(
    tmp_path: Path, step_ms: int, torn: int, rows: bool
) -> None:
    twice = sorted([*range(100), *range(100 - torn)])
    found, notes = motion(tmp_path, [k * step_ms for k in twice], [k % 5 for k in twice], rows=rows)
    assert found == sum(k % 5 for k in range(100))
    assert "duplicate rows dropped" in notes


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


@pytest.mark.parametrize(
    "steps_ms",
    [
        np.random.default_rng(1).choice([15.6, 31.2], 150, p=[0.7, 0.3]),
        10 + np.random.default_rng(2).exponential(6, 150),
        np.full(150, 16.0),
    ],
)
def test_sticks_that_tremble_in_every_row_are_not_held_over_a_hang(
    tmp_path: Path, steps_ms: NDArray[np.float64]
) -> None:
    steps_ms[60] = 1300
    times_ms = np.cumsum(steps_ms).round(3)
    sticks = np.random.default_rng(3).normal(0, 0.1, (4, 150)).round(4)
    names = ("left_stick_x", "left_stick_y", "right_stick_x", "right_stick_y")
    log = read_log(tmp_path, sampled(times_ms.tolist(), **dict(zip(names, sticks, strict=True))))
    assert log.sampled
    lost_ns = log.track.times_ns[np.isnan(column(log, "left_stick_x"))]
    assert len(lost_ns) == 1
    assert times_ms[59] < lost_ns[0] / MS < times_ms[59] + 32


@pytest.mark.parametrize(("every_ms", "silent_ms"), [(8, 450), (16, 260), (4, 300), (33, 600)])
def test_a_polled_log_that_goes_silent_for_many_rows_leaves_that_time_unknown(
    tmp_path: Path, every_ms: int, silent_ms: int
) -> None:
    """The pad may have been gone; a shorter silence is a late row."""
    for silence, lost in ((silent_ms, 1), (200, 0)):
        times_ms = [k * every_ms + (k >= 50) * silence for k in range(100)]
        stick = [0.5 if k // 20 % 2 else 0 for k in range(100)]
        log = read_log(tmp_path, sampled(times_ms, left_stick_x=stick))
        unknown = np.isnan(column(log, "left_stick_x"))
        assert np.count_nonzero(unknown) == lost
        assert not lost or log.track.times_ns[unknown].tolist() == [50 * every_ms * MS]
        assert lost == len([note for note in log.notes if "silences" in note])


def test_a_silence_is_held_where_the_metadata_says_so(tmp_path: Path) -> None:
    times_ms = [k * 8 + (k >= 50) * 450 for k in range(100)]
    log = read_log(tmp_path, sampled(times_ms, left_stick_x=[0.5] * 100), "hold = true\n")
    assert np.isfinite(column(log, "left_stick_x")).all()


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


@pytest.mark.parametrize(
    ("rate", "counts", "seconds"), [(30, 29, 3), (10, 9.93, 99), (60, 59.6, 30), (60, 60.4, 30)]
)
def test_a_counter_of_nearly_the_video_s_rate_is_another_counter(
    rate: int, counts: float, seconds: int
) -> None:
    """It differs by under 1 %, but the log lasts as long as the video, so the video's clock is sound."""
    shown_ns = (np.arange(rate * seconds) * 1000 * MS) // rate
    rows_ns = (np.arange(int(counts * seconds)) * 1000 * MS / counts).astype(np.int64)
    found = misfit(np.arange(len(rows_ns)), rows_ns, shown_ns, seconds * 1000 * MS)
    assert found is not None


@pytest.mark.parametrize(
    ("frames", "named", "stretch"),
    [(990, (0, 984), 1.0), (990, (6, 990), 1.0), (990, (0, 984), 1.05), (3500, (0, 3500), 1.004)],
)
def test_a_frame_column_that_starts_late_or_ends_early_fits(
    frames: int, named: tuple[int, int], stretch: float
) -> None:
    """As it does where the video took longer than its clock says."""
    shown_ns = np.arange(frames) * SIXTIETH
    numbers = np.arange(*named)
    rows_ns = (numbers * SIXTIETH * stretch).astype(np.int64)
    assert misfit(numbers, rows_ns, shown_ns, frames * SIXTIETH) is None


def test_a_frame_column_that_fits_as_little_as_the_clocks_is_refused() -> None:
    with pytest.raises(RefusedInput, match=r"0 to 90, the video has 180.*ignore"):
        misfit(np.arange(91), np.arange(91) * 5 * SIXTIETH, FRAMES_NS, 180 * SIXTIETH)
