"""The shift of the picture is measured, also beside a status bar that stands still."""

from __future__ import annotations

import numpy as np
import pytest

from wham_data.pipelines.curate.motion import SIZE, Motion, motion_of
from wham_data.schemas.recording import Frames


def moving_texture(rights: list[int], downs: list[int], *, bar: bool = False) -> Frames:
    """Frames of a texture that moves so many pixels between each two."""
    dice = np.random.default_rng(0)
    width, height = SIZE
    coarse = dice.integers(0, 255, (height // 6, width // 8, 1), np.uint8)
    texture = np.repeat(np.repeat(np.repeat(coarse, 6, 0), 8, 1), 3, 2)
    frames = [np.roll(texture, (d, r), (0, 1)) for r, d in zip(rights, downs, strict=True)]
    if bar:
        for frame in frames:
            frame[-25:] = texture[-25:]
            frame[30:60, 60:90] = texture[30:60, 60:90]
    return np.stack(frames)


def test_a_shift_to_the_right_is_positive() -> None:
    motion = motion_of([moving_texture([0, 3, 6, 4], [0, 0, 0, 0])])

    assert motion.right == pytest.approx([3, 3, -2], abs=0.2)


def test_a_shift_down_is_positive() -> None:
    motion = motion_of([moving_texture([0, 0, 0], [0, 2, 7])])

    assert motion.down == pytest.approx([2, 5], abs=0.2)


def test_what_stands_still_on_the_screen_does_not_hide_the_shift() -> None:
    motion = motion_of([moving_texture([0, 3, 6, 4], [0, 0, 0, 0], bar=True)])

    assert motion.right == pytest.approx([3, 3, -2], abs=0.3)


def test_a_still_picture_has_no_shift_and_no_certainty() -> None:
    motion = motion_of([moving_texture([2, 2, 2], [0, 0, 0])])

    assert not motion.right.any()
    assert not motion.sure.any()
    assert not motion.change.any()


def test_batches_make_no_difference() -> None:
    frames = moving_texture([0, 3, 6, 4], [0, 1, 0, 0])
    one, many = motion_of([frames]), motion_of([frames[:1], frames[1:3], frames[3:]])

    for name in Motion.__slots__:
        assert np.allclose(getattr(one, name), getattr(many, name), atol=1e-3)
