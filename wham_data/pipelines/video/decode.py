"""Picked frames of a video in one forward pass.

The decoder is given only what the picked frames need (`packets.plan_decoding`), and only they are scaled.

Loss. A picture is lost when the decoder raised on it, flagged it, or never gave it out; and so is every
picture coded after it until decoding next starts afresh, because it may be predicted from the damage.
A lost pick is never replaced by a neighbour: its rows are black and its position is in
`DecodeAudit.lost`, so that the caller can cut the episode there. Where no audit is given any loss is
refused, and where more than 1 - `VideoLimits.min_decoded` of the pictures are lost the input always is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields
from itertools import chain
from queue import Full, Queue
from types import TracebackType
from typing import Self

import av.error
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from wham_data.pipelines.video.index import VideoIndex
from wham_data.pipelines.video.packets import (
    MISSING,
    NOT_SHOWN,
    REORDER,
    DecodePlan,
    Run,
    plan_decoding,
)
from wham_data.pipelines.video.scale import Fit, Frames, Scaler
from wham_data.pipelines.video.source import Source, plain
from wham_data.schemas.clock import SECOND_NS, Index
from wham_data.schemas.errors import Reason, RefusedInput, UsageError

# No index, however hostile, makes a chunk hold more than this in finished frames.
QUEUE_BYTES = 48 << 20
# Runs are handed to threads in chunks of about this many packets: enough to be worth a seek.
CHUNK_PACKETS = 240


@dataclass(slots=True)
class DecodeAudit:
    """Counts of one decode, in pictures.

    pictures_needed     shown pictures given to the decoder
    pictures_decoded    of those, came out whole
    skipped_disposable  dropped because nothing refers to them
    skipped_unneeded    dropped because no picked frame depends on them
    errors              packets on which the decoder raised
    corrupt             pictures or packets flagged damaged
    lost                positions in `picks` whose frame is lost, complete for the batches yielded so far
    """

    pictures_needed: int = 0
    pictures_decoded: int = 0
    skipped_disposable: int = 0
    skipped_unneeded: int = 0
    errors: int = 0
    corrupt: int = 0
    lost: list[int] = field(default_factory=list)

    def add(self, other: DecodeAudit) -> None:
        """Add the counts of `other` to this one."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


def decode_frames(
    index: VideoIndex,
    picks: Index,
    size: tuple[int, int] = (300, 180),
    *,
    fit: Fit = "stretch",
    batch: int = 32,
    threads: int = 1,
    audit: DecodeAudit | None = None,
) -> Iterator[Frames]:
    """The picked frames in one forward pass.

    Args:
        index: of the same, unchanged file.
        picks: int64 [K], non-decreasing positions in `index.times_ns`; a frame may be picked repeatedly.
        size: (width, height) of the frames.
        fit: stretch to the size, or keep the aspect: letterbox on black, or crop the middle.
        batch: frames per yielded array.
        threads: how many decode separate stretches of the file side by side; the frames are the same.
        audit: a fresh one, to take the counts and the losses; without it any loss is refused.

    Yields:
        uint8 [B, H, W, 3] RGB, B <= batch, K frames in all. Frames listed in `audit.lost` are black.

    Raises:
        RefusedInput: more is lost than `index.limits.min_decoded` allows, the resolution changes,
            frames come out in another order than their time stamps say, or the file has changed.
    """
    picks = np.asarray(picks, np.int64)
    if len(picks) and (np.diff(picks) < 0).any():
        raise UsageError("picks must not decrease")
    if len(picks) and not 0 <= picks[0] <= picks[-1] < len(index.times_ns):
        raise UsageError(f"picks must lie in [0, {len(index.times_ns)})")
    if batch < 1 or threads < 1 or min(size) < 1:
        raise UsageError("batch, threads and size must be at least 1")
    wanted = np.unique(picks)
    plan = plan_decoding(index.packets, index.presentation, wanted)
    return _batches(_Job(index, plan, wanted, size, fit), picks, batch, threads, audit)


def _batches(
    job: _Job, picks: Index, batch: int, threads: int, audit: DecodeAudit | None
) -> Iterator[Frames]:
    own = audit if audit is not None else DecodeAudit()
    job.count_skipped(own)
    alone = threads == 1 or len(job.plan.runs) < 2
    width, height = job.size
    rank, picture = -1, None
    with closing(_in_order(job, own) if alone else _side_by_side(job, own, threads)) as pictures:
        for start in range(0, len(picks), batch):
            part = picks[start : start + batch]
            out = np.empty((len(part), height, width, 3), np.uint8)
            for i, pick in enumerate(part.tolist()):
                while rank < pick:
                    rank, picture = next(pictures)
                if picture is None:
                    own.lost.append(start + i)
                    out[i] = 0
                else:
                    out[i] = picture
            if own.lost and audit is None:
                raise _too_much_lost(own, f"frame {int(picks[own.lost[0]])} cannot be decoded")
            yield out
        for _ in pictures:  # the counts of the last run come after its last picture
            pass
    job.check_loss(own)


@dataclass(frozen=True, slots=True)
class _Job:
    """What every thread of one decode needs to know."""

    index: VideoIndex
    plan: DecodePlan
    wanted: Index
    size: tuple[int, int]
    fit: Fit

    def count_skipped(self, audit: DecodeAudit) -> None:
        shown = self.index.presentation.rank != NOT_SHOWN
        inside = np.zeros(len(shown), np.bool_)
        for run in self.plan.runs:
            inside[run.start : run.stop] = True
        audit.skipped_disposable += int((shown & inside & ~self.plan.feed).sum())
        audit.skipped_unneeded += int((shown & ~inside).sum())
        audit.pictures_needed += int((shown & self.plan.feed).sum())

    def check_loss(self, audit: DecodeAudit) -> None:
        if audit.pictures_decoded < self.index.limits.min_decoded * audit.pictures_needed:
            raise _too_much_lost(audit, "corrupt")


def _too_much_lost(audit: DecodeAudit, cause: str) -> RefusedInput:
    return RefusedInput(
        Reason.CORRUPT,
        f"{cause}: decoded {audit.pictures_decoded} of {audit.pictures_needed} frames"
        f" ({audit.errors} errors, {audit.corrupt} flagged corrupt)",
        frames_expected=audit.pictures_needed,
        frames_decoded=audit.pictures_decoded,
    )


Shown = tuple[int, Frames | None]
"""Position in `times_ns` and the RGB frame, None where it is lost."""


def _in_order(job: _Job, audit: DecodeAudit) -> Generator[Shown, None, None]:
    with _Decoder(job) as decoder:
        for run in job.plan.runs:
            yield from decoder.run(run, audit)


class _Due:
    """The pictures that one run must give out, and which of them are damaged."""

    def __init__(self, run: Run, job: _Job, disposable: NDArray[np.bool_]) -> None:
        rank = job.index.presentation.rank
        fed = run.start + np.flatnonzero(job.plan.feed[run.start : run.stop])
        fed = fed[rank[fed] != NOT_SHOWN]
        fed = fed[np.argsort(rank[fed])]
        self._ranks: list[int] = rank[fed].tolist()
        self._packets: list[int] = fed.tolist()
        self._alone: list[bool] = disposable[fed].tolist()
        self._place_of = {shown: place for place, shown in enumerate(self._ranks)}
        low, high = np.searchsorted(job.wanted, rank[fed[[0, -1]]], side="left")
        self._picked = frozenset(job.wanted[low : high + 1].tolist())
        self._place = 0
        self._came: list[int] = []
        # A packet that the demuxer flags may follow others that are gone, so all after it is suspect.
        flagged = np.flatnonzero(job.index.packets.corrupt[run.start : run.stop])
        self.flagged: list[int] = flagged.tolist()
        self._damaged_from = run.start + self.flagged[0] if self.flagged else run.stop
        self._damaged: set[int] = set()

    def next_rank(self) -> int | None:
        """The picture that must come next, where the stream itself does not say which one it is."""
        return self._ranks[self._place] if self._place < len(self._ranks) else None

    def came(self, rank: int | None) -> list[int]:
        """Note a picture, or the end of the run (None); returns the picked ones that failed to come."""
        place = len(self._ranks) if rank is None else self._place_of[rank]
        if place < self._place:
            message = (
                "timestamps run backward: frames are shown in another order than their timestamps"
            )
            raise RefusedInput(Reason.TIMESTAMPS_BACKWARD, message)
        missing = range(self._place, place)
        for each in missing:
            self._damage(each)
        self._place = place + 1
        if rank is not None:
            self._came.append(place)
        return [self._ranks[each] for each in missing if self._ranks[each] in self._picked]

    @property
    def total(self) -> int:
        """How many pictures are due."""
        return len(self._ranks)

    def is_picked(self, rank: int) -> bool:
        return rank in self._picked

    def damage_picture(self, rank: int) -> None:
        """This picture is damaged, and what may be predicted from it."""
        self._damage(self._place_of[rank])

    def damage_packet(self, packet: int, shown: int) -> None:
        """As `damage_picture`, for a packet whose picture may be `shown` or hidden."""
        if shown in self._place_of:
            self.damage_picture(shown)
        else:
            self._damaged_from = min(self._damaged_from, packet)

    def _damage(self, place: int) -> None:
        if self._alone[place]:
            self._damaged.add(place)
        else:
            self._damaged_from = min(self._damaged_from, self._packets[place])

    def is_intact(self, rank: int) -> bool:
        place = self._place_of[rank]
        return self._packets[place] < self._damaged_from and place not in self._damaged

    def intact(self) -> int:
        """How many pictures came out whole."""
        return sum(
            self._packets[place] < self._damaged_from and place not in self._damaged
            for place in self._came
        )


class _Decoder:
    """One open file with its decoder, walking forward through the runs it is given."""

    # Reading past this many packets costs about as much as a seek.
    SKIP = 64

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._table = job.index.packets
        self._disposable = self._table.disposable()
        self._scaler = Scaler(job.index.picture, job.size, job.fit)
        self._can_seek = True
        self._open()

    def _open(self) -> None:
        index = self._job.index
        self._source = Source(index.path, index.limits, index.stream)
        self._packets = self._source.packets()
        self._next = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._source.__exit__(kind, value, trace)

    def run(self, run: Run, audit: DecodeAudit) -> Iterator[Shown]:
        """The picked pictures of one run, in the order they are shown."""
        by_order = self._job.index.presentation.by_order
        due = _Due(run, self._job, self._disposable)
        held: deque[Shown] = deque()
        surplus = 0
        for frame in self._decoded(run, due, audit):
            rank = due.next_rank() if by_order else frame.pts
            if rank is None or rank == NOT_SHOWN:
                surplus += 1
                continue
            held.extend((missing, None) for missing in due.came(rank))
            if frame.is_corrupt:
                audit.corrupt += 1
                due.damage_picture(rank)
            if due.is_picked(rank):
                held.append((rank, self._scaled(frame, rank)))
            # A picture may be predicted from one shown up to REORDER places later, whose damage is
            # only known when that one comes out: until then it is held back.
            while held and held[0][0] + REORDER < rank:
                yield _judged(due, *held.popleft())
        held.extend((missing, None) for missing in due.came(None))
        while held:
            yield _judged(due, *held.popleft())
        audit.pictures_decoded += due.intact()
        if by_order and (surplus or due.intact() < due.total):
            # Without time stamps one picture more or less shifts all that follow.
            raise _too_much_lost(audit, "corrupt, and no timestamps tell which frames are missing")

    def _scaled(self, frame: VideoFrame, rank: int) -> Frames:
        """A picture brought to size; a refusal says when it comes."""
        try:
            return self._scaler.picture(frame)
        except RefusedInput as why:
            if why.reason is not Reason.RESOLUTION_CHANGE:
                raise
            at_s = int(self._job.index.times_ns[rank]) / SECOND_NS
            message = f"{why.message} at {at_s:.3g} s or shortly before: split it there"
            raise RefusedInput(why.reason, message) from None

    def _decoded(self, run: Run, due: _Due, audit: DecodeAudit) -> Iterator[VideoFrame]:
        """The pictures that come of a run's packets, each with its rank for a time stamp."""
        context, rank = self._source.context, self._job.index.presentation.rank
        audit.corrupt += len(due.flagged)
        for at, packet in self._fed(run):
            shown = int(rank[at])
            # The decoder carries the rank in place of the time stamp: so every picture's packet is
            # known, even where time stamps are missing or alike.
            packet.pts, packet.dts = shown, None
            try:
                frames = context.decode(packet)
            except av.error.MemoryError:
                message = "there is not enough memory to decode its pictures"
                raise RefusedInput(Reason.OUT_OF_MEMORY, message) from None
            except av.error.FFmpegError:
                audit.errors += 1
                due.damage_packet(at, shown)
                continue
            yield from frames
        try:
            yield from context.decode(None)
        except av.error.FFmpegError:
            audit.errors += 1
        context.flush_buffers()

    def _fed(self, run: Run) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """The packets of a run that go to the decoder, with their numbers."""
        if run.start < self._next or (run.start - self._next > self.SKIP and self._can_seek):
            self._seek(run.start)
        feed = self._job.plan.feed
        changed = "the file changed after it was indexed"
        try:
            for packet in self._packets:
                at = self._next
                if packet.size != self._table.size[at]:
                    raise RefusedInput(Reason.CHANGED_WHILE_READ, changed)
                self._next += 1
                if at >= run.start and feed[at]:
                    yield at, packet
                if self._next == run.stop:
                    return
        except av.error.FFmpegError as error:
            raise RefusedInput(Reason.CHANGED_WHILE_READ, f"{changed}: {plain(error)}") from error
        raise RefusedInput(Reason.CHANGED_WHILE_READ, f"{changed}: it is shorter")

    def _seek(self, start: int) -> None:
        """Stand at packet `start` or somewhat before it: where seeking fails, at the file's start."""
        table = self._table
        stamp = table.dts[start] if table.dts[start] != MISSING else table.pts[start]
        if self._can_seek and stamp != MISSING:
            try:
                self._source.container.seek(int(stamp), stream=self._source.stream)
                self._packets = self._source.packets()
                for packet in self._packets:
                    same = (table.pts == packet.pts) & (table.size == packet.size)
                    found = np.flatnonzero(same)
                    if len(found) == 1 and found[0] <= start:
                        self._packets = chain([packet], self._packets)
                        self._next = int(found[0])
                        return
                    break
            except av.error.FFmpegError:
                pass
        self._can_seek = False
        self._source.container.close()
        self._open()


def _judged(due: _Due, rank: int, picture: Frames | None) -> Shown:
    return rank, picture if due.is_intact(rank) else None


class _Stopped(Exception):
    """The consumer has gone away."""


Message = Shown | DecodeAudit | BaseException


def _side_by_side(job: _Job, audit: DecodeAudit, threads: int) -> Generator[Shown, None, None]:
    """As `_in_order`, with threads that each take the next chunk of runs when they are free.

    At most threads + 1 chunks are under way, and each holds a bounded number of finished frames, so
    memory does not depend on the length of the file.
    """
    chunks = _chunks(job.plan.runs)
    capacity = max(8, min(256, QUEUE_BYTES // (job.size[0] * job.size[1] * 3)))
    queues: list[Queue[Message]] = [Queue(capacity) for _ in chunks]
    numbers, turn = iter(range(len(chunks))), threading.Lock()
    stop, room = threading.Event(), threading.Semaphore(threads + 1)

    def claim() -> int | None:
        room.acquire()
        with turn:
            return None if stop.is_set() else next(numbers, None)

    def put(number: int, message: Message) -> None:
        while not stop.is_set():
            try:
                return queues[number].put(message, timeout=0.2)
            except Full:
                continue
        raise _Stopped

    def work() -> None:
        number = claim()
        try:
            if number is None:
                return
            with _Decoder(job) as decoder:
                while number is not None:
                    tally = DecodeAudit()
                    for run in chunks[number]:
                        for shown in decoder.run(run, tally):
                            put(number, shown)
                    put(number, tally)
                    number = claim()
        except _Stopped:
            return
        except BaseException as error:  # handed to the consumer, which raises it
            with suppress(_Stopped):
                put(number or 0, error)

    workers = [
        threading.Thread(target=work, name=f"decode-{i}", daemon=True) for i in range(threads)
    ]
    for worker in workers:
        worker.start()
    try:
        for queue in queues:
            while not isinstance(message := queue.get(), DecodeAudit):
                if isinstance(message, BaseException):
                    raise message
                yield message
            audit.add(message)
            room.release()
    finally:
        stop.set()
        room.release(threads)
        for worker in workers:
            worker.join()


def _chunks(runs: tuple[Run, ...]) -> list[list[Run]]:
    """Neighbouring runs together until a chunk is worth a seek."""
    chunks: list[list[Run]] = []
    for run in runs:
        if chunks and run.stop - chunks[-1][0].start <= CHUNK_PACKETS:
            chunks[-1].append(run)
        else:
            chunks.append([run])
    return chunks
