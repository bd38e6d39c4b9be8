"""A d-pad that a log gives as one number: which way it is pushed.

Four conventions are in use, and they contradict one another (2 is right or right-down, 8 is left or
rest), so the values have to tell which it is, or somebody has to.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from wham_data.schemas.errors import Reason, RefusedInput

HatForm = Literal["eighths", "bits", "degrees", "hundredths"]
"""eighths     0 up, 1 up and right, ... 7 up and left; rest is 8, 15 or -1 (HID, evdev viewers)
bits        1 up, 2 right, 4 down, 8 left, added; rest is 0 (SDL)
degrees     0 up, 90 right, 180 down, 270 left; rest is -1
hundredths  of a degree, 9000 right; rest is 65535, 4294967295 or -1 (DirectInput, winmm)"""
HAT_FORMS: Final[tuple[HatForm, ...]] = get_args(HatForm)
DIRECTIONS: Final = ("up", "right", "down", "left")

_WAYS: Final = ("up", "up right", "right", "down right", "down", "down left", "left", "up left")
_BITS: Final = (1, 3, 2, 6, 4, 12, 8, 9)
_RESTS: Final[dict[HatForm, tuple[int, ...]]] = {
    "eighths": (-1, 8, 15),
    "bits": (0,),
    "degrees": (-1,),
    "hundredths": (-1, 65535, 4294967295),
}
_VALUES: Final[dict[HatForm, tuple[int, ...]]] = {
    "eighths": tuple(range(8)),
    "bits": _BITS,
    "degrees": tuple(range(0, 360, 45)),
    "hundredths": tuple(range(0, 36000, 4500)),
}
MOSTLY: Final = 0.5


def hat_form(values: NDArray[np.float64]) -> HatForm | None:
    """The convention of a hat's values; None where several fit.

    Several may fit as numbers. Then the one that rests most counts, if it rests half of the time.

    Args:
        values: float64 [N], NaN where not known.

    Raises:
        RefusedInput: LOG_RANGE, none fits.
    """
    known = values[np.isfinite(values)]
    distinct = set(known.tolist())
    fits = [form for form in HAT_FORMS if distinct <= {*_VALUES[form], *_RESTS[form]}]
    if not fits:
        raise _no_hat(distinct)
    if len(fits) == 1:
        return fits[0]
    if not len(known):
        return "bits"
    resting = {form: float(np.isin(known, _RESTS[form]).mean()) for form in fits}
    mostly = [form for form in fits if resting[form] >= MOSTLY]
    if mostly and (len(mostly) == 1 or distinct <= {*_RESTS[mostly[0]]}):
        return mostly[0]  # never pushed in any of them: they are one
    return None


def hat_buttons(values: NDArray[np.float64], form: HatForm) -> NDArray[np.float64]:
    """Which of the four directions are held.

    Args:
        values: float64 [N], NaN where not known.
        form: the convention.

    Returns:
        float64 [N, 4] in the order of DIRECTIONS: 0 or 1, NaN where not known.

    Raises:
        RefusedInput: LOG_RANGE, a value that the convention does not know.
    """
    known = np.isfinite(values)
    rests = np.isin(values, _RESTS[form])
    held = np.where(known[:, None], np.zeros((len(values), len(DIRECTIONS))), np.nan)
    seen = ~known | rests
    for value, way in zip(_VALUES[form], _WAYS, strict=True):
        here = values == value
        seen |= here
        held[here] = [direction in way.split() for direction in DIRECTIONS]
    if not seen.all():
        raise _no_hat({float(values[int(np.flatnonzero(~seen)[0])])}, form)
    return held


def _no_hat(values: set[float], form: HatForm | None = None) -> RefusedInput:
    shown = ", ".join(f"{value:g}" for value in sorted(values)[:8])
    which = f"in {form}" if form else f"in any of {', '.join(HAT_FORMS)}"
    return RefusedInput(Reason.LOG_RANGE, f"value out of range: {shown} is no way of a hat {which}")
