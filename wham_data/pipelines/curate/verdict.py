"""What an audit says of a recording: the word for what was measured, and the rules that choose it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np

from wham_data.pipelines.curate.controls import DOWN, RIGHT, Signals
from wham_data.pipelines.curate.lag import Channel, Fit, Spans, channels_of, fit, slopes_at
from wham_data.pipelines.curate.motion import Motion
from wham_data.schemas.actions import ActionSpace, Dimension

Verdict = Literal[
    "ok", "late", "early", "drifting", "inverted", "swapped", "dead", "unrelated", "unmeasurable"
]
METHOD_VERSION: Final = 1
SURE: Final = 1e-3
"""Chance below which a log belongs to its picture."""
SHORTEST_S: Final = 6.0
LEAST_EXPLAINED: Final = 0.08
WIDEST_MS: Final = 120.0
"""The widest interval of a lag that still counts as measured."""
TOLERATED_MS: Final = 35.0
"""A lag up to this is no fault: display and encoder take as long, and a 10 Hz step is 100 ms."""
TOLERATED_IN_GROUP_MS: Final = 25.0
SMALLEST_GROUP: Final = 5
STEADY_MS: Final = 20.0
"""Median distance from their median up to which the lags of a group are those of one set-up."""
DRIFT_MS: Final = 25.0
"""A drift is a fault when it moves the log by this within the recording."""
CAUTION: Final = 2.0
"""The interval of the drift is widened by this before one is claimed."""
CLEAR: Final = 5.0
"""Errors that a slope must differ from 0 by, to have a sign."""
UNRELATED_S: Final = 20.0
LIVELY: Final = 0.15
"""Share of the spans in which the view must turn to say that a log is another recording's."""


@dataclass(frozen=True, slots=True)
class ControlAudit:
    """What a control does to the picture.

    sign  1: the content moves right (or down) as it grows; -1: left (or up); 0: not clear
    dead  it never changes in the log
    """

    sign: int
    dead: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFit:
    """What was measured of a recording. Times are ms; None: not measurable.

    offset_ms    the lag at the video's time 0, to be written with `drift_ppm`
    tolerated_ms the lag that is no fault, by the frames' interval
    explained    R^2 of the picture's motion by the controls, for which `correlation` is the root
    turned       the horizontal camera control moves the picture the wrong way round; its name
    crossed      the two controls that stand for each other
    lively       share of spans in which the whole view shifts
    """

    lag_ms: float | None = None
    lag_low_ms: float | None = None
    lag_high_ms: float | None = None
    drift_ppm: float | None = None
    drift_low_ppm: float | None = None
    drift_high_ppm: float | None = None
    offset_ms: float | None = None
    drifts: bool = False
    tolerated_ms: float = TOLERATED_MS
    correlation: float = 0.0
    p_value: float = 1.0
    controls: Mapping[str, ControlAudit] = field(default_factory=dict)
    method: str = "none"
    seconds: float = 0.0
    turned: tuple[str, ...] = ()
    crossed: tuple[str, ...] = ()
    lively: float = 0.0
    fit: Fit | None = None


def measure(
    motion: Motion, spans: Spans, signals: Signals, space: ActionSpace, zero_s: float
) -> ClockFit:
    """Measure a recording.

    Args:
        motion: of the N spans between its frames.
        spans: their times, s from the first row of the log on.
        signals: the controls that move.
        space: all controls of the log.
        zero_s: time 0 of the recording, on the clock of the spans.
    """
    seconds = float((spans.ends - spans.starts).sum())
    dead = {name: ControlAudit(0, name in signals.dead) for name in space.names}
    shifts = np.abs(motion.right) > 1
    nothing = ClockFit(controls=dead, seconds=seconds, lively=float(shifts.mean()))
    if seconds < SHORTEST_S or not signals.dimensions or signals.length_s < SHORTEST_S:
        return nothing
    camera = any(turns(each) for each in signals.dimensions)
    found = fit(signals, spans, channels_of(motion, spans, camera=camera))
    method = "camera" if camera else "general"
    measured = replace(
        nothing,
        method=method,
        p_value=found.p_value,
        correlation=float(np.sqrt(max(found.explained, 0.0))),
        fit=found,
    )
    return _claimed(measured, found, motion, spans, signals, zero_s)


def turns(dimension: Dimension) -> bool:
    """Whether a control turns the view to the side: a mouse or the right stick, not the left one."""
    left_stick = "left_x" in dimension.name.lower()
    return dimension.kind in ("axis", "delta") and dimension.sign in RIGHT and not left_stick


def _claimed(
    measured: ClockFit,
    found: Fit,
    motion: Motion,
    spans: Spans,
    signals: Signals,
    zero_s: float,
) -> ClockFit:
    """The measurement with its lag, if that is sure enough to be claimed."""
    interval_s = float(np.median(spans.ends - spans.starts))
    slack_ms = interval_s * 500
    low, high = found.lag_low_s * 1e3 - slack_ms, found.lag_high_s * 1e3 + slack_ms
    if (
        found.p_value > SURE
        or found.explained < LEAST_EXPLAINED
        or high - low > WIDEST_MS + 2 * slack_ms
    ):
        return measured
    slow = found.drift - CAUTION * (found.drift - found.drift_low)
    fast = found.drift + CAUTION * (found.drift_high - found.drift)
    drifts = slow > 0 or fast < 0
    offset_ms = (found.lag_s + (zero_s - found.middle_s) * found.drift * drifts) * 1e3
    lags_s = found.lag_s + found.drift * drifts * (spans.middles - found.middle_s)
    signs, turned, crossed = _signs(motion, spans, signals, lags_s)
    at_zero = offset_ms - found.lag_s * 1e3
    return replace(
        measured,
        lag_ms=offset_ms,
        lag_low_ms=low + at_zero,
        lag_high_ms=high + at_zero,
        drift_ppm=found.drift * 1e6,
        drift_low_ppm=slow * 1e6,
        drift_high_ppm=fast * 1e6,
        offset_ms=offset_ms,
        drifts=drifts,
        tolerated_ms=max(TOLERATED_MS, 1e3 * interval_s),
        controls={
            **measured.controls,
            **{name: ControlAudit(sign, False) for name, sign in signs.items()},
        },
        turned=turned,
        crossed=crossed,
    )


def _signs(
    motion: Motion, spans: Spans, signals: Signals, lags_s: np.ndarray
) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
    """The sign of each control, those turned round, and those that stand for each other."""
    right, down, wider = channels_of(motion, spans, camera=False)[:3]
    clear = {
        channel.name: slopes_at(signals, spans, _at_once(channel), lags_s)[1]
        for channel in (right, down, wider)
    }
    signs: dict[str, int] = {}
    for at, each in enumerate(signals.dimensions):
        channel = "right" if each.sign in RIGHT else "down" if each.sign in DOWN else None
        values = [clear[channel][at]] if channel else [clear[c][at] for c in clear]
        value = max(values, key=abs)
        signs[each.name] = int(np.sign(value)) * int(abs(value) > CLEAR)
    turned = tuple(
        each.name
        for each in signals.dimensions
        if turns(each) and signs[each.name] == (1 if each.sign == RIGHT[0] else -1)
    )
    return signs, turned, _crossed(signals, clear["right"])


def _at_once(channel: Channel) -> Channel:
    return replace(channel, carries=False)


def _crossed(signals: Signals, clear: np.ndarray) -> tuple[str, ...]:
    """Two controls of the camera that stand for each other: the vertical one turns the view."""
    across = [i for i, d in enumerate(signals.dimensions) if turns(d)]
    upright = [
        i
        for i, d in enumerate(signals.dimensions)
        if d.kind in ("axis", "delta")
        and d.sign in DOWN
        and "left_y" not in d.name.lower()
        and not d.name.startswith("wheel")
    ]
    best = max((abs(clear[i]) for i in across), default=0.0)
    for i in upright:
        if abs(clear[i]) > 2 * CLEAR and abs(clear[i]) > 2 * best:
            return tuple(signals.dimensions[j].name for j in [*across[:1], i])
    return ()


def judge(measured: ClockFit, length_s: float, group: Sequence[float] = ()) -> tuple[Verdict, str]:
    """The verdict, and why in a few words.

    Args:
        measured: of the recording.
        length_s: how long the whole recording is.
        group: the lags in ms of the other recordings of its game and player.
    """
    if measured.lag_ms is None:
        return _without_lag(measured)
    if measured.crossed:
        return "swapped", f"the view turns with {measured.crossed[-1]}"
    if measured.turned:
        return "inverted", f"{measured.turned[0]} moves the picture the wrong way"
    drift_ms = abs(measured.drift_ppm or 0.0) * length_s * 1e-3
    if measured.drifts and drift_ms > DRIFT_MS:
        return "drifting", f"{measured.drift_ppm:+.0f} ppm, {drift_ms:.0f} ms from start to end"
    return _by_lag(measured, group)


def _without_lag(measured: ClockFit) -> tuple[Verdict, str]:
    if measured.controls and all(each.dead for each in measured.controls.values()):
        return "dead", "no control ever changes"
    tried = measured.method == "camera" and measured.seconds >= UNRELATED_S
    if tried and measured.lively > LIVELY and measured.p_value > 0.05:
        return "unrelated", "the view turns, but not when the hands turn it"
    return "unmeasurable", "the hands explain too little of what the picture does"


def _by_lag(measured: ClockFit, group: Sequence[float]) -> tuple[Verdict, str]:
    lag = measured.lag_ms
    assert lag is not None
    if abs(lag) > measured.tolerated_ms:
        return ("late", f"{lag:+.0f} ms") if lag > 0 else ("early", f"{lag:+.0f} ms")
    if len(group) >= SMALLEST_GROUP:
        usual = float(np.median(group))
        steady = float(np.median(np.abs(np.array(group) - usual))) <= STEADY_MS
        if steady and abs(lag - usual) > max(TOLERATED_IN_GROUP_MS, measured.tolerated_ms * 0.75):
            word: Verdict = "late" if lag > usual else "early"
            return word, f"{lag:+.0f} ms, where {usual:+.0f} ms is usual"
    return "ok", ""
