"""Decode picked frames of a video in one forward pass.

The decoder gets only the packets that the picked frames need (`packets.plan_decoding`), and only the
picked frames are scaled.

Lost pictures. A picture is lost if the decoder raises an error for it, marks it as damaged, or never
gives it out. Every picture coded after it is lost too, up to the next place where decoding can start,
because it may be predicted from damaged data. A lost frame is never replaced by a neighbour: its rows
are black and its position is in `DecodeAudit.lost`, so that the caller can cut the episode there. The
input is refused if any picture is lost and no audit is given, and always if more than
1 - `VideoLimits.min_decoded` of the pictures are lost.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
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

from wham_data.pipelines.video.audit import DecodeAudit, too_much_lost
from wham_data.pipelines.video.hardware import checked_by_cpu, like_cpu, on_gpu
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
from wham_data.schemas.errors import Reason, RefusedInput, UsageError, plain_number

QUEUE_BYTES = 48 << 20
"""Most bytes of finished frames that wait in one chunk, whatever the file contains."""
CHUNK_PACKETS = 240
"""Packets in a chunk of runs for a thread, about: enough to make the seek worthwhile."""


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
    """Decode the picked frames in one forward pass.

    Args:
        index: result of `index_video` for the file, which must not have changed since.
        picks: int64 [K], positions in `index.times_ns`, non-decreasing; a frame may be picked again.
        size: (width, height) of the frames in pixels.
        fit: "stretch" to the size; or keep the aspect ratio: "letterbox" on black, or "crop" the
            middle.
        batch: largest number of frames in an array.
        threads: number of threads, which decode separate parts of the file; the frames do not depend
            on it.
        audit: a new object that receives the counts and the lost frames; None: any loss is refused.

    Yields:
        uint8 [B, H, W, 3] RGB, B <= batch, K frames in all. Frames listed in `audit.lost` are black.

    Raises:
        RefusedInput: more is lost than `index.limits.min_decoded` allows, the resolution changes, the
            order of frames differs from their time stamps, memory runs out, or the file has changed.
        UsageError: `picks` decrease or are out of range, or a number is below 1.
    """
    picks = np.asarray(picks, np.int64)
    if len(picks) and (np.diff(picks) < 0).any():
        raise UsageError("picks must not decrease")
    if len(picks) and not 0 <= picks[0] <= picks[-1] < len(index.times_ns):
        raise UsageError(f"picks must lie in [0, {len(index.times_ns)})")
    if batch < 1 or threads < 1 or min(size) < 1:
        raise UsageError("batch, threads and size must be at least 1")
    picked = np.unique(picks)
    plan = plan_decoding(index.packets, index.presentation, picked)

    def job(index: VideoIndex) -> _Job:
        return _Job(index, plan, picked, size, fit)

    if index.decoder == "cpu":
        return _batches(job(index), picks, batch, threads, audit)
    on_cpu = replace(index, decoder="cpu")
    return checked_by_cpu(
        # One thread, because each would take memory of the GPU for a decoder of its own.
        lambda counts: _batches(job(index), picks, batch, 1, counts),
        lambda: _batches(job(on_cpu), picks, batch, threads, audit),
        audit,
    )


def _batches(
    job: _Job, picks: Index, batch: int, threads: int, audit: DecodeAudit | None
) -> Iterator[Frames]:
    counts = audit if audit is not None else DecodeAudit()
    job.count_skipped(counts)
    one_thread = threads == 1 or len(job.plan.runs) < 2
    width, height = job.size
    rank, picture = -1, None
    with closing(
        _in_order(job, counts) if one_thread else _in_threads(job, counts, threads)
    ) as pictures:
        for start in range(0, len(picks), batch):
            part = picks[start : start + batch]
            out = np.empty((len(part), height, width, 3), np.uint8)
            for i, pick in enumerate(part.tolist()):
                while rank < pick:
                    rank, picture = next(pictures)
                if picture is None:
                    counts.lost.append(start + i)
                    out[i] = 0
                else:
                    out[i] = picture
            if counts.lost and audit is None:
                raise too_much_lost(counts, f"frame {int(picks[counts.lost[0]])} cannot be decoded")
            yield out
        for _ in pictures:  # the last run adds its counts after its last picture
            pass
    job.check_loss(counts)


@dataclass(frozen=True, slots=True)
class _Job:
    """The parameters of one decode, shared by all threads; `picked` are distinct frames, increasing."""

    index: VideoIndex
    plan: DecodePlan
    picked: Index
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
            raise too_much_lost(audit, "corrupt")


RankAndFrame = tuple[int, Frames | None]
"""Position in `times_ns`, and the frame, uint8 [H, W, 3] RGB; None if the frame is lost."""


def _in_order(job: _Job, audit: DecodeAudit) -> Generator[RankAndFrame, None, None]:
    with _Decoder(job) as decoder:
        for run in job.plan.runs:
            yield from decoder.run(run, audit)


class _ExpectedPictures:
    """The pictures that the decoder must give for one run, and which of them are damaged."""

    def __init__(self, run: Run, job: _Job, disposable: NDArray[np.bool_]) -> None:
        rank = job.index.presentation.rank
        fed = run.start + np.flatnonzero(job.plan.feed[run.start : run.stop])
        fed = fed[rank[fed] != NOT_SHOWN]
        fed = fed[np.argsort(rank[fed])]
        self._ranks: list[int] = rank[fed].tolist()
        self._packets: list[int] = fed.tolist()
        self._is_disposable: list[bool] = disposable[fed].tolist()
        self._place_of_rank = {shown: place for place, shown in enumerate(self._ranks)}
        low, high = np.searchsorted(job.picked, rank[fed[[0, -1]]], side="left")
        self._picked = frozenset(job.picked[low : high + 1].tolist())
        self._place = 0
        self._decoded_places: list[int] = []
        # Before a packet that the demuxer marks others may be missing, so all after it is damaged.
        flagged = np.flatnonzero(job.index.packets.corrupt[run.start : run.stop])
        self.flagged: list[int] = flagged.tolist()
        self._damaged_from = run.start + self.flagged[0] if self.flagged else run.stop
        self._damaged: set[int] = set()

    def next_rank(self) -> int | None:
        """The rank of the next picture, for streams without presentation times; None after the last."""
        return self._ranks[self._place] if self._place < len(self._ranks) else None

    def record(self, rank: int | None) -> list[int]:
        """Record a decoded picture, or the end of the run (None).

        Returns:
            ranks of the picked pictures that should have come before it but did not.
        """
        place = len(self._ranks) if rank is None else self._place_of_rank[rank]
        if place < self._place:
            message = (
                "timestamps run backward: frames are shown in another order than their timestamps"
            )
            raise RefusedInput(Reason.TIMESTAMPS_BACKWARD, message)
        missing = range(self._place, place)
        for count in missing:
            self._damage(count)
        self._place = place + 1
        if rank is not None:
            self._decoded_places.append(place)
        return [self._ranks[count] for count in missing if self._ranks[count] in self._picked]

    @property
    def total(self) -> int:
        """Number of pictures that the decoder must give."""
        return len(self._ranks)

    def is_picked(self, rank: int) -> bool:
        return rank in self._picked

    def damage_picture(self, rank: int) -> None:
        """Mark a picture as damaged, and all pictures that may be predicted from it."""
        self._damage(self._place_of_rank[rank])

    def damage_packet(self, packet: int, shown: int) -> None:
        """As `damage_picture`, for a packet; `shown` is its rank, or NOT_SHOWN."""
        if shown in self._place_of_rank:
            self.damage_picture(shown)
        else:
            self._damaged_from = min(self._damaged_from, packet)

    def _damage(self, place: int) -> None:
        if self._is_disposable[place]:
            self._damaged.add(place)
        else:
            self._damaged_from = min(self._damaged_from, self._packets[place])

    def is_intact(self, rank: int) -> bool:
        place = self._place_of_rank[rank]
        return self._packets[place] < self._damaged_from and place not in self._damaged

    def intact(self) -> int:
        """Number of pictures that were decoded without damage."""
        return sum(
            self._packets[place] < self._damaged_from and place not in self._damaged
            for place in self._decoded_places
        )


class _Decoder:
    """One open file with its decoder; it decodes runs in file order."""

    SKIP = 64
    """Packets; reading past this many costs about as much time as a seek."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._table = job.index.packets
        self._disposable = self._table.disposable()
        self._scaler = Scaler(job.index.picture, job.size, job.fit)
        self._can_seek = True
        self._open()

    def _open(self) -> None:
        index = self._job.index
        opened = Source if index.decoder == "cpu" else on_gpu
        self._source = opened(index.path, index.limits, index.stream, pieces=index.pieces)
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

    def run(self, run: Run, audit: DecodeAudit) -> Iterator[RankAndFrame]:
        """Decode one run: its picked pictures in the order in which they are shown."""
        by_order = self._job.index.presentation.by_order
        expected = _ExpectedPictures(run, self._job, self._disposable)
        waiting: deque[RankAndFrame] = deque()
        surplus = 0
        for frame in self._decoded(run, expected, audit):
            rank = expected.next_rank() if by_order else frame.pts
            if rank is None or rank == NOT_SHOWN:
                surplus += 1
                continue
            waiting.extend((missing, None) for missing in expected.record(rank))
            if frame.is_corrupt:
                audit.corrupt += 1
                expected.damage_picture(rank)
            if expected.is_picked(rank):
                waiting.append((rank, self._scaled(frame, rank)))
            # A picture may be predicted from one that is shown up to REORDER places later. It waits
            # until that one is decoded, because only then its damage is known.
            while waiting and waiting[0][0] + REORDER < rank:
                yield _without_damage(expected, *waiting.popleft())
        waiting.extend((missing, None) for missing in expected.record(None))
        while waiting:
            yield _without_damage(expected, *waiting.popleft())
        audit.pictures_decoded += expected.intact()
        if by_order and (surplus or expected.intact() < expected.total):
            # Without time stamps, one picture too many or too few shifts all later ones.
            raise too_much_lost(audit, "corrupt, and no timestamps tell which frames are missing")

    def _scaled(self, frame: VideoFrame, rank: int) -> Frames:
        """A picture brought to size; a refusal says when it comes."""
        if self._job.index.decoder != "cpu":
            frame = like_cpu(frame, self._job.index.picture.pixel_format)
        try:
            return self._scaler.picture(frame)
        except RefusedInput as why:
            if why.reason is not Reason.RESOLUTION_CHANGE:
                raise
            at_s = int(self._job.index.times_ns[rank]) / SECOND_NS
            message = f"{why.message} at {plain_number(at_s)} s or shortly before: split it there"
            raise RefusedInput(why.reason, message) from None

    def _decoded(
        self, run: Run, expected: _ExpectedPictures, audit: DecodeAudit
    ) -> Iterator[VideoFrame]:
        """Decode a run's packets: the pictures, each with its rank as its time stamp."""
        context, rank = self._source.context, self._job.index.presentation.rank
        audit.corrupt += len(expected.flagged)
        for at, packet in self._packets_to_decode(run):
            shown = int(rank[at])
            # The rank replaces the time stamp, so that the packet of every picture is known, even if
            # time stamps are missing or equal.
            packet.pts, packet.dts = shown, None
            try:
                frames = context.decode(packet)
            except av.error.MemoryError:
                message = "there is not enough memory to decode its pictures"
                raise RefusedInput(Reason.OUT_OF_MEMORY, message) from None
            except av.error.FFmpegError:
                if at >= self._job.index.presentation.whole:  # before it all is known to be lost
                    audit.errors += 1
                    expected.damage_packet(at, shown)
                continue
            yield from frames
        try:
            yield from context.decode(None)
        except av.error.FFmpegError:
            audit.errors += 1
        context.flush_buffers()

    def _packets_to_decode(self, run: Run) -> Iterator[tuple[int, Packet[VideoStream]]]:
        """The packets of a run for the decoder, with their numbers."""
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
        """Go to packet `start` or a little before it; to the start of the file if seeking fails."""
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


def _without_damage(expected: _ExpectedPictures, rank: int, picture: Frames | None) -> RankAndFrame:
    return rank, picture if expected.is_intact(rank) else None


class _Stopped(Exception):
    """The caller has stopped reading frames."""


Message = RankAndFrame | DecodeAudit | BaseException


def _in_threads(job: _Job, audit: DecodeAudit, threads: int) -> Generator[RankAndFrame, None, None]:
    """As `_in_order`, with several threads; each takes the next chunk of runs when it is free.

    At most threads + 1 chunks are in progress, and each holds a limited number of finished frames, so
    memory does not depend on the length of the file.
    """
    chunks = _chunks(job.plan.runs)
    capacity = max(8, min(256, QUEUE_BYTES // (job.size[0] * job.size[1] * 3)))
    queues: list[Queue[Message]] = [Queue(capacity) for _ in chunks]
    numbers, numbers_lock = iter(range(len(chunks))), threading.Lock()
    stop, room = threading.Event(), threading.Semaphore(threads + 1)

    def claim() -> int | None:
        room.acquire()
        with numbers_lock:
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
                    chunk_audit = DecodeAudit()
                    for run in chunks[number]:
                        for shown in decoder.run(run, chunk_audit):
                            put(number, shown)
                    put(number, chunk_audit)
                    number = claim()
        except _Stopped:
            return
        except BaseException as error:  # passed to the caller, who gets it raised
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
    """Group neighbouring runs into chunks of about CHUNK_PACKETS packets."""
    chunks: list[list[Run]] = []
    for run in runs:
        if chunks and run.stop - chunks[-1][0].start <= CHUNK_PACKETS:
            chunks[-1].append(run)
        else:
            chunks.append([run])
    return chunks
