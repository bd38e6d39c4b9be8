"""Actions in the vocabulary of Microsoft's WHAM: 11 bins per stick axis, 68 tokens.

The 16 numbers of an action (space `wham16`) have three forms:

    measured  buttons 0 or 1, stick axes -1..1 with +y up; a corpus stores this form
    binned    buttons 0 or 1, stick axes as bins 0..10; WHAM's own .npz files hold this form
    tokens    button i: 2 i + value, 0 to 23; stick j: 24 + 11 j + bin, 24 to 67

A bin includes its left edge and excludes its right edge. Negative and positive values follow the
same rule, so the bins are not mirror images at their edges: -0.5 is in bin 3 and 0.5 in bin 8. The
edges are float64, so a float32 0.95, which is a little smaller, is in bin 9.

Edges and tokens are those of the published model. It does not accept a stick value beyond the
outermost edges; here such a value is clamped and counted.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.errors import UsageError

Ids = NDArray[np.int64]
Measured = NDArray[np.float32]
Binned = NDArray[np.float32]
Numbers = NDArray[np.floating[Any]] | NDArray[np.integer[Any]] | NDArray[np.bool_]

ACTION_SPACE: Final = "wham16"
"""The name of the space that these actions are in."""
BUTTONS: Final = 12
STICK_AXES: Final = 4
ACTION_SIZE: Final = BUTTONS + STICK_AXES
STICK_BINS: Final = 11
ACTION_VOCAB: Final = 2 * BUTTONS + STICK_BINS * STICK_AXES

FARTHEST_STICK: Final = 1.05
"""The outer edge of the outermost bins, to both sides."""
_INNER_EDGES: Final = (-0.95, -0.75, -0.5, -0.25, -0.05, 0.05, 0.25, 0.5, 0.75, 0.95)
_EDGES: Final = np.array([-FARTHEST_STICK, *_INNER_EDGES, FARTHEST_STICK])
_MIDDLES: Final = np.array([-1, -0.85, -0.625, -0.375, -0.15, 0, 0.15, 0.375, 0.625, 0.85, 1])
_FIRST_TOKEN: Final[Ids] = np.concatenate(
    [2 * np.arange(BUTTONS), 2 * BUTTONS + STICK_BINS * np.arange(STICK_AXES)]
)
_CHOICES: Final[Ids] = np.repeat([2, STICK_BINS], [BUTTONS, STICK_AXES])
_BUTTON_CHOICES: Final[Ids] = np.array(2)
_BIN_CHOICES: Final[Ids] = np.array(STICK_BINS)
_FROM_ZERO: Final[Ids] = np.array(0)


class NoTokenError(UsageError, ValueError):
    """A number without a bin or token, such as a NaN, a button of 0.7, bin 11 or token 68."""


def stick_bins(values: Numbers) -> tuple[Ids, int]:
    """The bin of each stick value.

    Args:
        values: any shape, compared as float64. Bin k holds edge[k] <= value < edge[k + 1] with the
            edges -1.05 -0.95 -0.75 -0.5 -0.25 -0.05 0.05 0.25 0.5 0.75 0.95 1.05.

    Returns:
        The bins, int64 of the same shape in 0..10, and the count of values out of range (below
        -1.05, or 1.05 and above), which are in the outermost bins.

    Raises:
        NoTokenError: a value is NaN or infinite. That is a missing action, not a direction.
    """
    values = np.asarray(values, np.float64)
    if not np.isfinite(values).all():
        raise NoTokenError(
            "a stick value is NaN or infinite: a missing action has no bin, leave it out"
        )
    bins = np.searchsorted(_EDGES, values, side="right").astype(np.int64) - 1
    return np.clip(bins, 0, STICK_BINS - 1), int(_outside(values).sum())


def sticks_clamped(actions: Numbers) -> Ids:
    """How many stick values of each measured action are out of range, int64 [...].

    Args:
        actions: [..., 16] in `wham16`.
    """
    counts: Ids = _outside(np.asarray(actions, np.float64)[..., BUTTONS:]).sum(axis=-1)
    return counts


def _outside(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    outside: NDArray[np.bool_] = (values < _EDGES[0]) | (values >= _EDGES[-1])
    return outside


def stick_middles(bins: Numbers) -> Measured:
    """The middle value of each bin.

    `stick_bins` of a middle gives the same bin again.

    Args:
        bins: whole numbers 0..10, any shape.

    Returns:
        float32 of the same shape.

    Raises:
        NoTokenError: a bin is not a whole number from 0 to 10.
    """
    middles: Measured = _MIDDLES[_whole(bins, _BIN_CHOICES, "stick bin")].astype(np.float32)
    return middles


def bins_from_measured(actions: Numbers) -> tuple[Binned, int]:
    """Binned actions of measured actions.

    Args:
        actions: [..., 16] in `wham16`.

    Returns:
        float32 [..., 16], and the count of stick values that were out of range and clamped.

    Raises:
        NoTokenError: a button is neither 0 nor 1, or a value is NaN or infinite.
    """
    actions = _sixteen(actions)
    buttons = _whole(actions[..., :BUTTONS], _BUTTON_CHOICES, "button")
    bins, clamped = stick_bins(actions[..., BUTTONS:])
    return np.concatenate([buttons, bins], axis=-1).astype(np.float32), clamped


def measured_from_bins(actions: Numbers) -> Measured:
    """Measured actions of binned actions: each stick at the middle of its bin.

    Args:
        actions: [..., 16], buttons 0 or 1, sticks 0..10.

    Returns:
        float32 [..., 16] in `wham16`.

    Raises:
        NoTokenError: a value is not a whole number or not in its range.
    """
    whole = _whole(_sixteen(actions), _CHOICES, "binned action")
    measured = whole.astype(np.float32)
    measured[..., BUTTONS:] = stick_middles(whole[..., BUTTONS:])
    return measured


def encode_bins(actions: Numbers) -> Ids:
    """Ids of binned actions.

    Args:
        actions: [..., 16], buttons 0 or 1, sticks 0..10.

    Returns:
        int64 [..., 16] in 0..67. In the joint vocabulary they follow the image tokens: add V.

    Raises:
        NoTokenError: a value is not a whole number or not in its range.
    """
    return _whole(_sixteen(actions), _CHOICES, "binned action") + _FIRST_TOKEN


def decode_bins(tokens: Numbers) -> Binned:
    """Binned actions of tokens, the form that WHAM itself returns.

    Args:
        tokens: [..., 16] in 0..67.

    Returns:
        float32 [..., 16], buttons 0 or 1, sticks 0..10.

    Raises:
        NoTokenError: a token is not one of its position.
    """
    binned = _whole(_sixteen(tokens), _CHOICES, "action token", _FIRST_TOKEN) - _FIRST_TOKEN
    return binned.astype(np.float32)


def encode_actions(actions: Numbers) -> tuple[Ids, int]:
    """Ids of measured actions.

    Args:
        actions: [..., 16] in `wham16`.

    Returns:
        int64 [..., 16] in 0..67, and the count of stick values that were out of range and clamped.

    Raises:
        NoTokenError: a button is neither 0 nor 1, or a value is NaN or infinite.
    """
    binned, clamped = bins_from_measured(actions)
    return encode_bins(binned), clamped


def decode_actions(tokens: Numbers) -> Measured:
    """Measured actions of tokens: each stick at the middle of its bin.

    Args:
        tokens: [..., 16] in 0..67.

    Returns:
        float32 [..., 16] in `wham16`.

    Raises:
        NoTokenError: a token is not one of its position.
    """
    return measured_from_bins(decode_bins(tokens))


def token_ranges(image_vocab: int, n_image_tokens: int, *, without_first_zero: bool = True) -> Ids:
    """The token ids that a model may generate at each position of a step.

    Image tokens have the ids 0..V-1 and action tokens follow, so the joint vocabulary is V + 68.

    Args:
        image_vocab: V, the size of the image tokenizer's codebook.
        n_image_tokens: N image tokens per step, before its 16 action tokens.
        without_first_zero: exclude id 0 at the first position, as the published model does when it
            generates. Encoded frames may still hold 0 there.

    Returns:
        int64 [N + 16, 2], lowest and highest id, both included.

    Raises:
        UsageError: V is below 2 or N below 1.
    """
    if image_vocab < 2 or n_image_tokens < 1:
        raise UsageError(
            f"a codebook of {image_vocab} and {n_image_tokens} tokens per frame: expected at least "
            "2 and 1"
        )
    image = np.tile(np.array([0, image_vocab - 1], np.int64), (n_image_tokens, 1))
    image[0, 0] = int(without_first_zero)
    first = image_vocab + _FIRST_TOKEN
    return np.concatenate([image, np.stack([first, first + _CHOICES - 1], axis=1)])


def _sixteen(values: Numbers) -> NDArray[np.float64]:
    values = np.asarray(values, np.float64)
    if values.ndim == 0 or values.shape[-1] != ACTION_SIZE:
        raise NoTokenError(f"actions of shape {values.shape}: expected [..., {ACTION_SIZE}]")
    return values


def _whole(values: Numbers, choices: Ids, what: str, first: Ids = _FROM_ZERO) -> Ids:
    """`values` as int64, after a check that each is a whole number in [first, first + choices)."""
    values = np.asarray(values, np.float64)
    good = (values >= first) & (values < first + choices) & (values == np.floor(values))
    if not good.all():
        place = tuple(int(i) for i in np.argwhere(~good)[0])
        lowest = int(np.broadcast_to(first, values.shape)[place])
        highest = lowest + int(np.broadcast_to(choices, values.shape)[place]) - 1
        raise NoTokenError(
            f"{what} at {list(place)} is {values[place]:g}: "
            f"expected a whole number from {lowest} to {highest}"
        )
    return values.astype(np.int64)
