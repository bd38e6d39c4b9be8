"""Compute the times of a video's frames from its packets, and the packets that picked frames need.

Pure functions of arrays: no file is opened and nothing is decoded here.
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
"""Value of a time stamp that the container does not give."""

NOT_SHOWN = -1
"""Rank of a packet whose picture is not shown."""

# No codec we accept shows a picture more than 16 places before or after its place in the stream.
REORDER = 16


@dataclass(frozen=True, slots=True)
class PacketTable:
    """The N packets of one video stream in file order, which is the decoding order.

    pts       int64  [N]  presentation time in units of the time base, or MISSING
    dts       int64  [N]  decoding time, or MISSING
    duration  int64  [N]  0 where unknown
    size      int64  [N]  bytes
    picture   int32  [N]  Picture flags; the temporal layer is in the bits from LAYER_SHIFT up
    key       bool   [N]  the container or the parser marks it as a key frame
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
        """Which packets have `flag`, bool [N]."""
        has_flag: NDArray[np.bool_] = (self.picture & int(flag)) != 0
        return has_flag

    def disposable(self) -> NDArray[np.bool_]:
        """Which packets no other packet needs, bool [N]; in a layered stream only the top layer."""
        layer = self.picture >> LAYER_SHIFT
        top = layer.max(initial=0)
        disposable: NDArray[np.bool_] = self.has(Picture.DISPOSABLE) & (layer == top)
        return disposable


@dataclass(frozen=True, slots=True)
class Presentation:
    """When each packet's picture is shown.

    times_ns      int64 [M]  time of each shown picture, strictly increasing
    rank          int64 [N]  position of the packet's picture in times_ns, or NOT_SHOWN
    first         number of the packet at which decoding starts
    whole         number of the packet of the first whole picture: `first`, or later in a stream without
                  key frames whose pictures are refreshed in stripes
    duplicates    pictures dropped because another picture has the same time
    by_order      the container gives no presentation times: the n-th decoded picture is the n-th shown
    lost_ns       time between the first packet and the first picture that can be decoded
    filled        number of time stamps that were computed from decoding times
    """

    times_ns: Nanos
    rank: Index
    first: int
    whole: int
    duplicates: int
    by_order: bool
    lost_ns: int
    filled: int


def present(
    table: PacketTable,
    time_base: Fraction,
    *,
    reorders: bool,
    decoding_times_only: bool,
    whole: int | None = None,
) -> Presentation:
    """Compute when each picture is shown.

    Args:
        table: the packets, N > 0.
        time_base: seconds per unit of the time stamps.
        reorders: the codec may show pictures in an order that differs from the coded order.
        decoding_times_only: the container (AVI) stores no presentation times.
        whole: packet of the first picture that a decoder gives which starts at the first packet; None:
            decoding starts at the first key frame.

    Raises:
        RefusedInput: there is no key frame or no shown picture, or time stamps are missing, mostly
            equal, run backward or are beyond 100 years.
    """
    n = len(table.pts)
    first, whole = _start(table, whole)
    shown = ~table.discard & ~table.has(Picture.HIDDEN)
    shown[:first] = False
    _check_decoding_order(table.dts)

    pts = table.pts.copy()
    absent = shown & (pts == MISSING)
    filled = int(absent.sum())
    by_order = False
    if filled or (decoding_times_only and reorders):
        known_duration = np.where(table.duration > 0, table.duration, 0)
        by_order = reorders and (decoding_times_only or filled == int(shown.sum()))
        if reorders and not by_order:
            message = f"{filled} of {n} frames have no timestamp and the codec reorders frames"
            raise RefusedInput(Reason.TIMESTAMPS_MISSING, message)
        pts = _fill_missing(
            table.dts if by_order else np.where(absent, table.dts, pts), known_duration
        )
    if by_order:
        pts[shown] = np.sort(pts[shown])
    elif not table.has(Picture.RESTART)[whole]:
        # Pictures shown before the first whole one but coded after it need pictures that are missing.
        leading = shown & (pts < pts[whole])
        shown &= ~leading

    order = np.flatnonzero(shown)
    if not len(order):
        raise RefusedInput(Reason.NO_FRAMES, f"no frames to show among {n} packets")
    timestamps = pts[order]
    _check_presentation_order(timestamps, reorders and not by_order)
    by_time = np.argsort(timestamps, kind="stable")
    times = _to_ns(timestamps[by_time], time_base)
    is_first_at_time = np.concatenate([[True], np.diff(times) > 0])
    if len(order) > 2 and is_first_at_time.sum() * 2 < len(order):
        message = (
            f"timestamps are duplicates of each other: {len(order)} frames at "
            f"{int(is_first_at_time.sum())} distinct times"
        )
        raise RefusedInput(Reason.TIMESTAMPS_DUPLICATE, message)
    rank = np.full(n, NOT_SHOWN, np.int64)
    rank[order[by_time[is_first_at_time]]] = np.arange(int(is_first_at_time.sum()))
    if by_order:
        # Every picture gets a rank, because with equal times nobody knows which picture is missing.
        rank[order] = np.arange(len(order))
        if not is_first_at_time.all():
            raise RefusedInput(
                Reason.TIMESTAMPS_DUPLICATE, "timestamps are duplicates of each other"
            )
    known = table.pts[:whole]
    known = known[known != MISSING]
    earliest = min(int(known.min()), int(pts[whole])) if len(known) else int(pts[whole])
    lost_ns = int((int(pts[whole]) - earliest) * time_base * SECOND_NS)
    return Presentation(
        times_ns=times[is_first_at_time],
        rank=rank,
        first=first,
        whole=whole,
        duplicates=int((~is_first_at_time).sum()),
        by_order=by_order,
        lost_ns=lost_ns,
        filled=filled,
    )


def _start(table: PacketTable, whole: int | None) -> tuple[int, int]:
    """The packet at which decoding starts, and that of the first whole picture."""
    if whole is not None:
        alone = table.has(Picture.RESTART | Picture.OPEN_RESTART)[whole]
        return (whole if alone else 0), whole
    keys = np.flatnonzero(table.key | table.has(Picture.RESTART))
    if not len(keys):
        n = len(table.pts)
        message = f"no key frame: none of the {n} frames can be decoded"
        raise RefusedInput(Reason.NO_FRAMES, message, frames_expected=n, frames_decoded=0)
    return int(keys[0]), int(keys[0])


def _fill_missing(timestamps: NDArray[np.int64], duration: NDArray[np.int64]) -> NDArray[np.int64]:
    """Replace each missing time stamp by the one before it plus the duration of that packet.

    Args:
        timestamps: int64 [N] in units of the time base, or MISSING.
        duration: int64 [N] in the same units; 0 where unknown.

    Raises:
        RefusedInput: a missing time stamp comes first or follows a packet of unknown duration.
    """
    filled = timestamps.copy()
    for i in np.flatnonzero(timestamps == MISSING):
        if i == 0 or duration[i - 1] == 0:
            raise RefusedInput(
                Reason.TIMESTAMPS_MISSING, f"frame {int(i)} has no timestamp and no duration"
            )
        filled[i] = filled[i - 1] + duration[i - 1]
    return filled


def _check_decoding_order(dts: NDArray[np.int64]) -> None:
    known = np.flatnonzero(dts != MISSING)
    backward = np.flatnonzero(np.diff(dts[known]) < 0)
    if len(backward):
        message = f"timestamps run backward (discontinuity) at packet {int(known[backward[0] + 1])}"
        raise RefusedInput(Reason.TIMESTAMPS_BACKWARD, message)


def _check_presentation_order(timestamps: NDArray[np.int64], reorders: bool) -> None:
    """Check that `timestamps`, in coded order, increase, apart from what a codec can reorder."""
    latest = np.maximum.accumulate(timestamps)
    backward = np.flatnonzero(timestamps < latest)
    if reorders and len(backward):
        order = np.argsort(timestamps, kind="stable")
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        backward = np.flatnonzero(np.abs(place - np.arange(len(order))) > REORDER)
    if len(backward):
        message = f"timestamps run backward (not monotonic) at frame {int(backward[0])}"
        raise RefusedInput(Reason.TIMESTAMPS_BACKWARD, message)


def _to_ns(timestamps: NDArray[np.int64], time_base: Fraction) -> Nanos:
    """The time stamps in ns, rounded up, so that `time <= t` is exact for every whole t."""
    num, den = time_base.numerator, time_base.denominator
    # The limit of 100 years keeps every product below 2^63.
    if num * np.abs(timestamps.astype(np.float64)).max() / den > 100 * 366 * 86400 or den > 2**31:
        raise RefusedInput(
            Reason.TIMESTAMPS_BACKWARD, "timestamps start beyond any clock (100 years)"
        )
    whole, rest = np.divmod(timestamps * num, den)
    times: Nanos = whole * SECOND_NS - (-rest * SECOND_NS // den)
    return times


@dataclass(frozen=True, slots=True)
class Run:
    """Packets [start, stop), decoded with a fresh decoder state, which is flushed at the end."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """What must be decoded to get the picked frames.

    runs  in file order; each begins where decoding can start and ends with its last picked picture
    feed  bool [N]  the packets that the decoder gets
    """

    runs: tuple[Run, ...]
    feed: NDArray[np.bool_]


def plan_decoding(table: PacketTable, shown: Presentation, picks: Index) -> DecodePlan:
    """Find the fewest packets that give the picked frames exactly as a full decode does.

    Left out are disposable pictures that are not picked, and everything between a picked picture and
    the next place where decoding can start if no picked picture is in between.

    Args:
        table: the packets.
        shown: their presentation.
        picks: int64 [K], positions in `shown.times_ns`, strictly increasing.
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
    start_number = np.searchsorted(starts, packets, side="right") - 1
    # Packets are in order, so the last packet of a start is where the number of the start changes.
    last = np.flatnonzero(np.append(np.diff(start_number) != 0, True))
    runs = tuple(
        Run(int(start), int(stop) + 1)
        for start, stop in zip(starts[start_number[last]], packets[last], strict=True)
    )
    for run in runs:
        feed[run.start : run.stop] = True
    feed &= ~(table.disposable() & ~picked)
    feed[leading] = False
    return DecodePlan(runs, feed)


def _restarts(
    table: PacketTable, shown: Presentation, picked: NDArray[np.bool_]
) -> tuple[Index, Index]:
    """The packets where decoding may start, and the leading pictures that get lost there.

    No leading picture is picked. A start is used only if the times agree with it: everything before
    it is shown before everything after it.
    """
    n = len(table.pts)
    far = np.where(shown.rank == NOT_SHOWN, n, shown.rank)
    earliest_after = np.minimum.accumulate(far[::-1])[::-1]
    latest_before = np.concatenate([[-1], np.maximum.accumulate(shown.rank)[:-1]])
    is_reachable = np.arange(n) >= shown.first
    is_closed_start = table.has(Picture.RESTART) & (latest_before < earliest_after) & is_reachable
    starts = [shown.first, *np.flatnonzero(is_closed_start).tolist()]
    leading: list[int] = []
    for i in np.flatnonzero(table.has(Picture.OPEN_RESTART) & is_reachable).tolist():
        own = shown.rank[i]
        leading_end = min(n, i + 1 + REORDER)
        before = i + 1 + np.flatnonzero(far[i + 1 : leading_end] < own)
        trailing_is_later = leading_end == n or earliest_after[leading_end] > own
        if own > latest_before[i] and trailing_is_later and not picked[before].any():
            starts.append(i)
            if i != shown.first:
                leading += before.tolist()
    return np.unique(np.asarray(starts, np.int64)), np.asarray(leading, np.int64)
