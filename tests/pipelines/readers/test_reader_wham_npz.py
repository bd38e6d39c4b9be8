"""WHAM's own .npz files: frames bit for bit, actions to the bin, and nothing unpickled."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib import format as npy
from numpy.typing import NDArray

from wham_data.pipelines.align import place_steps, resample_actions
from wham_data.pipelines.readers import discover, open_recording
from wham_data.pipelines.readers.kit.resize import resize
from wham_data.schemas.errors import Reason, RefusedInput
from wham_data.schemas.recording import Fit
from wham_data.schemas.wham_tokens import bins_from_measured

MATCH = "FB17BA0791499DB908433B80F37C5FBC89B870084B"
NAME = f"{MATCH}_1011Movie.pb_step-33_tick-10747_data.npz"

Arrays = dict[str, NDArray[Any]]


def episode(n: int = 12) -> Arrays:
    rng = np.random.default_rng(n)
    buttons, sticks = rng.integers(0, 2, (n, 12)), rng.integers(0, 11, (n, 4))
    return {
        "images": rng.integers(0, 256, (n, 3, 180, 300), np.uint8),
        "actions": np.concatenate([buttons, sticks], axis=1).astype(np.float32),
        "states": rng.normal(size=(n, 56)).astype(np.float32),
    }


@pytest.fixture(scope="module")
def arrays() -> Arrays:
    return episode()


def write(path: Path, arrays: Mapping[str, NDArray[Any]], *, deflated: bool = False) -> Path:
    with path.open("wb") as file:
        (np.savez_compressed if deflated else np.savez)(file, **arrays)
    return path


def refusal(path: Path) -> RefusedInput:
    (recording,) = discover([path]).recordings

    def read() -> None:
        opened = open_recording(recording)
        list(opened.frames(np.arange(3), (300, 180), fit="stretch", batch=8, threads=1))

    with pytest.raises(RefusedInput) as caught:
        read()
    return caught.value


@pytest.mark.parametrize("deflated", [False, True])
@pytest.mark.parametrize("rate", [Fraction(10), None])
def test_frames_and_actions_come_out_as_they_are_in_the_file(
    tmp_path: Path, arrays: Arrays, deflated: bool, rate: Fraction | None
) -> None:
    write(tmp_path / NAME, arrays, deflated=deflated)
    (found,) = discover([tmp_path]).recordings
    recording = open_recording(found)
    track = recording.actions
    assert track is not None
    span = int(track.times_ns[0]), track.end_ns
    (plan,) = place_steps(recording.frame_times_ns, recording.frame_end_ns, span, rate)
    batches = recording.frames(plan.picks, (300, 180), fit="stretch", batch=5, threads=1)
    assert np.array_equal(np.concatenate(list(batches)), arrays["images"].transpose(0, 2, 3, 1))
    steps = resample_actions(track, plan.edges_ns)
    assert steps.missing == 0
    assert np.array_equal(bins_from_measured(steps.values)[0], arrays["actions"])


def test_column_major_arrays_are_read_like_any_other(tmp_path: Path, arrays: Arrays) -> None:
    turned = {name: np.asfortranarray(values) for name, values in arrays.items()}
    (found,) = discover([write(tmp_path / "a.npz", turned)]).recordings
    opened = open_recording(found)

    batches = opened.frames(np.arange(12), (300, 180), fit="stretch", batch=5, threads=1)
    assert np.array_equal(np.concatenate(list(batches)), arrays["images"].transpose(0, 2, 3, 1))
    assert opened.actions is not None
    assert np.array_equal(bins_from_measured(opened.actions.values)[0], arrays["actions"])
    assert np.array_equal(opened.states, arrays["states"])


def test_frames_may_be_skipped_and_repeated(tmp_path: Path, arrays: Arrays) -> None:
    (found,) = discover([write(tmp_path / "a.npz", arrays, deflated=True)]).recordings
    picks = np.array([2, 2, 7, 11])
    batches = open_recording(found).frames(picks, (300, 180), fit="stretch", batch=3, threads=1)
    assert np.array_equal(
        np.concatenate(list(batches)), arrays["images"][picks].transpose(0, 2, 3, 1)
    )


def test_the_name_tells_match_and_player_and_the_companion_is_no_recording(
    tmp_path: Path, arrays: Arrays
) -> None:
    write(tmp_path / NAME, arrays)
    (tmp_path / NAME.replace("_data.npz", "_video.mp4")).write_bytes(b"\0\0\0\x18ftypmp42")
    found = discover([tmp_path])
    (recording,) = found.recordings
    assert recording.format == "wham-npz"
    assert recording.provenance.match == MATCH
    assert recording.provenance.player == f"{MATCH}_1011"
    assert recording.files == (tmp_path / NAME,)
    assert (found.refused, found.ignored) == ((), ())


def test_it_is_recognised_by_content_under_any_name(tmp_path: Path, arrays: Arrays) -> None:
    write(tmp_path / "episode.zip", arrays)
    write(tmp_path / "other.npz", {"x": np.zeros(3)})
    found = discover([tmp_path])
    assert [(r.path.name, r.format) for r in found.recordings] == [("episode.zip", "wham-npz")]
    assert [path.name for path in found.ignored] == ["other.npz"]


def test_an_action_that_is_not_finite_is_not_known(tmp_path: Path) -> None:
    broken = episode(150)
    broken = {"images": broken["images"], "actions": broken["actions"]}
    broken["actions"][7, 3] = np.nan
    (found,) = discover([write(tmp_path / "a.npz", broken)]).recordings
    track = open_recording(found).actions
    assert track is not None
    assert np.flatnonzero(np.isnan(track.values).all(axis=1)).tolist() == [7]


def changed(arrays: Arrays, **put: NDArray[Any]) -> Arrays:
    return {**arrays, **put}


@pytest.mark.parametrize(
    ("put", "reason"),
    [
        ({"images": np.zeros((12, 180, 300, 3), np.uint8)}, Reason.NOT_A_VIDEO),
        ({"images": np.zeros((12, 3, 180, 300), np.float32)}, Reason.NOT_A_VIDEO),
        ({"images": np.zeros((0, 3, 180, 300), np.uint8)}, Reason.NO_FRAMES),
        ({"actions": np.zeros((11, 16), np.float32)}, Reason.LOG_TYPE),
        ({"actions": np.zeros((12, 15), np.float32)}, Reason.LOG_COLUMN),
        ({"actions": np.full((12, 16), 11, np.float32)}, Reason.LOG_RANGE),
        ({"actions": np.full((12, 16), 0.5, np.float32)}, Reason.LOG_RANGE),
        ({"actions": np.full((12, 16), np.nan, np.float32)}, Reason.LOG_NOT_FINITE),
        ({"actions": np.full((12, 16), "left")}, Reason.LOG_TYPE),
    ],
)
def test_arrays_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: Arrays, put: Arrays, reason: Reason
) -> None:
    assert refusal(write(tmp_path / "a.npz", changed(arrays, **put))).reason is reason


@pytest.mark.parametrize("member", ["images", "actions"])
def test_pickled_objects_are_never_loaded(tmp_path: Path, arrays: Arrays, member: str) -> None:
    marker = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(marker),)

    objects = np.array([Payload()], dtype=object)
    path = write(tmp_path / "a.npz", changed(arrays, **{member: objects}))
    assert refusal(path).reason is Reason.PICKLED_OBJECTS
    assert not marker.exists()


def test_an_array_that_claims_more_than_the_file_holds_is_refused(
    tmp_path: Path, arrays: Arrays
) -> None:
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (50_000_000, 3, 180, 300)}
    npy.write_array_header_1_0(header, claim)
    path = write(tmp_path / "a.npz", {"actions": arrays["actions"]})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images.npy", header.getvalue() + bytes(100))
    assert refusal(path).reason is Reason.TRUNCATED


def test_a_flipped_bit_is_noticed(tmp_path: Path, arrays: Arrays) -> None:
    path = write(tmp_path / "a.npz", arrays)
    data = bytearray(path.read_bytes())
    data[5 * 162_000] ^= 1
    path.write_bytes(data)
    assert refusal(path).reason is Reason.ARCHIVE_CORRUPT


def test_a_file_cut_short_is_no_recording(tmp_path: Path, arrays: Arrays) -> None:
    path = write(tmp_path / "a.npz", arrays)
    path.write_bytes(path.read_bytes()[:-1000])
    found = discover([tmp_path])
    assert found.recordings == ()
    ((_, why),) = found.refused
    assert why.reason is Reason.TRUNCATED


def test_a_zip_file_of_thousands_of_members_is_not_parsed(tmp_path: Path) -> None:
    path = tmp_path / "many.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(9000):
            archive.writestr(f"{number}.npy", b"")
    found = discover([tmp_path])
    assert found.recordings == ()
    ((_, why),) = found.refused
    assert why.reason is Reason.ARCHIVE_UNSAFE


# --- other sizes -----------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12), st.integers(1, 12))
def test_resizing_rounds_the_mean_of_the_area_covered(h: int, w: int, H: int, W: int) -> None:  # noqa: N803
    frame = np.random.default_rng(h * w).integers(0, 256, (1, h, w, 3), np.uint8)
    fine = frame.repeat(H, axis=1).repeat(W, axis=2).astype(np.float64)
    mean = fine.reshape(1, H, h, W, w, 3).mean(axis=(2, 4))
    np.testing.assert_array_equal(resize(frame, (W, H), "stretch"), np.rint(mean))


@pytest.mark.parametrize(("fit", "black"), [("letterbox", True), ("crop", False)])
def test_letterbox_and_crop_keep_the_aspect(fit: Fit, black: bool) -> None:
    white = np.full((1, 180, 300, 3), 255, np.uint8)
    square = resize(white, (64, 64), fit)
    assert square.shape == (1, 64, 64, 3)
    assert (square[0, 0, 0, 0] == 0) == black
    assert square[0, 32, 32, 0] == 255
