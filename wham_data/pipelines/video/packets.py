"""From the packets of a video to its frames' times, and to the packets that picked frames need.

Pure functions of arrays: nothing is opened or decoded here.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from wham_data.pipelines.video.bitstream import LAYER_SHIFT, Picture
from wham_data.schemas.clock import SECOND_NS, Index, Nanos
from wham_data.schemas.errors import Reason, RefusedInput

MISSING = np.iinfo(np.int64).min
"""Stands for a time stamp that the container does not give."""

NOT_SHOWN = -1

# No codec we accept shows a picture more than 16 places before or after its place in the stream.
REORDER = 16


@dataclass(frozen=True, slots=True)
class PacketTable:
    """The packets of one video stream in the order of the file (which is the order of decoding).

    pts       int64  [N]  presentation time in units of the time base, or MISSING
    dts       int64  [N]  decoding time, or MISSING
    duration  int64  [N]  0 where unknown
    size      int64  [N]  bytes
    picture   int32  [N]  Picture flags, with the temporal layer above LAYER_SHIFT
    key       bool   [N]  the container or the parser calls it a key frame
    discard   bool   [N]  an edit list hides it
    corrupt   bool   [N]  the demuxer found it damaged
    """

    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    duration: NDArray[np.int64]
    size: NDArray[np.int64]
    picture: NDArray[np.int32]
    key: NDArray[np.bool_]
    discard: NDArray[np.bool_]
    corrupt: NDArray[np.bool_]

    def has(self, flag: Picture) -> NDArray[np.bool_]:
        """Which packets carry `flag`."""
        carried: NDArray[np.bool_] = (self.picture & int(flag)) != 0
        return carried

    def disposable(self) -> NDArray[np.bool_]:
        """Which packets nothing else needs; of a layered stream, only some of the top layer."""
        layer = self.picture >> LAYER_SHIFT
        top = layer.max(initial=0)
        disposable: NDArray[np.bool_] = self.has(Picture.DISPOSABLE) & (layer == top)
        return disposable


@dataclass(frozen=True, slots=True)
class Presentation:
    """When each packet's picture is shown.

    times_ns      int64 [M]  strictly increasing
    rank          int64 [N]  position in times_ns, or NOT_SHOWN
    first         the packet at which decoding starts
    duplicates    pictures dropped because another one has the same time
    by_order      the container gives no presentation times: the n-th picture decoded is the n-th shown
    lost_ns       time before the first picture that can be decoded
    filled        time stamps made up from decoding times
    """

    times_ns: Nanos
    rank: Index
    first: int
    duplicates: int
    by_order: bool
    lost_ns: int
    filled: int


def present(
    table: PacketTable, time_base: Fraction, *, reorders: bool, decoding_times_only: bool
) -> Presentation:
    """Work out which picture is shown when.

    Args:
        table: the packets, N > 0.
        time_base: seconds per unit of the time stamps.
        reorders: the codec may show pictures in another order than it codes them.
        decoding_times_only: the container (AVI) stores no presentation times.

    Raises:
        RefusedInput: no key frame, or time stamps that are missing, all alike or run backward.
    """
    n = len(table.pts)
    keys = np.flatnonzero(table.key | table.has(Picture.RESTART))
    if not len(keys):
        message = f"no key frame: none of the {n} frames can be decoded"
        raise RefusedInput(Reason.NO_FRAMES, message, frames_expected=n, frames_decoded=0)
    first = int(keys[0])
    shown = ~table.discard & ~table.has(Picture.HIDDEN)
    shown[:first] = False
    _check_decoding_order(table.dts)

    pts = table.pts.copy()
    absent = shown & (pts == MISSING)
    filled = int(absent.sum())
    by_order = False
    if filled or (decoding_times_only and reorders):
        steady = np.where(table.duration > 0, table.duration, 0)
        by_order = reorders and (decoding_times_only or filled == int(shown.sum()))
        if reorders and not by_order:
            message = f"{filled} of {n} frames have no timestamp and the codec reorders frames"
            raise RefusedInput(Reason.TIMESTAMPS_MISSING, message)
        pts = _filled(table.dts if by_order else np.where(absent, table.dts, pts), steady)
    if by_order:
        pts[shown] = np.sort(pts[shown])
    elif not table.has(Picture.RESTART)[first]:
        # Pictures shown before the first key frame but coded after it lean on pictures we do not have.
        leading = shown & (pts < pts[first])
        shown &= ~leading

    order = np.flatnonzero(shown)
    if not len(order):
        raise RefusedInput(Reason.NO_FRAMES, f"no frames to show among {n} packets")
    stamps = pts[order]
    _check_presentation_order(stamps, reorders and not by_order)
    by_time = np.argsort(stamps, kind="stable")
    times = _to_ns(stamps[by_time], time_base)
    fresh = np.concatenate([[True], np.diff(times) > 0])
    if len(order) > 2 and fresh.sum() * 2 < len(order):
        message = (
            f"timestamps are duplicates of each other: {len(order)} frames at "
            f"{int(fresh.sum())} distinct times"
        )
        raise RefusedInput(Reason.TIMESTAMPS_DUPLICATE, message)
    rank = np.full(n, NOT_SHOWN, np.int64)
    rank[order[by_time[fresh]]] = np.arange(int(fresh.sum()))
    if by_order:
        # Every picture takes a place, so equal times cannot be told apart from a picture that is missing.
        rank[order] = np.arange(len(order))
        if not fresh.all():
            raise RefusedInput(
                Reason.TIMESTAMPS_DUPLICATE, "timestamps are duplicates of each other"
            )
    known = table.pts[:first]
    known = known[known != MISSING]
    earliest = min(int(known.min()), int(pts[first])) if len(known) else int(pts[first])
    lost_ns = int((int(pts[first]) - earliest) * time_base * SECOND_NS)
    return Presentation(
        times_ns=times[fresh],
        rank=rank,
        first=first,
        duplicates=int((~fresh).sum()),
        by_order=by_order,
        lost_ns=lost_ns,
        filled=filled,
    )


def _filled(stamps: NDArray[np.int64], duration: NDArray[np.int64]) -> NDArray[np.int64]:
    """Missing stamps become the one before plus the duration of its packet."""
    filled = stamps.copy()
    for i in np.flatnonzero(stamps == MISSING):
        if i == 0 or duration[i - 1] == 0:
            raise RefusedInput(
                Reason.TIMESTAMPS_MISSING, f"frame {int(i)} has no timestamp and no duration"
            )
        filled[i] = filled[i - 1] + duration[i - 1]
    return filled


def _check_decoding_order(dts: NDArray[np.int64]) -> None:
    known = np.flatnonzero(dts != MISSING)
    back = np.flatnonzero(np.diff(dts[known]) < 0)
    if len(back):
        message = f"timestamps run backward (discontinuity) at packet {int(known[back[0] + 1])}"
        raise RefusedInput(Reason.TIMESTAMPS_BACKWARD, message)


def _check_presentation_order(stamps: NDArray[np.int64], reorders: bool) -> None:
    """`stamps` in coded order: increasing, or within what a codec can reorder."""
    latest = np.maximum.accumulate(stamps)
    back = np.flatnonzero(stamps < latest)
    if reorders and len(back):
        order = np.argsort(stamps, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        back = np.flatnonzero(np.abs(place - np.arange(len(order))) > REORDER)
    if len(back):
        message = f"timestamps run backward (not monotonic) at frame {int(back[0])}"
        raise RefusedInput(Reason.TIMESTAMPS_BACKWARD, message)


def _to_ns(stamps: NDArray[np.int64], time_base: Fraction) -> Nanos:
    """The first whole nanosecond at which each picture is on screen: so `time <= t` is exact for whole t."""
    num, den = time_base.numerator, time_base.denominator
    # A century keeps every product below 2^63; no recording starts later than that.
    if num * np.abs(stamps.astype(np.float64)).max() / den > 100 * 366 * 86400 or den > 2**31:
        raise RefusedInput(
            Reason.TIMESTAMPS_BACKWARD, "timestamps start beyond any clock (100 years)"
        )
    whole, rest = np.divmod(stamps * num, den)
    times: Nanos = whole * SECOND_NS - (-rest * SECOND_NS // den)
    return times


@dataclass(frozen=True, slots=True)
class Run:
    """Packets `start` to `stop` (half open), decoded from a clean start and drained at the end."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What must be decoded to see some frames.

    runs  in the order of the file, each from a place where decoding can start to its last picked picture
    feed  bool [N]  packets to give to the decoder
    """

    runs: tuple[Run, ...]
    feed: NDArray[np.bool_]


def plan_decoding(table: PacketTable, shown: Presentation, picks: Index) -> DecodePlan:
    """The fewest packets that yield the picked frames exactly as a full decode would.

    Dropped are disposable pictures that are not picked, what lies between the last picked picture and the
    next place where decoding can start, and stretches without any picked picture.

    Args:
        table, shown: the packets and their presentation.
        picks: int64 [K], distinct increasing positions in `shown.times_ns`.
    """
    n = len(table.pts)
    feed = np.zeros(n, np.bool_)
    if not len(picks):
        return DecodePlan((), feed)
    if shown.by_order:
        feed[shown.first :] = True
        return DecodePlan((Run(shown.first, n),), feed)
    packet_of = np.empty(len(shown.times_ns), np.int64)
    visible = np.flatnonzero(shown.rank != NOT_SHOWN)
    packet_of[shown.rank[visible]] = visible
    picked = np.zeros(n, np.bool_)
    picked[packet_of[picks]] = True

    starts, leading = _restarts(table, shown, picked)
    packets = np.flatnonzero(picked)
    segment = np.searchsorted(starts, packets, side="right") - 1
    # Packets are in order, so the last of each segment stands where the segment number changes.
    last = np.flatnonzero(np.append(np.diff(segment) != 0, True))
    runs = tuple(
        Run(int(start), int(stop) + 1)
        for start, stop in zip(starts[segment[last]], packets[last], strict=True)
    )
    for run in runs:
        feed[run.start : run.stop] = True
    feed &= ~(table.disposable() & ~picked)
    feed[leading] = False
    return DecodePlan(runs, feed)


def _restarts(
    table: PacketTable, shown: Presentation, picked: NDArray[np.bool_]
) -> tuple[Index, Index]:
    """Where decoding may start, and the leading pictures that such a start gives up (none of them picked).

    Trusted only where the times agree: everything before it is shown before everything after it.
    """
    n = len(table.pts)
    far = np.where(shown.rank == NOT_SHOWN, n, shown.rank)
    earliest_after = np.minimum.accumulate(far[::-1])[::-1]
    latest_before = np.concatenate([[-1], np.maximum.accumulate(shown.rank)[:-1]])
    inside = np.arange(n) >= shown.first
    closed = table.has(Picture.RESTART) & (latest_before < earliest_after) & inside
    starts = [shown.first, *np.flatnonzero(closed).tolist()]
    leading: list[int] = []
    for i in np.flatnonzero(table.has(Picture.OPEN_RESTART) & inside).tolist():
        own = shown.rank[i]
        near = min(n, i + 1 + REORDER)
        before = i + 1 + np.flatnonzero(far[i + 1 : near] < own)
        trailing_is_later = near == n or earliest_after[near] > own
        if own > latest_before[i] and trailing_is_later and not picked[before].any():
            starts.append(i)
            if i != shown.first:
                leading += before.tolist()
    return np.unique(np.asarray(starts, np.int64)), np.asarray(leading, np.int64)
